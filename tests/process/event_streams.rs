//! What a stop does with endless responses: the rows of the contract's table, one by one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::client::{Client, get};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::sse::{CHUNKED, CLOSING, Ended, Feed, Tongue, ending, events, piece, telling};
use crate::support::wire::End;
use crate::support::{admin, ms, pause, ws};

pub(crate) const FIRST: &str = "data: a\n\n";

pub(crate) fn clean(body: &str) -> Ended {
    Ended { clean: true, body: body.to_owned() }
}

pub(crate) fn unclean(body: &str) -> Ended {
    Ended { clean: false, body: body.to_owned() }
}

/// SIGTERM; the workers have heard of it when this returns.
pub(crate) fn drain(proxy: &Proxy) {
    proxy.terminate();
    proxy.wait_phase("draining");
    pause(ms(60));
}

/// The process ended with everything told, so many of its endless responses by itself.
#[track_caller]
pub(crate) fn all_told(proxy: &Proxy, told: u64) {
    proxy.wait_clean_exit();
    assert_eq!((proxy.reported("told"), proxy.reported("cut_total")), (told, 0));
    assert!(proxy.events("request_cut").is_empty());
}

#[test]
fn between_two_events_a_stream_ends_at_once_and_properly() {
    for tongue in Tongue::ALL {
        for head in [CHUNKED, CLOSING] {
            let origin = telling(head, &[FIRST]);
            let proxy = Launch::before(&origin).tls().stop("idle_grace", "60s").start();
            let mut feed = Feed::open(&proxy, tongue, "/events");
            assert_eq!(feed.until(FIRST.len()), FIRST);
            proxy.terminate();
            assert_eq!(feed.finish(), clean(FIRST), "{tongue:?}");
            assert_eq!(origin.wait_connection_end(0).0, End::Eof);
            all_told(&proxy, 1);
            let line = proxy.access_log().pop().unwrap();
            assert_eq!((&line["told"], &line["error"]), (&true.into(), &().into()), "{line}");
            let closed = &proxy.drain_report()["closed"];
            assert_eq!((&closed["drain"], &closed["cut"]), (&1.into(), &0.into()), "{closed}");
        }
    }
}

#[test]
fn inside_an_event_the_end_waits_for_the_empty_line() {
    for tongue in Tongue::ALL {
        for (begin, rest, end) in [
            ("data: a\n\ndata: b", "b\n\ndata: c", "data: a\n\ndata: bb\n\n"),
            ("data: a\n", "\n: c\nid: 4", "data: a\n\n: c\n"),
            ("data: a\r\n\r", "", "data: a\r\n\r"),
            ("data: a\r\n", "\r\ndata: c\r\n", "data: a\r\n\r\n"),
            ("data: a\r", "\rdata: b\r", "data: a\r\r"),
            ("data: a\n\nid: 7\n", "data: x\n\n", "data: a\n\nid: 7\ndata: x\n\n"),
            ("\u{feff}data: a\n", "\n", "\u{feff}data: a\n\n"),
        ] {
            let origin = telling(CHUNKED, &[begin, rest]);
            let proxy = Launch::before(&origin).tls().start();
            let mut feed = Feed::open(&proxy, tongue, "/events");
            feed.until(begin.len());
            drain(&proxy);
            origin.release("1");
            assert_eq!(feed.finish(), clean(end), "{tongue:?} {begin:?}");
            all_told(&proxy, 1);
        }
    }
}

#[test]
fn an_event_that_is_open_at_the_deadline_never_ends_cleanly_and_is_named() {
    for tongue in Tongue::ALL {
        for head in [CHUNKED, CLOSING] {
            let begin = "data: a\n\ndata: b";
            let origin = telling(head, &[begin]);
            let proxy = Launch::before(&origin).tls().stop("drain_timeout", "300ms").start();
            let mut feed = Feed::open(&proxy, tongue, "/events");
            feed.until(begin.len());
            proxy.terminate();
            assert_eq!(feed.finish(), unclean(begin), "{tongue:?}");
            assert_eq!(proxy.wait_exit().code(), 3);
            let cut = proxy.wait_event("request_cut");
            assert_eq!((cut.text("target"), &cut.fields["by_route"]), ("/events", &false.into()));
            assert_eq!((proxy.reported("cut_total"), proxy.reported("told")), (1, 0));
        }
    }
}

#[test]
fn ends_are_spread_from_the_configured_instant_on() {
    let origin = telling(CHUNKED, &[FIRST]);
    let proxy = Launch::before(&origin)
        .arg("--workers")
        .arg("1")
        .stop("stream_close_after", "300ms")
        .stop("spread", "1s")
        .start();
    let feeds: Vec<_> = (0..200)
        .map(|number| {
            let tongue = if number % 10 == 0 { Tongue::H2 } else { Tongue::H1 };
            let mut feed = Feed::open(&proxy, tongue, "/events");
            feed.until(FIRST.len());
            feed
        })
        .collect();
    let began = proxy.terminate();
    let readers: Vec<_> = feeds
        .into_iter()
        .map(|feed| {
            std::thread::spawn(move || {
                assert_eq!(feed.finish(), clean(FIRST));
                began.elapsed()
            })
        })
        .collect();
    let mut ends: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    ends.sort();
    // Late they may be on a busy machine, but never early.
    for (place, end) in (0..).zip(&ends) {
        assert!(*end >= ms(300 + 4 * place), "number {place} after {end:?}");
    }
    all_told(&proxy, 200);
}

#[test]
fn a_last_line_tells_clients_when_to_come_back_if_that_is_configured() {
    for tongue in Tongue::ALL {
        for (begin, rest) in [(FIRST, None), ("data: a\n", Some("\ndata: b\n"))] {
            let pieces: Vec<&str> = [Some(begin), rest].into_iter().flatten().collect();
            let origin = telling(CHUNKED, &pieces);
            let proxy = Launch::before(&origin).tls().set("event_stream.retry", "3s").start();
            let mut feed = Feed::open(&proxy, tongue, "/events");
            feed.until(begin.len());
            drain(&proxy);
            origin.release("1");
            let ended = feed.finish();
            let line = ended.body.strip_prefix(FIRST).unwrap_or_else(|| panic!("{ended:?}"));
            let time = line.strip_prefix("retry: ").and_then(|it| it.strip_suffix("\n\n"));
            let time: u64 = time.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{line}"));
            assert!(ended.clean && (3000..6000).contains(&time), "{ended:?}");
            all_told(&proxy, 1);
        }
    }
}

#[test]
fn what_cannot_be_followed_goes_on_until_the_deadline() {
    let coded = CHUNKED.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
    let sized = CHUNKED.replace("Transfer-Encoding: chunked", "Content-Length: 100");
    for head in [coded, sized] {
        for tongue in Tongue::ALL {
            let origin = telling(&head, &[FIRST]);
            let proxy = Launch::before(&origin).tls().stop("drain_timeout", "300ms").start();
            let mut feed = Feed::open(&proxy, tongue, "/events");
            feed.until(FIRST.len());
            proxy.terminate();
            assert_eq!(feed.finish(), unclean(FIRST), "{tongue:?}");
            assert_eq!(proxy.wait_exit().code(), 3);
        }
    }
}

#[test]
fn an_event_stream_that_nobody_subscribed_to_is_an_ordinary_response() {
    let identity = CHUNKED.replace("\r\n\r\n", "\r\nContent-Encoding: identity\r\n\r\n");
    for (head, method, accept, endless) in [
        (CHUNKED, "POST", "text/event-stream", false),
        (CHUNKED, "GET", "*/*", false),
        (CHUNKED, "GET", "text/event-stream", true),
        (CHUNKED, "GET", "text/html, Text/Event-Stream;q=0.5", true),
        (&identity, "GET", "text/event-stream", true),
    ] {
        for tongue in [Tongue::H1, Tongue::H2] {
            let origin = ending(head, &[FIRST, "data: b\n\n"]);
            let proxy = Launch::before(&origin).start();
            let fields = [("accept", accept), ("content-length", "0")];
            let fields = if method == "POST" { &fields[..] } else { &fields[..1] };
            let mut feed = Feed::ask(&proxy, tongue, (method, "/answer"), fields);
            feed.until(FIRST.len());
            drain(&proxy);
            origin.release("1");
            let body = if endless { FIRST } else { "data: a\n\ndata: b\n\n" };
            assert_eq!(feed.finish(), clean(body), "{tongue:?} {method} {accept}");
            all_told(&proxy, endless.into());
        }
    }
}

#[test]
fn a_head_alone_is_no_stream() {
    let origin = Origin::scripted(|conn, _| conn.send(CHUNKED).map(|()| Next::KeepAlive));
    let proxy = Launch::before(&origin).stop("idle_grace", "60s").start();
    let mut client = proxy.client();
    client.send("HEAD /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.response_to_head().status, 200);
    drain(&proxy);
    client.send("HEAD /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    assert!(client.response_to_head().says_close());
    assert_eq!(client.end(), End::Eof);
    all_told(&proxy, 0);
}

#[test]
fn a_stream_that_begins_in_the_drain_is_told_at_once() {
    for tongue in Tongue::ALL {
        for first in ["", FIRST] {
            let origin = Origin::scripted(move |conn, _| {
                conn.hold("begin")?;
                conn.send([CHUNKED.as_bytes(), &piece(CHUNKED, first)[..]].concat())?;
                Err(conn.wait_end())
            });
            let origin = if first.is_empty() { silent() } else { origin };
            let proxy = Launch::before(&origin).tls().start();
            let feed = Feed::open(&proxy, tongue, "/events");
            origin.wait_started("/events");
            drain(&proxy);
            origin.release("begin");
            assert_eq!(feed.finish(), clean(first), "{tongue:?}");
            all_told(&proxy, 1);
        }
    }
}

/// An app server that begins a stream when it is told to, and then has nothing to say.
fn silent() -> Origin {
    Origin::scripted(|conn, _| {
        conn.hold("begin")?;
        conn.send(CHUNKED)?;
        Err(conn.wait_end())
    })
}

#[test]
fn a_request_behind_a_stream_is_answered() {
    let origin = Origin::scripted(|conn, request| {
        if request.target == "/next" {
            return conn.answer("200 OK", "next");
        }
        conn.send([CHUNKED.as_bytes(), &piece(CHUNKED, FIRST)[..]].concat())?;
        Err(conn.wait_end())
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    client.head();
    client.send(get("/next"));
    proxy.terminate();
    let mut body = Vec::new();
    client.wire.chunked(&mut body).unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), FIRST);
    let next = client.response();
    assert!(next.text() == "next" && next.says_close());
    assert_eq!(client.end(), End::Eof);
    all_told(&proxy, 1);
}

#[test]
fn a_client_of_http_1_0_gets_a_fin_behind_the_event() {
    let origin = telling(CHUNKED, &["data: a\n\ndata: b", "\n\ndata: c"]);
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n");
    let mut feed = Feed::of(client);
    assert_eq!(feed.status(), 200);
    feed.until(16);
    drain(&proxy);
    origin.release("1");
    assert_eq!(feed.finish(), clean("data: a\n\ndata: b\n\n"));
    all_told(&proxy, 1);
}

#[test]
fn an_app_server_that_ends_a_stream_ends_it_and_one_that_dies_does_not() {
    let trailers = format!("{CHUNKED}9\r\n{FIRST}\r\n0\r\nX-Sum: 1\r\n\r\n");
    let (whole, inside) = (format!("{CLOSING}{FIRST}"), format!("{CLOSING}data: a\n"));
    let died = format!("{CHUNKED}9\r\n{FIRST}\r\n");
    for tongue in Tongue::ALL {
        for (octets, ended) in [
            (&trailers, clean(FIRST)),
            (&whole, clean(FIRST)),
            (&inside, unclean("data: a\n")),
            (&died, unclean(FIRST)),
        ] {
            let octets = octets.clone();
            let origin = Origin::scripted(move |conn, _| {
                conn.send(&octets)?;
                conn.hold("end")?;
                Ok(Next::Close)
            });
            let proxy = Launch::before(&origin).tls().start();
            let mut feed = Feed::open(&proxy, tongue, "/events");
            feed.until(ended.body.len());
            origin.release("end");
            if ended.clean && !tongue.is_h2() {
                // The connection is kept: it is idle.
                proxy.wait_access("of the stream", |line| line.contains("/events"));
                proxy.terminate();
            }
            assert_eq!(feed.finish(), ended, "{tongue:?}");
        }
    }
}

#[test]
fn a_stream_may_pause_for_longer_than_other_responses() {
    let origin = telling(CHUNKED, &[FIRST, "data: b\n\n"]);
    let proxy = Launch::before(&origin).set("upstream.between_bytes_timeout", "200ms").start();
    let mut feed = Feed::open(&proxy, Tongue::H1, "/events");
    feed.until(FIRST.len());
    pause(ms(700));
    origin.release("1");
    assert_eq!(feed.until(18), "data: a\n\ndata: b\n\n");
    // Whether it can be followed or not.
    let coded = CHUNKED.replace("\r\n\r\n", "\r\nContent-Encoding: br\r\n\r\n");
    let origin = telling(&coded, &["1", "2"]);
    let proxy = Launch::before(&origin).set("upstream.between_bytes_timeout", "200ms").start();
    let mut feed = Feed::open(&proxy, Tongue::H2, "/events");
    let mut post = Feed::ask(&proxy, Tongue::H1, ("POST", "/events"), &[("content-length", "0")]);
    feed.until(1);
    post.until(1);
    assert_eq!(post.finish(), unclean("1"));
    origin.release("1");
    assert_eq!(feed.until(2), "12");
}

#[test]
fn a_stream_is_told_in_time_before_the_hard_deadline() {
    let origin = telling(CHUNKED, &[FIRST]);
    let proxy = Launch::before(&origin)
        .stop("stream_close_after", "60s")
        .stop("drain_timeout", "2s")
        .stop("close_timeout", "1500ms")
        .start();
    let mut feed = Feed::open(&proxy, Tongue::H1, "/events");
    feed.until(FIRST.len());
    let began = proxy.terminate();
    assert_eq!(feed.finish(), clean(FIRST));
    assert!(began.elapsed() >= ms(400) && began.elapsed() < ms(1_900), "{:?}", began.elapsed());
    all_told(&proxy, 1);
}

#[test]
fn tunnels_and_streams_are_told_in_one_row() {
    let origin = Origin::scripted(|conn, request| {
        if request.target == "/chat" {
            return ws::echo(conn, request);
        }
        conn.send([CHUNKED.as_bytes(), &piece(CHUNKED, FIRST)[..]].concat())?;
        Err(conn.wait_end())
    });
    let proxy = Launch::before(&origin).arg("--workers").arg("1").stop("spread", "2s").start();
    let mut feeds = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..25 {
        let mut feed = Feed::open(&proxy, Tongue::H1, "/events");
        feed.until(FIRST.len());
        feeds.push(feed);
        sockets.push(ws::Socket::open(proxy.client(), "/chat"));
    }
    let began = proxy.terminate();
    let told = std::thread::spawn(move || {
        for socket in &mut sockets {
            assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
        }
        (began.elapsed(), sockets)
    });
    for feed in feeds {
        assert_eq!(feed.finish(), clean(FIRST));
    }
    let (streams, (tunnels, sockets)) = (began.elapsed(), told.join().unwrap());
    // Alone, either would be done after 250 ms.
    assert!(streams >= ms(400) && tunnels >= ms(400), "{streams:?}, {tunnels:?}");
    drop(sockets);
    all_told(&proxy, 25);
}

#[test]
fn a_stream_that_never_pauses_ends_behind_an_event_all_the_same() {
    for tongue in Tongue::ALL {
        let origin = Origin::scripted(|conn, _| {
            conn.send(CHUNKED)?;
            let text = piece(CHUNKED, &"data: 0123456789\r\n\r\n".repeat(50)).repeat(20);
            loop {
                conn.send(&text)?;
            }
        });
        let proxy = Launch::before(&origin).tls().start();
        let mut feed = Feed::open(&proxy, tongue, "/events");
        feed.until(100);
        proxy.terminate();
        let Ended { clean, body } = feed.finish();
        let (events, rest) = events(&body);
        assert!(clean && rest.is_empty(), "{tongue:?}: {clean}, {rest:?}");
        assert!(events.iter().all(|event| event == "data: 0123456789"), "{tongue:?}");
        all_told(&proxy, 1);
    }
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount_of_memory() {
    let sent = Arc::new(Mutex::new(0_u64));
    let count = Arc::clone(&sent);
    let origin = Origin::scripted(move |conn, _| {
        conn.send(CHUNKED)?;
        let text = piece(CHUNKED, &"data: 0123456789\n\n".repeat(500));
        loop {
            conn.send(&text)?;
            *count.lock().unwrap() += text.len() as u64;
        }
    });
    let proxy = Launch::before(&origin).stop("drain_timeout", "300ms").start();
    let before = proxy.rss();
    let clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::connect_narrow(&proxy.place(), 4096);
            client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
            client.head();
            client
        })
        .collect();
    let mut last = 0;
    // The app server is stuck too when nothing moves any more.
    while last != *sent.lock().unwrap() || last == 0 {
        last = *sent.lock().unwrap();
        pause(ms(200));
    }
    let grown = proxy.rss().saturating_sub(before);
    assert!(grown < 20 * (300 << 10), "{grown} octets for 20 clients that read nothing");
    drop(clients);
}

#[test]
fn open_and_told_streams_are_counted() {
    let origin = telling(CHUNKED, &[FIRST]);
    let proxy = Launch::before(&origin).admin().stop("stream_close_after", "700ms").start();
    let mut feeds: Vec<_> =
        [Tongue::H1, Tongue::H2, Tongue::H2].map(|it| Feed::open(&proxy, it, "/events")).into();
    for feed in &mut feeds {
        feed.until(FIRST.len());
    }
    let place = proxy.admin();
    let metric = |name: &str| admin::metric(&place, name);
    assert_eq!(metric("ebbtide_endless_responses{protocol=\"h2\"}"), 2.0);
    assert_eq!(metric("ebbtide_endless_responses{protocol=\"h1\"}"), 1.0);
    assert_eq!(admin::count(&place, &["endless"]), 3);
    drop(feeds.pop());
    proxy.wait_count(&["endless"], 2);
    proxy.terminate();
    for feed in feeds {
        assert_eq!(feed.finish(), clean(FIRST));
    }
    all_told(&proxy, 2);
}

#[test]
fn a_client_that_leaves_frees_the_app_server() {
    let left = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&left);
    let origin = Origin::scripted(move |conn, _| {
        conn.send([CHUNKED.as_bytes(), &piece(CHUNKED, FIRST)[..]].concat())?;
        let end = conn.wait_end();
        seen.store(true, Ordering::SeqCst);
        Err(end)
    });
    let proxy = Launch::before(&origin).start();
    let mut feed = Feed::open(&proxy, Tongue::H2, "/events");
    feed.until(FIRST.len());
    drop(feed);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    assert!(left.load(Ordering::SeqCst));
    proxy.terminate();
    all_told(&proxy, 0);
}

#[test]
fn a_client_that_has_left_a_silent_stream_is_let_go() {
    let origin = telling(CHUNKED, &[FIRST]);
    let proxy = Launch::before(&origin).admin().start();
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").head();
    client.half_close();
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    proxy.wait_count(&["endless"], 0);
    let line = proxy.wait_access("the stream's line", |line| line.contains("/events"));
    assert!(line.contains("\"error\":\"client_gone\""), "{line}");
}

#[test]
fn what_is_asked_right_behind_a_told_stream_is_answered() {
    let origin = Origin::scripted(|conn, request| {
        if request.target != "/events" {
            return conn.answer("200 OK", "here");
        }
        conn.send(CHUNKED)?;
        conn.send(piece(CHUNKED, FIRST))?;
        Ok(if conn.wait_end() == End::Eof { Next::Close } else { Next::Reset })
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").head();
    let [first, last] = [piece(CHUNKED, FIRST), b"0\r\n\r\n".to_vec()];
    assert_eq!(client.octets(first.len()), first);
    proxy.terminate();
    assert_eq!(client.octets(last.len()), last);
    let response = client.get("/next").response();
    assert_eq!((response.status, response.says_close()), (200, true));
    assert_eq!(client.end(), End::Eof);
    all_told(&proxy, 1);
}
