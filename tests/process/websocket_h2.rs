//! WebSockets over HTTP/2: an extended CONNECT (RFC 8441) that becomes an `Upgrade`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::h2::frame::setting;
use crate::support::h2::{Code, Frame, H2, Ws};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::End;
use crate::support::ws::{self, BINARY, Frame as Message, PING, PONG, TEXT};
use crate::support::{ms, pattern, within};
use crate::way::{Way, both_ways};

both_ways! {
    messages_of_all_sizes_pass_both_ways_and_the_tunnel_is_counted_and_logged
    what_a_client_sends_ahead_waits_for_the_answer
    an_app_server_that_does_not_read_holds_its_client_back
    a_client_that_does_not_read_holds_its_app_server_back_and_nobody_else
}

fn start(origin: &Origin) -> Proxy {
    Launch::before(origin).tls().admin().start()
}

fn connect(proxy: &Proxy) -> H2 {
    H2::connect(&proxy.place())
}

fn messages_of_all_sizes_pass_both_ways_and_the_tunnel_is_counted_and_logged(way: Way) {
    let origin = Origin::scripted(ws::echo);
    let proxy = start(&origin);
    let mut h2 = way.connect(&proxy);
    assert_eq!(h2.peer(setting::ENABLE_CONNECT_PROTOCOL), Some(1));
    let mut ws = Ws::open(&mut h2, "/chat?room=1");
    proxy.wait_count(&["connections", "tunnel", "websocket"], 1);
    proxy.wait_count(&["connections", "h2", "active"], 1);
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        ws.echo(&mut h2, pattern(length));
    }
    for (fin, opcode) in [(false, TEXT), (false, 0), (true, 0)] {
        let message = Message { fin, opcode, payload: b"part".to_vec() };
        ws.send(&mut h2, &message);
        assert_eq!(ws.read(&mut h2), Ok(message));
    }
    ws.send(&mut h2, &Message::new(PING, "here?"));
    assert_eq!(ws.read(&mut h2), Ok(Message::new(PONG, "here?")));
    ws.send(&mut h2, &Message::close(1000));
    assert_eq!(ws.read_to_close(&mut h2), (Some(1000), vec![]));
    assert_eq!(ws.end(&mut h2), End::Eof);
    ws.finish(&mut h2);
    proxy.wait_count(&["connections", "tunnel", "websocket"], 0);
    let line = proxy.wait_access("the tunnel's line", |line| line.contains("/chat"));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("method"), text("protocol")), ("CONNECT".into(), "HTTP/2.0".into()));
    assert_eq!((line["status"].as_u64(), line["error"].is_null()), (Some(200), true));
    assert!(line["bytes_in"].as_u64() > Some(1 << 20), "{line}");
    assert!(line["bytes_out"].as_u64() > Some(1 << 20), "{line}");
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    drop(h2);
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn each_side_gets_the_handshake_of_its_own_protocol() {
    let origin = Origin::scripted(|conn, request| {
        let agreed = ws::agree(request);
        let (agreed, _) = agreed.split_at(agreed.len() - 2);
        conn.send(format!(
            "{agreed}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
             X-App: 1\r\nKeep-Alive: 5\r\n\r\n"
        ))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    let fields = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, other"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("sec-websocket-key", ws::KEY),
        ("sec-websocket-accept", "mine"),
        ("origin", "https://app.test"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let mut keys = Vec::new();
    for _ in 0..2 {
        let ws = Ws::ask(&mut h2, "websocket", "/chat?room=1", &fields);
        let head = ws.is_opened(&mut h2);
        assert_eq!(head.field("sec-websocket-protocol"), Some("chat"));
        assert_eq!(head.field("sec-websocket-extensions"), Some("permessage-deflate"));
        assert_eq!((head.field("x-app"), head.field("keep-alive")), (Some("1"), None));
        assert!(head.field("via").is_some() && head.field("date").is_some(), "{head:?}");
    }
    for request in origin.requests() {
        assert_eq!(request.head.start, "GET /chat?room=1 HTTP/1.1");
        let expected = [
            ("host", "app.test"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, other"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("origin", "https://app.test"),
            ("cookie", "a=1; b=2"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("via", "2.0 ebbtide"),
        ];
        for (name, value) in expected {
            assert_eq!(request.field(name), Some(value), "{name}");
        }
        for name in ["sec-websocket-accept", "content-length", "transfer-encoding"] {
            assert_eq!(request.field(name), None);
        }
        assert!(request.field("x-request-id").is_some());
        let key = request.field("sec-websocket-key").unwrap().to_owned();
        assert_eq!(STANDARD.decode(&key).unwrap().len(), 16);
        keys.push(key);
    }
    assert!(keys.len() == 2 && keys[0] != keys[1] && !keys.contains(&ws::KEY.to_owned()));
}

#[test]
fn another_answer_is_the_plain_response_it_is_and_the_connection_goes_on() {
    let origin = Origin::scripted(|conn, request| match &*request.target {
        "/no" => conn.answer("403 Forbidden", "not for you"),
        "/none" => conn.answer("404 Not Found", ""),
        "/away" => conn.answer("302 Found", ""),
        "/version" => {
            conn.send("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\n")?;
            conn.send(
                "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n",
            )?;
            Ok(Next::KeepAlive)
        }
        _ => conn.answer("200 OK", "plain"),
    });
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    for (path, status, text) in
        [("/no", 403, "not for you"), ("/none", 404, ""), ("/away", 302, ""), ("/version", 426, "")]
    {
        let ws = Ws::wish(&mut h2, path);
        ws.send(&mut h2, &Message::new(TEXT, "too early"));
        let answer = h2.response(ws.stream);
        assert_eq!((answer.status, &*answer.text(), answer.whole), (status, text, true), "{path}");
        assert_eq!((answer.field("upgrade"), answer.field("connection")), (None, None));
    }
    let stream = h2.get("/after");
    assert_eq!(h2.response(stream).text(), "plain");
    // Nothing of what was sent for the tunnels has come before it.
    assert_eq!(origin.requests().len(), 5);
    assert_eq!(origin.connections(), 1);
    let line = proxy.wait_access("the refusal's line", |line| line.contains("/no\""));
    assert!(line.contains("\"CONNECT\"") && line.contains("403"), "{line}");
}

/// To a client a success is the tunnel that it has asked for.
#[test]
fn a_success_that_is_no_101_is_a_502() {
    let origin = Origin::scripted(|conn, request| match &*request.target {
        "/ok" => conn.answer("200 OK", "plain"),
        "/none" => {
            conn.send("HTTP/1.1 204 No Content\r\n\r\n")?;
            Ok(Next::KeepAlive)
        }
        _ => conn.answer("200 OK", "served"),
    });
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    for path in ["/ok", "/none"] {
        let ws = Ws::wish(&mut h2, path);
        let answer = h2.response(ws.stream);
        assert_eq!((answer.status, answer.whole), (502, true), "{path}");
    }
    proxy.wait_event_where("the cause", |event| {
        event.is("request_failed") && event.text("cause") == "a success that is no 101"
    });
    let stream = h2.get("/after");
    assert_eq!(h2.response(stream).text(), "served");
}

#[test]
fn a_protocol_that_nobody_allowed_is_refused_and_goes_no_further() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("upgrade_tokens", "raw").start();
    let mut h2 = connect(&proxy);
    for protocol in ["other", "h2c", "connect-udp", "websocket, raw", "websocket\r\nx: y", ""] {
        let ws = Ws::ask(&mut h2, protocol, "/x", &[]);
        assert_eq!(h2.response(ws.stream).status, 501, "{protocol:?}");
    }
    let plain = [(":method", "CONNECT"), (":authority", "app.test:80")];
    let stream = h2.headers(&plain, false);
    assert_eq!(h2.response(stream).status, 405);
    let with_length = Ws::ask(&mut h2, "websocket", "/x", &[("content-length", "5")]);
    assert_eq!(h2.response(with_length.stream).status, 400);
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_101_that_is_not_the_answer_to_the_wish_is_a_502() {
    let wrong = [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: other\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n",
    ];
    for fields in wrong {
        let origin = Origin::scripted(move |conn, request| {
            let accept = ws::accept_of(request.field("sec-websocket-key").unwrap_or_default());
            let fields = fields.replace("{}", &accept);
            conn.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))?;
            Ok(Next::KeepAlive)
        });
        let proxy = start(&origin);
        let mut h2 = connect(&proxy);
        let ws = Ws::wish(&mut h2, "/chat");
        assert_eq!(h2.response(ws.stream).status, 502, "{fields}");
    }
}

fn what_a_client_sends_ahead_waits_for_the_answer(way: Way) {
    let origin = Origin::scripted(|conn, request| {
        conn.hold("agree")?;
        let hello = Message::new(TEXT, "hello").octets(false);
        conn.send([ws::agree(request).into_bytes(), hello].concat())?;
        let first = ws::read(conn.wire(), true)?;
        conn.send(first.octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = way.connect(&proxy);
    let mut ws = Ws::wish(&mut h2, "/chat");
    ws.send(&mut h2, &Message::new(TEXT, "early"));
    origin.wait_started("/chat");
    h2.fence();
    assert_eq!(h2.so_far(ws.stream).status, 0);
    origin.release("agree");
    assert_eq!(ws.read(&mut h2), Ok(Message::new(TEXT, "hello")));
    assert_eq!(ws.read(&mut h2), Ok(Message::new(TEXT, "early")));
}

#[test]
fn a_wish_that_is_taken_back_costs_the_app_server_its_connection() {
    let origin = Origin::scripted(|conn, _| {
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    let ws = Ws::wish(&mut h2, "/chat");
    origin.wait_started("/chat");
    h2.send(&Frame::rst_stream(ws.stream, Code::CANCEL));
    origin.wait_connection_end(0);
}

#[test]
fn an_app_server_that_is_gone_becomes_a_close_1011_at_a_boundary() {
    for end in [Next::Close, Next::Reset] {
        let origin = Origin::scripted(move |conn, request| {
            conn.send(ws::agree(request))?;
            conn.send(Message::new(TEXT, "last").octets(false))?;
            let _first = ws::read(conn.wire(), true)?;
            Ok(end)
        });
        let proxy = start(&origin);
        let mut h2 = connect(&proxy);
        let mut ws = Ws::open(&mut h2, "/chat");
        assert_eq!(ws.read(&mut h2), Ok(Message::new(TEXT, "last")));
        ws.send(&mut h2, &Message::new(TEXT, "die"));
        assert_eq!(ws.read_to_close(&mut h2), (Some(1011), vec![]));
        assert_eq!(ws.end(&mut h2), End::Eof);
        proxy.wait_event("request_failed");
    }
}

#[test]
fn an_app_server_that_is_gone_inside_a_frame_becomes_a_reset_of_the_stream() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&Message::new(TEXT, "half a message").octets(false)[..9])?;
        let _first = ws::read(conn.wire(), true)?;
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    let ws = Ws::open(&mut h2, "/chat");
    ws.send(&mut h2, &Message::new(TEXT, "die"));
    assert_eq!(h2.response(ws.stream).reset, Some(Code::CANCEL));
    h2.fence();
}

#[test]
fn a_client_that_is_gone_is_told_to_the_app_server() {
    let origin = Origin::scripted(ws::echo);
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.echo(&mut h2, "a");
    h2.send(&Frame::rst_stream(ws.stream, Code::CANCEL));
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.echo(&mut h2, "b");
    drop(h2);
    assert_eq!(origin.wait_connection_end(1).0, End::Eof);
    proxy.wait_count(&["connections", "tunnel", "websocket"], 0);
}

/// An app server for a protocol that is not understood.
fn raw(
    script: impl Fn(&mut crate::support::origin::OriginConn) -> Result<Next, End>
    + Send
    + Sync
    + 'static,
) -> Origin {
    Origin::scripted(move |conn, request| {
        assert_eq!(
            (request.field("upgrade"), request.field("sec-websocket-key")),
            (Some("raw/1"), None)
        );
        conn.send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n")?;
        script(conn)
    })
}

fn start_raw(origin: &Origin) -> Proxy {
    Launch::before(origin).admin().set("upgrade_tokens", "raw/1").start()
}

fn open_raw(h2: &mut H2) -> Ws {
    let ws = Ws::ask(h2, "raw/1", "/x", &[]);
    ws.is_opened(h2);
    ws
}

#[test]
fn a_protocol_that_is_allowed_passes_octets_and_half_closes() {
    let origin = raw(|conn| {
        let mut asked = Vec::new();
        assert_eq!(conn.wire().until_end(&mut asked), End::Eof);
        conn.send(asked)?;
        Ok(Next::Close)
    });
    let proxy = start_raw(&origin);
    let mut h2 = connect(&proxy);
    let mut ws = open_raw(&mut h2);
    proxy.wait_count(&["connections", "tunnel", "opaque"], 1);
    ws.octets(&mut h2, &pattern(300_000));
    ws.finish(&mut h2);
    assert_eq!(ws.exactly(&mut h2, 300_000), Ok(pattern(300_000)));
    assert_eq!(ws.end(&mut h2), End::Eof);
    proxy.wait_count(&["connections", "tunnel", "opaque"], 0);
}

#[test]
fn a_wish_that_ends_with_its_head_is_a_tunnel_in_which_only_the_app_server_speaks() {
    let origin = raw(|conn| {
        assert_eq!(conn.wait_end(), End::Eof);
        conn.send("only this")?;
        Ok(Next::Close)
    });
    let proxy = start_raw(&origin);
    let mut h2 = connect(&proxy);
    let stream = h2.headers(&h2.connect_pseudo("raw/1", "/x"), true);
    let answer = h2.response(stream);
    assert_eq!((answer.status, &*answer.text(), answer.whole), (200, "only this", true));
}

#[test]
fn an_end_of_the_app_server_leaves_the_client_its_turn() {
    let origin = raw(|conn| {
        conn.send("all I have")?;
        conn.wire().sock.shutdown(std::net::Shutdown::Write).unwrap();
        let mut asked = Vec::new();
        assert_eq!(conn.wire().until_end(&mut asked), End::Eof);
        assert_eq!(asked, b"so be it");
        Ok(Next::Close)
    });
    let proxy = start_raw(&origin);
    let mut h2 = connect(&proxy);
    let mut ws = open_raw(&mut h2);
    assert_eq!(ws.exactly(&mut h2, 10), Ok(b"all I have".to_vec()));
    assert_eq!(ws.end(&mut h2), End::Eof);
    ws.octets(&mut h2, b"so be it");
    ws.finish(&mut h2);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
}

#[test]
fn a_reset_passes_through_a_tunnel_that_is_not_understood() {
    let origin = raw(|conn| {
        conn.send("part of")?;
        conn.hold("die")?;
        Ok(Next::Reset)
    });
    let proxy = start_raw(&origin);
    let mut h2 = connect(&proxy);
    let mut ws = open_raw(&mut h2);
    ws.exactly(&mut h2, 7).unwrap();
    origin.release("die");
    assert_eq!(h2.response(ws.stream).reset, Some(Code::CANCEL));

    for ended in [false, true] {
        let origin = raw(|conn| Err(conn.wait_end()));
        let proxy = start_raw(&origin);
        let mut h2 = connect(&proxy);
        let ws = open_raw(&mut h2);
        if ended {
            ws.finish(&mut h2);
        }
        h2.send(&Frame::rst_stream(ws.stream, Code::CANCEL));
        assert_eq!(origin.wait_connection_end(0).0, if ended { End::Eof } else { End::Reset });
        proxy.wait_count(&["connections", "tunnel", "opaque"], 0);
    }
}

fn an_app_server_that_does_not_read_holds_its_client_back(way: Way) {
    const ALL: usize = 16 << 20;
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.hold("read")?;
        let message = ws::read(conn.wire(), true)?;
        assert!(message.payload == pattern(ALL));
        conn.send(Message::new(TEXT, "all").octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = way.connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    let octets = Message::new(BINARY, pattern(ALL)).octets(true);
    let mut sent = 0;
    // What is sent and not taken fills the kernel's buffers and then the window.
    while sent < octets.len() {
        let n = h2.room(ws.stream).min(octets.len() - sent);
        if n > 0 {
            ws.octets(&mut h2, &octets[sent..sent + n]);
            sent += n;
        } else if h2.next_within(ms(1500)).is_err() {
            break;
        }
    }
    assert!(sent < octets.len(), "all of it was taken of an app server that reads nothing");
    assert!(h2.room_of_connection() > 0, "others have room");
    let stream = h2.post_head("/chat");
    h2.send(&Frame::data(stream, "x").end());
    origin.release("read");
    ws.octets(&mut h2, &octets[sent..]);
    assert_eq!(ws.read(&mut h2), Ok(Message::new(TEXT, "all")));
}

#[test]
fn small_messages_that_wait_do_not_end_the_connection() {
    const COUNT: usize = 10_000;
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.hold("read")?;
        let mut keys = 0;
        while keys < COUNT {
            keys += usize::from(ws::read(conn.wire(), true)?.payload == b"key");
        }
        conn.send(Message::new(TEXT, "all").octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    // First the kernel's buffers, in pieces: then a third of a window is left at least.
    let whole = h2.window_of(ws.stream);
    let filler = Message::new(BINARY, pattern(whole / 8));
    loop {
        ws.send(&mut h2, &filler);
        while h2.window_of(ws.stream) < whole / 2 && h2.next_within(ms(1000)).is_ok() {}
        if h2.window_of(ws.stream) < whole / 2 {
            break;
        }
    }
    let key = Message::new(TEXT, "key").octets(true);
    let frames: Vec<Frame> = (0..100).map(|_| Frame::data(ws.stream, key.clone())).collect();
    assert!(h2.room(ws.stream) > 0 && h2.window_of(ws.stream) >= COUNT * key.len());
    for _ in 0..COUNT / 100 {
        h2.send_all(&frames);
    }
    h2.fence();
    origin.release("read");
    assert_eq!(ws.read(&mut h2), Ok(Message::new(TEXT, "all")));
}

fn a_client_that_does_not_read_holds_its_app_server_back_and_nobody_else(way: Way) {
    let origin = Origin::scripted(|conn, request| {
        if request.target != "/flood" {
            return conn.answer("200 OK", "served");
        }
        conn.send(ws::agree(request))?;
        conn.send(Message::new(BINARY, pattern(32 << 20)).octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut h2 = way.connect(&proxy);
    h2.auto.window = false;
    h2.send(&Frame::window_update(0, 64 << 20));
    let before = proxy.rss();
    let mut ws = Ws::open(&mut h2, "/flood");
    let window = 65_535;
    ws.exactly(&mut h2, window).unwrap();
    let stream = h2.get("/other");
    assert_eq!(h2.response(stream).text(), "served");
    let grown = proxy.rss().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} octets for a client that does not read");
    assert_eq!(h2.so_far(ws.stream).body.len(), window);
    h2.auto.window = true;
    h2.send(&Frame::window_update(ws.stream, 64 << 20));
    ws.exactly(&mut h2, (32 << 20) - window).unwrap();
}

#[test]
fn the_idle_time_of_the_connection_is_not_that_of_its_tunnels() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin)
        .set("timeouts.idle", "300ms")
        .set("limits.connection_age", "1s")
        .set("websocket.idle_timeout", "2500ms")
        .start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.is_told(&mut h2);
    assert_eq!(h2.goaways().len(), 0);
    // Now the connection is too old.
    h2.wait_goaway(0);
    h2.wait_end();
}

#[test]
fn a_silent_tunnel_is_pinged_and_an_old_one_is_closed() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin)
        .set("websocket.ping_interval", "1s")
        .set("websocket.max_age", "2500ms")
        .start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    assert_eq!(ws.read(&mut h2), Ok(Message::new(PING, "")));
    ws.send(&mut h2, &Message::new(PONG, ""));
    let (code, before) = ws.read_to_close(&mut h2);
    assert!(code == Some(1001) && before.iter().all(|it| it.opcode == PING), "{before:?}");
}

#[test]
fn a_client_that_is_silent_altogether_is_asked_and_left() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).set("timeouts.h2_ping", "500ms").start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat");
    ws.echo(&mut h2, "a");
    h2.auto.ping = false;
    h2.wait_end();
    assert_eq!(h2.pings().len(), 1);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
}

#[test]
fn tunnels_are_streams_among_those_that_a_connection_may_have() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).set("limits.streams", "2").start();
    let mut h2 = connect(&proxy);
    let mut first = Ws::open(&mut h2, "/a");
    let _second = Ws::open(&mut h2, "/b");
    let third = Ws::wish(&mut h2, "/c");
    assert_eq!(h2.response(third.stream).reset, Some(Code::REFUSED_STREAM));
    first.send(&mut h2, &Message::close(1000));
    assert_eq!(first.read_to_close(&mut h2), (Some(1000), vec![]));
    assert_eq!(first.end(&mut h2), End::Eof);
    first.finish(&mut h2);
    within(ms(5000), "room for another", || {
        let ws = Ws::wish(&mut h2, "/d");
        let answer = h2.read_until(|h2| {
            let so_far = h2.so_far(ws.stream);
            (so_far.status != 0 || so_far.is_over()).then_some(so_far.status)
        });
        (answer == Ok(200)).then_some(())
    });
}

#[test]
fn the_status_shows_it_with_age_and_octets() {
    let origin = Origin::scripted(ws::echo);
    let dir = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", dir.path().join("admin").display());
    let proxy = Launch::before(&origin).arg("--admin").arg(&admin).start();
    let mut h2 = connect(&proxy);
    let mut ws = Ws::open(&mut h2, "/chat?room=1");
    ws.echo(&mut h2, "hello");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ebbtide"));
    let output = command.args(["status", "--json", "--admin", &admin]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let tunnel = &status["tunnels"][0];
    let text = |name: &str| tunnel[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("kind"), text("target")), ("websocket".into(), "/chat".into()));
    assert_eq!((tunnel["bytes_in"].as_u64(), tunnel["bytes_out"].as_u64()), (Some(11), Some(7)));
}

#[test]
fn a_wish_that_calls_itself_grpc_is_no_call() {
    let origin = Origin::scripted(|_, _| Ok(Next::Close));
    let proxy = start(&origin);
    let mut h2 = connect(&proxy);
    let call = [("content-type", "application/grpc"), ("grpc-timeout", "1H")];
    for (protocol, status) in [("websocket", 502), ("unknown", 501)] {
        let mut fields = h2.connect_pseudo(protocol, "/");
        fields.extend(call.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let stream = h2.headers(&fields, false);
        assert_eq!(h2.response(stream).status, status, "a 200 would open the tunnel");
    }
}
