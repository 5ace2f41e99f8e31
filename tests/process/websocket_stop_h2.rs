//! What a stop does with tunnels over HTTP/2: the same as over HTTP/1.1, inside the
//! stream's DATA, and no GOAWAY before it is done.

use std::time::Instant;

use crate::support::h2::{Code, Frame, H2, Ws};
use crate::support::identity::Identity;
use crate::support::origin::{Next, Origin};
use crate::support::peers::{Target, Tunnels};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::End;
use crate::support::ws::{self, BINARY, CLOSE, Frame as Message, TEXT};
use crate::support::{ms, pattern, pause};
use crate::way::{Way, both_ways};

both_ways! {
    the_close_stands_in_the_data_its_echo_goes_on_and_goaway_comes_after_the_end
    a_close_never_stands_inside_a_frame_of_the_app_server
    a_frame_that_is_open_at_the_deadline_is_reset_and_named
}

fn launch(origin: &Origin) -> Launch {
    Launch::before(origin).tls().admin().stop("goaway_grace", "100ms")
}

fn connect(proxy: &Proxy) -> H2 {
    H2::connect(&proxy.place())
}

/// SIGTERM, and the moment from which every connection is asked to end.
fn drain(proxy: &Proxy) -> Instant {
    let at = proxy.terminate();
    proxy.wait_phase("draining");
    at
}

/// Whoever asks for `/chat` gets an echo, everybody else an answer.
fn chat() -> Origin {
    Origin::scripted(|conn, request| match &*request.target {
        "/chat" => ws::echo(conn, request),
        target => conn.answer("200 OK", target),
    })
}

#[track_caller]
fn is_served(h2: &mut H2, path: &str) {
    let stream = h2.get(path);
    let response = h2.response(stream);
    assert_eq!((response.status, &*response.text(), response.whole), (200, path, true));
}

/// The two GOAWAYs and the end of the connection.
#[track_caller]
fn is_retired(h2: &mut H2) -> Instant {
    let first = h2.wait_goaway(0);
    assert_eq!((first.last, first.code), ((1 << 31) - 1, Code::NO_ERROR), "{}", h2.story());
    assert_eq!(h2.wait_goaway(1).code, Code::NO_ERROR);
    assert_eq!(h2.wait_end(), End::Eof);
    first.at
}

fn the_close_stands_in_the_data_its_echo_goes_on_and_goaway_comes_after_the_end(way: Way) {
    let origin = Origin::scripted(|conn, request| {
        if request.target != "/chat" {
            return conn.answer("200 OK", request.target.clone());
        }
        conn.send(ws::agree(request))?;
        assert_eq!(ws::read(conn.wire(), true)?, Message::new(BINARY, pattern(1000)));
        conn.send(Message::new(BINARY, pattern(1000)).octets(false))?;
        assert_eq!(ws::read(conn.wire(), true)?, Message::new(TEXT, "a last word"));
        assert_eq!(ws::read(conn.wire(), true)?, Message::close(1001));
        conn.send(Message::new(TEXT, "too late").octets(false))?;
        conn.send(Message::close(1001).octets(false))?;
        assert_eq!(conn.wait_end(), End::Eof);
        Ok(Next::Close)
    });
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.echo(&mut h2, pattern(1000));
    drain(&proxy);
    assert_eq!(ws.read_to_close(&mut h2), (Some(1001), vec![]));
    pause(ms(300));
    for round in 0..5 {
        is_served(&mut h2, &format!("/meanwhile/{round}"));
    }
    assert_eq!(h2.goaways().len(), 0, "{}", h2.story());
    ws.send(&mut h2, &Message::new(TEXT, "a last word"));
    ws.send(&mut h2, &Message::close(1001));
    assert_eq!(ws.end(&mut h2), End::Eof);
    assert_eq!(h2.goaways().len(), 0, "{}", h2.story());
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    ws.finish(&mut h2);
    is_retired(&mut h2);
    let ended = h2.so_far(ws.stream).at.unwrap();
    assert!(ended < h2.goaways()[0].at);
    let exit = proxy.wait_clean_exit();
    assert!(exit.code() == 0 && proxy.events("request_cut").is_empty());
}

fn a_close_never_stands_inside_a_frame_of_the_app_server(way: Way) {
    for (length, at) in [(10, 1), (200, 3), (200, 200), (70_000, 7), (70_000, 60_000)] {
        let message = Message::new(BINARY, pattern(length));
        let octets = message.octets(false);
        let origin = Origin::scripted(move |conn, request| {
            conn.send(ws::agree(request))?;
            conn.send(&octets[..at])?;
            conn.hold("rest")?;
            conn.send(&octets[at..])?;
            let answer = ws::read(conn.wire(), true)?;
            assert_eq!((answer.opcode, answer.code()), (CLOSE, Some(1001)));
            conn.send(answer.octets(false))?;
            Ok(Next::Close)
        });
        let proxy = launch(&origin).start();
        let mut h2 = way.connect(&proxy);
        let mut ws = Ws::open(&mut h2, "/chat");
        h2.read_until(|h2| (h2.so_far(ws.stream).body.len() >= at).then_some(())).unwrap();
        drain(&proxy);
        origin.release("rest");
        let (code, before) = ws.read_to_close(&mut h2);
        assert!(code == Some(1001) && before == [message], "{length} at {at}: {code:?}");
        ws.send(&mut h2, &Message::close(1001));
        assert_eq!(ws.end(&mut h2), End::Eof);
        ws.finish(&mut h2);
        is_retired(&mut h2);
        proxy.wait_clean_exit();
    }
}

fn a_frame_that_is_open_at_the_deadline_is_reset_and_named(way: Way) {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&Message::new(BINARY, pattern(100)).octets(false)[..50])?;
        Err(conn.wait_end())
    });
    let proxy = launch(&origin).stop("drain_timeout", "800ms").start();
    let mut h2 = way.connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.exactly(&mut h2, 50).unwrap();
    drain(&proxy);
    assert_eq!(h2.response(ws.stream).reset, Some(Code::CANCEL));
    assert_eq!(proxy.wait_exit().code(), 3);
    let cut = proxy.wait_event("request_cut");
    assert_eq!((cut.text("method"), cut.text("target")), ("CONNECT", "/chat"));
    assert_eq!(cut.text("protocol"), "HTTP/2.0");
    assert_eq!(proxy.reported("cut_total"), 1);
    assert_eq!(origin.wait_connection_end(0).0, End::Reset);
}

/// Python's `h2` takes nothing more from a connection once it has seen GOAWAY, as
/// browsers do with their WebSockets.
#[test]
fn a_client_of_other_make_is_told_on_every_tunnel_before_goaway() {
    let origin = Origin::scripted(ws::echo);
    let identity = Identity::new();
    let proxy = launch(&origin).identity(&identity.files).stop("spread", "200ms").start();
    let trusted = Some(identity.authority.clone());
    let clients = [(proxy.place(), None), (proxy.tls_place(), trusted)];
    let clients = clients.map(|(place, trusted)| {
        let seed = u64::from(trusted.is_some());
        Tunnels::open(&Target { place, trusted, seed }, 20)
    });
    proxy.wait_count(&["connections", "tunnel", "websocket"], 40);
    drain(&proxy);
    for client in clients {
        let seen = client.outcome();
        assert_eq!(seen["faults"], serde_json::json!([]), "{seen}");
        assert_eq!((seen["told"].as_u64(), seen["ended"].as_u64()), (Some(20), Some(20)), "{seen}");
        assert_eq!(seen["open_at_goaway"].as_u64(), Some(0), "{seen}");
        assert!(seen["echoes"].as_u64() > Some(20), "{seen}");
    }
    assert_eq!(proxy.wait_clean_exit().code(), 0);
}

#[test]
fn goaway_waits_no_longer_than_a_client_may_take_to_answer() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        let said = ws::read(conn.wire(), true)?;
        assert_eq!((said.opcode, said.code()), (CLOSE, Some(1001)));
        Ok(Next::Close)
    });
    let proxy = launch(&origin).stop("close_timeout", "600ms").start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    let told = drain(&proxy);
    assert_eq!(ws.read_to_close(&mut h2), (Some(1001), vec![]));
    assert_eq!(ws.end(&mut h2), End::Eof);
    let at = is_retired(&mut h2) - told;
    assert!(at >= ms(600) && at < ms(1500), "the first GOAWAY came after {at:?}");
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    proxy.wait_clean_exit();
}

#[test]
fn a_frame_that_does_not_end_keeps_goaway_off_no_longer_than_an_answer() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&Message::new(BINARY, pattern(100)).octets(false)[..50])?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = launch(&origin).stop("close_timeout", "300ms").stop("drain_timeout", "2s").start();
    let mut h2 = connect(&proxy);
    let _ws = Ws::open(&mut h2, "/chat");
    let told = drain(&proxy);
    let at = h2.wait_goaway(0).at - told;
    assert!(at >= ms(300) && at < ms(1500), "the first GOAWAY came after {at:?}");
    h2.wait_end();
    assert_eq!(proxy.wait_exit().code(), 3);
}

#[test]
fn a_tunnel_that_is_opened_in_the_drain_is_told_at_once() {
    let origin = chat();
    let proxy = launch(&origin).start();
    let mut h2 = connect(&proxy);
    let mut first = Ws::open(&mut h2, "/chat");
    drain(&proxy);
    assert_eq!(first.read_to_close(&mut h2), (Some(1001), vec![]));
    let mut second = Ws::open(&mut h2, "/chat");
    second.is_told(&mut h2);
    assert_eq!(h2.goaways().len(), 0, "{}", h2.story());
    first.send(&mut h2, &Message::close(1001));
    assert_eq!(first.end(&mut h2), End::Eof);
    first.finish(&mut h2);
    is_retired(&mut h2);
    proxy.wait_clean_exit();
}

#[test]
fn tunnels_of_one_connection_are_told_one_after_the_other() {
    let origin = chat();
    let proxy = launch(&origin).arg("--workers").arg("1").stop("spread", "300ms").start();
    let mut h2 = connect(&proxy);
    let mut all: Vec<_> = (0..40).map(|_| Ws::open(&mut h2, "/chat")).collect();
    proxy.wait_count(&["connections", "tunnel", "websocket"], 40);
    drain(&proxy);
    for ws in &mut all {
        ws.is_told(&mut h2);
    }
    is_retired(&mut h2);
    let ends: Vec<_> = all.iter().map(|ws| h2.so_far(ws.stream).at.unwrap()).collect();
    let took = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    assert!(took >= ms(200), "all within {took:?}");
    proxy.wait_clean_exit();
}

#[test]
fn what_is_left_alone_keeps_goaway_off_until_it_ends() {
    let origin = chat();
    let proxy = launch(&origin).set("websocket.on_drain", "leave").start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    drain(&proxy);
    for _ in 0..3 {
        ws.echo(&mut h2, "still here");
        pause(ms(50));
    }
    is_served(&mut h2, "/too");
    assert_eq!(h2.goaways().len(), 0);
    ws.send(&mut h2, &Message::close(1000));
    assert_eq!(ws.read_to_close(&mut h2), (Some(1000), vec![]));
    assert_eq!(ws.end(&mut h2), End::Eof);
    ws.finish(&mut h2);
    is_retired(&mut h2);
    proxy.wait_clean_exit();
}

#[test]
fn what_is_left_alone_keeps_goaway_off_only_as_long_as_others_can_be_told() {
    let origin = chat();
    let proxy = launch(&origin)
        .set("websocket.on_drain", "leave")
        .stop("drain_timeout", "2s")
        .stop("close_timeout", "1s")
        .start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    let told = drain(&proxy);
    let at = h2.wait_goaway(0).at - told;
    assert!(at >= ms(900) && at < ms(1900), "the first GOAWAY came after {at:?}");
    ws.echo(&mut h2, "still here");
    assert_eq!(h2.response(ws.stream).reset, Some(Code::CANCEL));
    assert_eq!(proxy.wait_exit().code(), 3);
}

#[test]
fn a_protocol_that_is_not_understood_does_not_keep_goaway_off() {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")?;
        let mut asked = Vec::new();
        conn.wire().exactly(4, &mut asked)?;
        conn.send(asked)?;
        Err(conn.wait_end())
    });
    let proxy = launch(&origin)
        .set("upgrade_tokens", "raw")
        .stop("drain_timeout", "1500ms")
        .stop("close_timeout", "100ms")
        .start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::ask(&mut h2, "raw", "/x", &[]);
    ws.is_opened(&mut h2);
    let told = drain(&proxy);
    let at = h2.wait_goaway(0).at - told;
    assert!(at < ms(1000), "the first GOAWAY came after {at:?}");
    ws.octets(&mut h2, b"ping");
    assert_eq!(ws.exactly(&mut h2, 4), Ok(b"ping".to_vec()));
    assert_eq!(h2.response(ws.stream).reset, Some(Code::CANCEL));
    assert_eq!(origin.wait_connection_end(0).0, End::Reset);
    assert_eq!(proxy.wait_exit().code(), 3);
}

#[test]
fn who_has_no_room_for_his_close_before_the_deadline_is_reset_and_named() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Message::new(BINARY, pattern(8 << 20)).octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy =
        launch(&origin).stop("drain_timeout", "800ms").stop("close_timeout", "100ms").start();
    let mut h2 = connect(&proxy);
    h2.auto.window = false;
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.exactly(&mut h2, 65_535).unwrap();
    drain(&proxy);
    assert_eq!(h2.response(ws.stream).reset, Some(Code::CANCEL));
    assert_eq!(proxy.wait_exit().code(), 3);
    assert_eq!(proxy.reported("cut_total"), 1);
}

#[test]
fn a_client_that_only_resets_after_its_close_was_told() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        let said = ws::read(conn.wire(), true)?;
        assert_eq!((said.opcode, said.code()), (CLOSE, Some(1001)));
        Err(conn.wait_end())
    });
    let proxy = launch(&origin).start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    drain(&proxy);
    assert_eq!(ws.read_to_close(&mut h2), (Some(1001), vec![]));
    h2.send(&Frame::rst_stream(ws.stream, Code::CANCEL));
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    is_retired(&mut h2);
    assert_eq!(proxy.wait_clean_exit().code(), 0);
}
