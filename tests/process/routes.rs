//! What a route says of endless responses, and of a stop.

use crate::event_streams::{FIRST, all_told, clean, drain, unclean};
use crate::support::client::get;
use crate::support::h2::Code;
use crate::support::origin::{Crowd, Origin};
use crate::support::process::Launch;
use crate::support::sse::{CHUNKED, Feed, Tongue, ending, piece, telling};
use crate::support::wire::End;
use crate::support::{PATIENCE, admin, ms, pause, within, ws};

/// Before this app server, with one route.
fn routed(origin: &Origin, route: &str) -> (tempfile::TempDir, Launch) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ebbtide.toml");
    std::fs::write(&path, format!("[[route]]\n{route}\n")).unwrap();
    let launch = Launch::before(origin).tls().arg("--config").arg(path.display().to_string());
    (dir, launch)
}

#[test]
fn another_endless_body_ends_behind_a_whole_chunk_of_the_app_server() {
    let ndjson = CHUNKED.replace("text/event-stream", "application/x-ndjson");
    for tongue in Tongue::ALL {
        // The second chunk comes in two parts, the third comes too late.
        let head = ndjson.clone();
        let origin = Origin::scripted(move |conn, _| {
            conn.send(format!("{head}2\r\n1\n\r\n4\r\n2,"))?;
            conn.hold("rest")?;
            conn.send("3\n\r\n2\r\n4\n\r\n")?;
            Err(conn.wait_end())
        });
        let (_dir, launch) = routed(&origin, "path = '/log'\nendless = true");
        let proxy = launch.start();
        let mut feed = Feed::ask(&proxy, tongue, ("POST", "/log"), &[("content-length", "0")]);
        feed.until(4);
        drain(&proxy);
        origin.release("rest");
        assert_eq!(feed.finish(), clean("1\n2,3\n"), "{tongue:?}");
        all_told(&proxy, 1);
    }
    let origin = telling("HTTP/1.1 200 OK\r\n\r\n", &["until the end"]);
    let (_dir, launch) = routed(&origin, "path = '/'\nendless = true");
    let proxy = launch.start();
    let mut feed = Feed::ask(&proxy, Tongue::H1, ("GET", "/log"), &[]);
    feed.until(13);
    proxy.terminate();
    assert_eq!(feed.finish(), clean("until the end"));
    all_told(&proxy, 1);
}

#[test]
fn a_route_that_cancels_ends_at_once_on_both_sides_and_names_what_it_ended() {
    let ordinary = CHUNKED.replace("text/event-stream", "text/plain");
    for tongue in Tongue::ALL {
        let head = ordinary.clone();
        let origin = Origin::scripted(move |conn, request| {
            if request.target == "/job/begun" {
                conn.send([head.as_bytes(), &piece(&head, "half")[..]].concat())?;
            }
            Err(conn.wait_end())
        });
        let (_dir, launch) = routed(&origin, "path = '/job'\non_drain = 'cancel'");
        let proxy = launch.start();
        let mut begun = Feed::ask(&proxy, tongue, ("GET", "/job/begun"), &[]);
        begun.until(4);
        let mut waiting = Feed::ask(&proxy, tongue, ("GET", "/job"), &[]);
        origin.wait_started("/job");
        proxy.terminate();
        assert_eq!(begun.finish(), unclean("half"), "{tongue:?}");
        assert_eq!(waiting.status(), 504);
        assert!(waiting.finish().clean);
        assert_eq!(
            (origin.wait_connection_end(0).0, origin.wait_connection_end(1).0),
            (End::Eof, End::Eof)
        );
        assert_eq!(proxy.wait_exit().code(), 0, "it was asked for");
        assert_eq!((proxy.reported("cancelled_total"), proxy.reported("cut_total")), (2, 0));
        assert_eq!(proxy.reported("cut"), 2);
        let cut = proxy.wait_event("request_cut");
        assert_eq!(cut.fields["by_route"], true);
        let log = proxy.access_log();
        assert!(log.iter().all(|line| line["error"] == "cancelled"), "{log:?}");
    }
}

#[test]
fn what_a_route_cancels_before_the_app_server_had_it_may_be_sent_again() {
    let crowd = Crowd::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ebbtide.toml");
    std::fs::write(&path, "[[route]]\npath = '/'\non_drain = 'cancel'\n").unwrap();
    let proxy = Launch::before_addr(&crowd.place().to_string())
        .arg("--config")
        .arg(path.display().to_string())
        .admin()
        .start();
    let mut client = proxy.client();
    client.send(get("/job"));
    let h2 = Feed::ask(&proxy, Tongue::H2, ("GET", "/job"), &[]);
    let in_flight = |family: &str| format!("ebbtide_requests_in_flight{{protocol=\"{family}\"}}");
    for family in ["h1", "h2"] {
        within(PATIENCE, "the request to wait for a connection", || {
            (admin::metric(&proxy.admin(), &in_flight(family)) > 0.0).then_some(())
        });
    }
    proxy.terminate();
    let response = client.response();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    assert!(response.says_close());
    assert_eq!(client.end(), End::Eof);
    assert_eq!(h2.reset(), Some(Code::REFUSED_STREAM));
    assert_eq!(proxy.wait_exit().code(), 0);
    assert_eq!(proxy.reported("cancelled_total"), 2);
}

#[test]
fn a_route_says_what_a_stop_does_with_its_websockets() {
    for (said, after, told) in
        [("close-after 500ms", ms(500), true), ("cancel", ms(0), true), ("finish", ms(0), false)]
    {
        let origin = Origin::scripted(ws::echo);
        let (_dir, launch) = routed(&origin, &format!("path = '/chat'\non_drain = '{said}'"));
        let close = if told { "leave" } else { "close" };
        let proxy = launch.set("websocket.on_drain", close).start();
        let mut socket = ws::Socket::open(proxy.client(), "/chat");
        let began = proxy.terminate();
        if told {
            assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
            assert!(began.elapsed() >= after, "{said}: {:?}", began.elapsed());
        } else {
            proxy.wait_phase("draining");
            pause(ms(100));
            socket.echo("still here");
            socket.send(&ws::Frame::close(1000));
            assert_eq!(socket.read_to_close(), (Some(1000), vec![]));
        }
        socket.send(&ws::Frame::close(1001));
        assert_eq!(socket.end(), End::Eof);
        drop(socket);
        proxy.wait_clean_exit();
    }
}

#[test]
fn a_route_closes_after_its_time_cleanly_where_there_is_a_place_and_else_not() {
    let ordinary = CHUNKED.replace("text/event-stream", "text/plain");
    for (head, ended) in [(CHUNKED, clean(FIRST)), (&*ordinary, unclean(FIRST))] {
        for tongue in Tongue::ALL {
            let origin = telling(head, &[FIRST]);
            let (_dir, launch) = routed(&origin, "path = '/x'\non_drain = 'close-after 400ms'");
            let proxy = launch.stop("drain_timeout", "60s").start();
            let fields = [("content-length", "0")];
            let mut feed = Feed::ask(&proxy, tongue, ("POST", "/x?y"), &fields);
            feed.until(FIRST.len());
            let began = proxy.terminate();
            assert_eq!(feed.finish(), ended, "{tongue:?}");
            let took = began.elapsed();
            assert!(took >= ms(400) && took < ms(5_000), "{took:?}");
            assert_eq!(proxy.wait_exit().code(), 0);
            assert_eq!(proxy.reported("told") + proxy.reported("cancelled_total"), 1);
        }
    }
}

#[test]
fn a_route_that_finishes_leaves_its_streams_alone() {
    let origin = ending(CHUNKED, &[FIRST, "data: b\n\n"]);
    let (_dir, launch) = routed(&origin, "path = '/events'\non_drain = 'finish'");
    let proxy = launch.start();
    let mut feed = Feed::open(&proxy, Tongue::H1, "/events");
    feed.until(FIRST.len());
    drain(&proxy);
    origin.release("1");
    assert_eq!(feed.until(18), "data: a\n\ndata: b\n\n");
    drop(feed);
    all_told(&proxy, 0);
}

#[test]
fn an_endless_response_may_pause_for_longer_than_others() {
    let ndjson = CHUNKED.replace("text/event-stream", "application/json");
    let origin = telling(&ndjson, &["1", "2"]);
    let (_dir, launch) = routed(&origin, "path = '/log'\nendless = true");
    let proxy = launch.set("upstream.between_bytes_timeout", "200ms").start();
    let mut log = Feed::ask(&proxy, Tongue::H2, ("GET", "/log/7"), &[]);
    let mut other = Feed::ask(&proxy, Tongue::H2, ("GET", "/logs"), &[]);
    log.until(1);
    other.until(1);
    assert_eq!(other.finish(), unclean("1"));
    origin.release("1");
    assert_eq!(log.until(2), "12");
}
