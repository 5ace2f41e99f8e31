//! WebSockets and other upgrades: what passes, what does not, and how they end.

use crate::support::client::{Client, End, get};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::ws::{self, BINARY, CLOSE, Frame, PING, PONG, Socket, TEXT};
use crate::support::{ms, pattern};

fn start(origin: &Origin) -> Proxy {
    Launch::before(origin).admin().start()
}

fn opened(proxy: &Proxy) -> Socket {
    Socket::open(proxy.client(), "/chat?room=1")
}

#[test]
fn messages_of_all_sizes_pass_both_ways_and_the_tunnel_is_counted_and_logged() {
    let origin = Origin::scripted(ws::echo);
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    proxy.wait_count(&["connections", "tunnel", "websocket"], 1);
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        socket.echo(pattern(length));
    }
    for (fin, opcode) in [(false, TEXT), (false, 0), (true, 0)] {
        let frame = Frame { fin, opcode, payload: b"part".to_vec() };
        socket.send(&frame);
        assert_eq!(socket.read(), Ok(frame));
    }
    socket.send(&Frame::new(PING, "here?"));
    assert_eq!(socket.read(), Ok(Frame::new(PONG, "here?")));
    socket.send(&Frame::close(1000));
    assert_eq!(socket.read_to_close(), (Some(1000), vec![]));
    assert_eq!(socket.end(), End::Eof);
    proxy.wait_count(&["connections", "tunnel", "websocket"], 0);
    let line = proxy.wait_access("the tunnel's line", |line| line.contains("/chat"));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["status"].as_u64(), line["error"].is_null()), (Some(101), true));
    assert!(line["bytes_in"].as_u64() > Some(1 << 20), "{line}");
    assert!(line["bytes_out"].as_u64() > Some(1 << 20), "{line}");
    let end = origin.wait_connection_end(0).0;
    assert_eq!(end, End::Eof);
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn messages_pass_over_tls_as_well() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).tls().start();
    let mut client = proxy.tls_client();
    client.send(ws::upgrade("/chat"));
    let head = client.head();
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    let frame = Frame::new(BINARY, pattern(100_000));
    client.send(frame.octets(true));
    let expected = frame.octets(false);
    assert!(client.octets(expected.len()) == expected);
    client.send(Frame::close(1000).octets(true));
    assert_eq!(client.octets(4), Frame::close(1000).octets(false));
}

#[test]
fn what_is_sent_right_behind_the_wish_waits_for_the_answer() {
    let origin = Origin::scripted(|conn, request| {
        conn.hold("agree")?;
        ws::echo(conn, request)
    });
    let proxy = start(&origin);
    let mut client = proxy.client();
    let early = Frame::new(TEXT, "early");
    client.send([ws::upgrade("/chat").into_bytes(), early.octets(true)].concat());
    origin.wait_started("/chat");
    client.hears_nothing_for(ms(50));
    origin.release("agree");
    let mut socket = Socket::opened(client);
    assert_eq!(socket.read(), Ok(early));
}

#[test]
fn what_comes_right_behind_the_101_belongs_to_the_tunnel() {
    let origin = Origin::scripted(|conn, request| {
        let hello = Frame::new(TEXT, "hello").octets(false);
        conn.send([ws::agree(request).into_bytes(), hello].concat())?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    assert_eq!(socket.read(), Ok(Frame::new(TEXT, "hello")));
}

#[test]
fn another_answer_is_the_plain_response_it_is_and_the_connection_goes_on() {
    let origin = Origin::scripted(|conn, request| match &*request.target {
        "/no" => conn.answer("403 Forbidden", "not for you"),
        _ => conn.answer("200 OK", "yes"),
    });
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.send(ws::upgrade("/no"));
    let response = client.response();
    assert_eq!((response.status, &*response.text()), (403, "not for you"));
    client.get("/yes");
    assert_eq!(client.response().text(), "yes");
}

#[test]
fn a_101_that_is_not_the_answer_to_the_wish_is_a_502() {
    let wrong = [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: other\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ];
    for fields in wrong {
        let origin = Origin::scripted(move |conn, _| {
            conn.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))?;
            Ok(Next::KeepAlive)
        });
        let proxy = start(&origin);
        let mut client = proxy.client();
        client.send(ws::upgrade("/chat"));
        assert_eq!(client.response().status, 502, "{fields}");
    }
}

#[test]
fn an_upgrade_that_nobody_allowed_is_left_out_and_h2c_always() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("upgrade_tokens", "raw").start();
    for token in ["other", "h2c", "websocket, raw", "TLS/1.0"] {
        let mut client = proxy.client();
        client.send(format!(
            "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\r\n"
        ));
        assert_eq!(client.response().status, 200);
    }
    for request in origin.requests() {
        assert_eq!(request.field("upgrade"), None);
        assert!(!request.head.lists("connection", "upgrade"));
    }
}

#[test]
fn an_upgrade_that_is_allowed_passes_octets_and_half_closes() {
    let origin = Origin::scripted(|conn, request| {
        assert_eq!(request.field("upgrade"), Some("raw/1"));
        conn.send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n")?;
        let mut asked = Vec::new();
        assert_eq!(conn.wire().until_end(&mut asked), End::Eof);
        conn.send(asked)?;
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin).admin().set("upgrade_tokens", "raw/1").start();
    let mut client = proxy.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n");
    assert_eq!(client.head().start, "HTTP/1.1 101 Go");
    proxy.wait_count(&["connections", "tunnel", "opaque"], 1);
    client.send(pattern(300_000));
    client.half_close();
    assert_eq!(client.rest(), (End::Eof, pattern(300_000)));
    proxy.wait_count(&["connections", "tunnel", "opaque"], 0);
}

#[test]
fn an_app_server_that_is_gone_becomes_a_close_1011_at_a_boundary() {
    for end in [Next::Close, Next::Reset] {
        let origin = Origin::scripted(move |conn, request| {
            conn.send(ws::agree(request))?;
            conn.send(Frame::new(TEXT, "last").octets(false))?;
            let _first = ws::read(conn.wire(), true)?;
            Ok(end)
        });
        let proxy = start(&origin);
        let mut socket = opened(&proxy);
        assert_eq!(socket.read(), Ok(Frame::new(TEXT, "last")));
        socket.send(&Frame::new(TEXT, "die"));
        assert_eq!(socket.read_to_close(), (Some(1011), vec![]));
        assert_eq!(socket.end(), End::Eof);
        proxy.wait_event("request_failed");
    }
}

#[test]
fn an_app_server_that_is_gone_inside_a_frame_becomes_a_reset() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&Frame::new(TEXT, "half a message").octets(false)[..9])?;
        let _first = ws::read(conn.wire(), true)?;
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    socket.send(&Frame::new(TEXT, "die"));
    let mut got = Vec::new();
    assert_eq!(socket.wire.until_end(&mut got), End::Reset);
}

#[test]
fn a_client_that_is_gone_is_told_to_the_app_server() {
    let origin = Origin::scripted(ws::echo);
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    socket.echo("a");
    drop(socket);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    proxy.wait_count(&["connections", "tunnel", "websocket"], 0);
}

#[test]
fn a_silent_tunnel_is_closed_after_its_time_and_one_that_is_pinged_answers() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).set("websocket.idle_timeout", "300ms").start();
    let mut socket = opened(&proxy);
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    socket.send(&Frame::close(1001));
    assert_eq!(socket.end(), End::Eof);

    let proxy = Launch::before(&origin)
        .set("websocket.idle_timeout", "2500ms")
        .set("websocket.ping_interval", "1s")
        .start();
    let mut socket = opened(&proxy);
    for _ in 0..3 {
        assert_eq!(socket.read(), Ok(Frame::new(PING, "")));
        socket.send(&Frame::new(PONG, ""));
    }
}

/// The Pings that come until something else does, and that; or far too many.
fn pings(socket: &mut Socket) -> (usize, Result<Frame, End>) {
    let mut count = 0;
    loop {
        match socket.read() {
            Ok(frame) if frame.opcode == PING && count < 6 => count += 1,
            other => return (count, other),
        }
    }
}

#[test]
fn pings_of_ours_keep_no_tunnel_that_is_silent_or_half_closed() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.wait_end();
        conn.hold("end")?;
        Ok(Next::Close)
    });
    let launch = || Launch::before(&origin).set("websocket.ping_interval", "1s");
    let proxy = launch().set("websocket.idle_timeout", "2500ms").start();
    let (count, last) = pings(&mut opened(&proxy));
    assert_eq!((count, last.map(|close| close.code())), (2, Ok(Some(1001))));

    let proxy = launch().start();
    let mut socket = opened(&proxy);
    socket.wire.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let (count, last) = pings(&mut socket);
    assert!((1..=3).contains(&count) && last.is_err(), "{count} {last:?}");
    origin.release("end");
}

#[test]
fn an_old_tunnel_is_closed() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).set("websocket.max_age", "1s").start();
    let mut socket = opened(&proxy);
    socket.echo("a");
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    socket.send(&Frame::close(1001));
    assert_eq!(socket.end(), End::Eof);
}

#[test]
fn nothing_passes_before_the_answer_and_a_request_behind_a_wish_is_a_request() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.send([ws::upgrade("/a"), get("/b")].concat());
    assert_eq!(client.response().text(), "GET /a 0");
    assert_eq!(client.response().text(), "GET /b 0");
}

#[test]
fn a_close_and_what_is_behind_it_are_left_to_the_peers() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Frame::close(4000).octets(false))?;
        let answer = ws::read(conn.wire(), true)?;
        assert_eq!((answer.opcode, answer.code()), (CLOSE, Some(4000)));
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    assert_eq!(socket.read_to_close(), (Some(4000), vec![]));
    socket.send(&Frame::close(4000));
    assert_eq!(socket.end(), End::Eof);
}

#[test]
fn the_status_shows_tunnels_with_age_and_octets_over_the_unix_socket_only() {
    let origin = Origin::scripted(ws::echo);
    let dir = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", dir.path().join("admin").display());
    let proxy = Launch::before(&origin).arg("--admin").arg(&admin).start();
    let mut socket = opened(&proxy);
    socket.echo("hello");
    let ask = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ebbtide"));
        let output = command.args(["status", "--admin", &admin]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let status: serde_json::Value = serde_json::from_str(&ask(&["--json"])).unwrap();
    let tunnel = &status["tunnels"][0];
    assert_eq!(
        (tunnel["kind"].as_str(), tunnel["target"].as_str()),
        (Some("websocket"), Some("/chat"))
    );
    assert_eq!((tunnel["bytes_in"].as_u64(), tunnel["bytes_out"].as_u64()), (Some(11), Some(7)));
    assert!(tunnel["age_ms"].is_u64() && tunnel["client"].is_string());
    assert!(ask(&[]).contains("/chat"));

    let proxy = start(&origin);
    let _socket = opened(&proxy);
    proxy.wait_count(&["connections", "tunnel", "websocket"], 1);
    let status = crate::support::admin::status(&proxy.admin());
    assert_eq!(
        (status["connections"]["tunnel"]["websocket"].as_u64(), status.get("tunnels")),
        (Some(1), None)
    );
}

#[test]
fn nothing_of_ours_follows_a_close_of_the_app_server() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Frame::close(1000).octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin).set("websocket.ping_interval", "1s").start();
    let mut socket = opened(&proxy);
    assert_eq!(socket.read_to_close(), (Some(1000), vec![]));
    let mut client = Client { wire: socket.wire };
    client.hears_nothing_for(ms(1500));
}

#[test]
fn what_a_client_says_after_the_app_server_has_ended_its_side_arrives() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Frame::close(1000).octets(false))?;
        conn.wire().sock.shutdown(std::net::Shutdown::Write).unwrap();
        conn.hold("answer")?;
        assert_eq!(ws::read(conn.wire(), true)?, Frame::new(TEXT, "one more"));
        assert_eq!(ws::read(conn.wire(), true)?.code(), Some(1000));
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    assert_eq!(socket.read_to_close(), (Some(1000), vec![]));
    socket.send(&Frame::new(TEXT, "one more"));
    socket.send(&Frame::close(1000));
    origin.release("answer");
    assert_eq!(socket.end(), End::Eof);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
}

#[test]
fn a_client_that_has_said_all_still_gets_what_the_app_server_says() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        let _close = ws::read(conn.wire(), true)?;
        for _ in 0..8 {
            conn.send(Frame::new(TEXT, "still").octets(false))?;
            crate::support::pause(ms(700));
        }
        conn.send(Frame::close(1000).octets(false))?;
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    socket.send(&Frame::close(1000));
    socket.wire.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let (code, before) = socket.read_to_close();
    assert_eq!((code, before.len()), (Some(1000), 8));
}

#[test]
fn an_app_server_that_ends_without_answering_a_close_is_no_failure() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        let _close = ws::read(conn.wire(), true)?;
        Ok(Next::Close)
    });
    let proxy = start(&origin);
    let mut socket = opened(&proxy);
    socket.send(&Frame::close(1000));
    assert_eq!(socket.read_to_close(), (Some(1000), vec![]));
    assert_eq!(socket.end(), End::Eof);
    proxy.wait_access("the tunnel's line", |line| line.contains("\"error\":null"));
    assert!(proxy.events("request_failed").is_empty());
}

#[test]
fn a_reset_passes_through_a_tunnel_that_is_not_understood() {
    let agree = "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    let wish = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let origin = Origin::scripted(move |conn, _| {
        conn.send(agree)?;
        conn.send("part of")?;
        conn.hold("die")?;
        Ok(Next::Reset)
    });
    let proxy = Launch::before(&origin).set("upgrade_tokens", "raw").start();
    let mut client = proxy.client();
    client.send(wish);
    client.head();
    client.octets(7);
    origin.release("die");
    assert_eq!(client.end(), End::Reset);

    let origin = Origin::scripted(move |conn, _| {
        conn.send(agree)?;
        Err(conn.wait_end())
    });
    let proxy = Launch::before(&origin).set("upgrade_tokens", "raw").start();
    let mut client = proxy.client();
    client.send(wish);
    client.head();
    client.reset();
    assert_eq!(origin.wait_connection_end(0).0, End::Reset);
}
