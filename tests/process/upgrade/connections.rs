//! Established connections: what moves goes on in the new process, what cannot goes on
//! in the old one, and no peer notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{LEAVES_WITHIN, app, is_served, leaves, start, upgrade_whole};
use crate::support::client::{Client, End, get, post_head};
use crate::support::generations::{Generations, sum};
use crate::support::h2::H2;
use crate::support::h2::frame::Code;
use crate::support::origin::{HALVES, Next, Origin};
use crate::support::process::Launch;
use crate::support::sse;
use crate::support::tls::TlsEnd;
use crate::support::ws::{self, BINARY, Frame, Socket};
use crate::support::{PATIENCE, ms, pattern, within};

#[test]
fn idle_and_fresh_connections_go_on_in_the_new_process() {
    let (_origin, line) = start(|launch| launch);
    let mut idle: Vec<Client> = (0..20).map(|_| line.idle_client()).collect();
    let mut fresh: Vec<Client> = (0..20).map(|_| line.client()).collect();
    for n in 0..3 {
        upgrade_whole(&line);
        for client in &mut idle {
            is_served(client, &format!("/after/{n}"));
        }
    }
    for client in &mut fresh {
        is_served(client, "/first");
    }
    assert_eq!(sum(&line.report_of(1)["moved"]), 40, "{}", line.report_of(1));
    assert_eq!(line.report_of(1)["cut"], serde_json::json!([]));
    assert_eq!(line.report_of(1)["raced"], 0);
}

#[test]
fn head_that_is_half_sent_is_answered_wherever_its_cut_is() {
    let (_origin, line) = start(|launch| launch);
    let request = get("/half");
    let mut clients: Vec<(Client, usize)> = (1..request.len())
        .map(|cut| {
            // Every other one has been served before.
            let mut client = if cut % 2 == 0 { line.idle_client() } else { line.client() };
            client.send(&request[..cut]);
            (client, cut)
        })
        .collect();
    line.upgrade();
    for (client, cut) in &mut clients {
        client.send(&request[*cut..]);
        let response = client.try_response().unwrap_or_else(|it| panic!("cut at {cut}: {it:?}"));
        assert_eq!(response.text(), "GET /half 0", "cut at {cut}");
        assert!(!response.says_close(), "cut at {cut}");
        is_served(client, "/again");
    }
}

#[test]
fn request_under_way_ends_in_the_old_process_and_its_connection_goes_on_in_the_new() {
    let (origin, line) = start(|launch| launch);
    let mut waiting = line.client();
    waiting.get("/hold/1");
    origin.wait_started("/hold/1");
    let mut reading = line.client();
    reading.get("/part/length");
    reading.head();
    let mut sending = line.client();
    let body = pattern(40_000);
    sending.send(post_head("/echo", body.len())).send(&body[..10_000]);
    origin.wait_started("/echo");

    let (elder, _) = line.upgrade();
    assert!(!elder.is_gone());
    assert_eq!(line.status()["elders"][0]["pid"], elder.pid);
    sending.send(&body[10_000..]);
    let response = sending.response();
    assert!(response.body == body && !response.says_close());
    origin.release("/part/length");
    assert_eq!(reading.octets(HALVES[0].len() + HALVES[1].len()), HALVES.concat().as_bytes());
    assert!(!elder.is_gone(), "there is one more");
    origin.release("/hold/1");
    let response = waiting.response();
    assert!(response.text() == "held" && !response.says_close());
    elder.wait_gone(LEAVES_WITHIN);
    leaves(&line, elder);
    for client in [&mut waiting, &mut reading, &mut sending] {
        is_served(client, "/after");
    }
}

#[test]
fn unread_octets_go_with_their_connection() {
    let (origin, line) = start(|launch| launch);
    let mut client = line.client();
    client.get("/hold/1");
    origin.wait_started("/hold/1");
    let (half, rest) = {
        let last = get("/last");
        let (half, rest) = last.split_at(25);
        (half.to_owned(), rest.to_owned())
    };
    let post = post_head("/post", 7) + "octets!";
    client.send(get("/second")).send(post).send(half);
    let (elder, _) = line.upgrade();
    origin.release("/hold/1");
    for want in ["held", "GET /second 0", "POST /post 7"] {
        let response = client.response();
        assert_eq!(response.text(), want);
        assert!(!response.says_close());
    }
    client.send(rest);
    assert_eq!(client.response().text(), "GET /last 0");
    is_served(&mut client, "/after");
    leaves(&line, elder);
    for target in ["/hold/1", "/second", "/post", "/last"] {
        assert_eq!(origin.requests_for(target).len(), 1, "{target}");
    }
}

#[test]
fn websocket_goes_on_wherever_its_frames_are_cut() {
    let (_origin, line) = start(|launch| launch);
    let frames = [Frame::new(BINARY, pattern(100)), Frame::new(BINARY, pattern(70_000))];
    let mut sockets = Vec::new();
    for frame in &frames {
        let octets = frame.octets(true);
        for cut in (0..15).chain([50, 100, octets.len() - 1]) {
            let cut = cut.min(octets.len() - 1);
            let mut socket = Socket::open(line.client(), "/ws");
            socket.echo("before");
            socket.wire.send(&octets[..cut]).unwrap();
            sockets.push((socket, frame, octets[cut..].to_vec()));
        }
    }
    for round in 0..2 {
        upgrade_whole(&line);
        for (socket, frame, rest) in &mut sockets {
            socket.wire.send(rest).unwrap();
            assert_eq!(socket.read().as_ref(), Ok(*frame));
            socket.echo(format!("after {round}"));
            rest.clear();
            rest.extend(frame.octets(true));
            socket.wire.send(&rest[..3]).unwrap();
            rest.drain(..3);
        }
    }
    for (mut socket, frame, rest) in sockets {
        socket.wire.send(&rest).unwrap();
        assert_eq!(socket.read().as_ref(), Ok(frame));
        socket.send(&Frame::close(1000));
        assert_eq!(socket.read_to_close(), (Some(1000), Vec::new()));
        assert_eq!(socket.end(), End::Eof);
    }
}

/// More than fits into any buffer waits in a tunnel, both ways.
#[test]
fn octets_that_nobody_takes_yet_go_with_their_tunnel() {
    const MANY: usize = 12_000_000;
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Frame::new(BINARY, pattern(MANY)).octets(false))?;
        conn.hold("read")?;
        let frame = ws::read(conn.wire(), true)?;
        assert!(frame.payload == pattern(MANY), "other octets");
        conn.send(Frame::new(BINARY, "all of it").octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let line = Generations::start(Launch::before(&origin).arg("--workers").arg("1"));
    let mut socket = Socket::open(line.client(), "/big");
    let mut speaker = socket.wire.sock.try_clone().unwrap();
    let speaking = std::thread::spawn(move || {
        use std::io::Write as _;
        speaker.write_all(&Frame::new(BINARY, pattern(MANY)).octets(true)).unwrap();
    });
    for _ in 0..2 {
        wait_full(&line);
        upgrade_whole(&line);
    }
    let frame = socket.read().unwrap();
    assert!(frame.payload == pattern(MANY), "other octets");
    origin.release("read");
    assert_eq!(socket.read().unwrap().payload, b"all of it");
    speaking.join().unwrap();
}

/// Waits until nothing passes through the only tunnel any more.
fn wait_full(line: &Generations) {
    let mut before = serde_json::Value::Null;
    within(PATIENCE, "a tunnel that is full", || {
        crate::support::pause(ms(20));
        let tunnel = line.status()["tunnels"][0].clone();
        let now = serde_json::json!([tunnel["bytes_in"], tunnel["bytes_out"]]);
        let full = now == before && now[0].as_u64() > Some(0) && now[1].as_u64() > Some(0);
        before = now;
        full.then_some(())
    });
}

#[test]
fn tunnel_of_which_one_side_has_ended_goes_on() {
    let late = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&late);
    let origin = Origin::scripted(move |conn, request| {
        assert!(request.head.lists("connection", "upgrade"), "{request:?}");
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n",
        )?;
        let mut came = Vec::new();
        assert_eq!(conn.wire().until_end(&mut came), End::Eof);
        assert_eq!(came, b"to the app");
        within(PATIENCE, "the test", || released.load(Ordering::SeqCst).then_some(()));
        conn.send("to the client")?;
        Ok(Next::Close)
    });
    let line = Generations::start(Launch::before(&origin).set("upgrade_tokens", "raw"));
    let mut client = line.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    client.head();
    client.send("to the app");
    client.half_close();
    upgrade_whole(&line);
    assert_eq!(client.ended(), None);
    late.store(true, Ordering::SeqCst);
    assert_eq!(client.rest(), (End::Eof, b"to the client".to_vec()));
}

#[test]
fn http2_connection_ends_in_two_steps_and_its_streams_are_answered() {
    let (origin, line) = start(|launch| launch.set("drain.upgrade.goaway_grace", "200ms"));
    let mut h2 = H2::connect(&line.place());
    let held = h2.get("/hold/1");
    origin.wait_started("/hold/1");
    let (elder, _) = line.upgrade();
    let first = h2.wait_goaway(0);
    assert_eq!((first.last, first.code), ((1 << 31) - 1, Code::NO_ERROR));
    let raced = h2.get("/raced");
    assert_eq!(h2.response(raced).text(), "GET /raced 0");
    let second = h2.wait_goaway(1);
    assert_eq!((second.last, second.code), (raced, Code::NO_ERROR));
    assert!(!elder.is_gone());
    let waiting = &line.status()["elders"][0];
    assert_eq!(waiting["pid"], elder.pid);
    assert!(waiting["waiting"].as_object().is_some_and(|why| !why.is_empty()), "{waiting}");
    origin.release("/hold/1");
    assert_eq!(h2.response(held).text(), "held");
    assert_eq!(h2.wait_end(), End::Eof);
    leaves(&line, elder);
}

#[test]
fn idle_tls_connection_is_answered_once_more_and_told() {
    let (_origin, line) = start(Launch::tls);
    let mut client = line.idle_tls_client();
    let (elder, _) = line.upgrade();
    client.hears_nothing_for(ms(700));
    assert!(!elder.is_gone(), "a TLS session cannot move");
    let response = client.get("/once-more").response();
    assert_eq!(response.text(), "GET /once-more 0");
    assert!(response.says_close());
    assert_eq!(client.end(), TlsEnd::Clean);
    leaves(&line, elder);
    line.idle_tls_client();
}

/// SIGTERM to an elder is for the elder alone: it goes over to its stop plan, and the
/// next one cuts.
#[test]
fn elder_that_is_told_to_stop_stops_by_its_stop_plan() {
    use rustix::process::Signal;
    let (origin, line) = start(|launch| launch.stop("drain_timeout", "300ms"));
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let (elder, _) = line.upgrade();
    crate::support::pause(ms(500));
    assert!(!elder.is_gone(), "by the upgrade plan it has an hour");
    elder.signal(Signal::TERM);
    let response = held.response();
    assert_eq!(response.status, 504);
    elder.wait_gone(PATIENCE);
    assert_eq!(line.proxy_exit(), 3);
    is_served(&mut line.client(), "/newest");
    assert_eq!(line.status()["phase"], "serving");
}

/// What is left at the end of the upgrade plan is cut and named, by the elder alone.
#[test]
fn elder_cuts_what_is_left_at_its_hard_deadline() {
    let (origin, line) = start(|launch| launch.set("drain.upgrade.drain_timeout", "700ms"));
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let (elder, _) = line.upgrade();
    let response = held.response();
    assert_eq!(response.status, 504);
    assert!(response.says_close());
    elder.wait_gone(PATIENCE);
    assert_eq!(line.proxy_exit(), 3);
    let report = line.report_of(1);
    assert_eq!(report["cut"][0]["target"], "/hold/1", "{report}");
    is_served(&mut line.client(), "/newest");
}

/// An event stream over plaintext stays in the old process, and ends behind an event.
#[test]
fn event_stream_is_ended_behind_an_event_when_it_is_time() {
    let origin = sse::telling(sse::CHUNKED, &["data: 1\n\n"]);
    let launch = Launch::before(&origin)
        .set("drain.upgrade.stream_close_after", "700ms")
        .set("drain.upgrade.spread", "0s");
    let line = Generations::start(launch);
    let mut client = line.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    let (elder, serving) = line.upgrade();
    let mut body = Vec::new();
    client.wire.chunked(&mut body).expect("a proper end of the body");
    assert_eq!(body, b"data: 1\n\n");
    assert!(serving.at.elapsed() > ms(600), "it was left alone until then");
    leaves(&line, elder);
}

/// Beyond the most generations that may live, the oldest leaves by its stop plan.
#[test]
fn too_many_generations_push_the_oldest_out() {
    let (origin, line) =
        start(|launch| launch.set("upgrade.max_generations", "3").stop("drain_timeout", "300ms"));
    let mut elders = Vec::new();
    let mut clients = Vec::new();
    for n in 1..=3 {
        let mut client = line.client();
        client.get(&format!("/hold/{n}"));
        origin.wait_started(&format!("/hold/{n}"));
        clients.push(client);
        elders.push(line.upgrade().0);
        let status = line.status();
        let alive = status["elders"].as_array().expect("a list").len();
        assert!(alive <= 3, "{status}");
        if n < 3 {
            assert_eq!(alive, n, "{status}");
        }
    }
    assert_eq!(clients[0].response().status, 504, "the oldest has been told to leave");
    elders[0].wait_gone(PATIENCE);
    assert_eq!(line.proxy_exit(), 3);
    for (n, mut client) in clients.into_iter().enumerate().skip(1) {
        assert_eq!(client.ended(), None, "{n}");
        origin.release(&format!("/hold/{}", n + 1));
        let response = client.response();
        assert!(response.text() == "held" && !response.says_close());
        // What an old elder gives away goes to the newest, over all between.
        is_served(&mut client, "/after");
    }
    for elder in elders.drain(1..) {
        leaves(&line, elder);
    }
    assert_eq!(line.status()["generation"], 4);
}

/// The checks above would see it: a stop in the place of an upgrade.
#[test]
fn a_stop_is_seen_by_an_idle_connection() {
    let origin = app();
    let proxy = Launch::before(&origin).stop("idle_grace", "0s").start();
    let mut idle = proxy.idle_client();
    proxy.terminate();
    assert_eq!(idle.end(), End::Eof);
}
