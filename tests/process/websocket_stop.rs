//! What a stop does with tunnels: the rows of the contract's table, one by one.

use crate::support::client::{Client, End};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::ws::{self, BINARY, CLOSE, Frame, Socket, TEXT};
use crate::support::{ms, pattern, pause};

fn opened(proxy: &Proxy) -> Socket {
    Socket::open(proxy.client(), "/chat")
}

/// An app server of which the first thing it hears is a Close.
fn told_first() -> Origin {
    Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        let said = ws::read(conn.wire(), true)?;
        assert_eq!((said.opcode, said.code()), (CLOSE, Some(1001)));
        conn.send(said.octets(false))?;
        Ok(Next::Close)
    })
}

/// A client that is sent a Close and nothing before it, and answers.
#[track_caller]
fn is_told(mut socket: Socket) {
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    socket.send(&Frame::close(1001));
    assert_eq!(socket.end(), End::Eof);
}

/// Sends a first part of a frame, and the rest when it is released.
fn in_two_parts(frame: &Frame, at: usize) -> Origin {
    let octets = frame.octets(false);
    Origin::scripted(move |conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&octets[..at])?;
        conn.hold("rest")?;
        conn.send(&octets[at..])?;
        let answer = ws::read(conn.wire(), true)?;
        assert_eq!((answer.opcode, answer.code()), (CLOSE, Some(1001)));
        conn.send(Frame::new(TEXT, "too late").octets(false))?;
        conn.send(answer.octets(false))?;
        Ok(Next::Close)
    })
}

#[test]
fn the_client_gets_a_close_its_echo_goes_on_and_that_of_the_app_goes_no_further() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).start();
    let mut socket = opened(&proxy);
    socket.echo(pattern(1000));
    proxy.terminate();
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    socket.send(&Frame::new(BINARY, "a last word"));
    socket.send(&Frame::close(1001));
    assert_eq!(socket.end(), End::Eof);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    drop(socket);
    let exit = proxy.wait_clean_exit();
    assert!(exit.code() == 0 && proxy.events("request_cut").is_empty());
}

#[test]
fn the_code_and_the_reason_are_those_that_are_configured() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin)
        .set("websocket.close_code", "1012")
        .set("websocket.close_reason", "back soon")
        .start();
    let mut socket = opened(&proxy);
    proxy.terminate();
    let said = socket.read().unwrap();
    assert_eq!((said.code(), &said.payload[2..]), (Some(1012), &b"back soon"[..]));
    socket.send(&Frame::close(1012));
    assert_eq!(socket.end(), End::Eof);
    drop(socket);
    proxy.wait_clean_exit();
}

#[test]
fn a_close_never_stands_inside_a_frame_of_the_app_server() {
    for length in [10, 200, 70_000] {
        let frame = Frame::new(BINARY, pattern(length));
        for at in [1, 2, 3, 7, length] {
            let origin = in_two_parts(&frame, at);
            let proxy = Launch::before(&origin).start();
            let mut socket = opened(&proxy);
            while socket.wire.ahead.len() < at {
                socket.wire.fill().unwrap();
            }
            proxy.terminate();
            proxy.wait_phase("draining");
            origin.release("rest");
            let (code, before) = socket.read_to_close();
            assert!(code == Some(1001) && before == [frame.clone()], "{length} at {at}: {code:?}");
            socket.send(&Frame::close(1001));
            assert_eq!(socket.end(), End::Eof);
            drop(socket);
            proxy.wait_clean_exit();
        }
    }
}

#[test]
fn a_client_that_does_not_answer_is_left_and_the_app_server_is_told_in_its_place() {
    let origin = told_first();
    let proxy = Launch::before(&origin).stop("close_timeout", "300ms").start();
    let mut socket = opened(&proxy);
    let told = proxy.terminate();
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    assert_eq!(socket.end(), End::Eof);
    assert!(told.elapsed() >= ms(300));
    drop(socket);
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    proxy.wait_clean_exit();
}

#[test]
fn a_frame_that_is_open_at_the_deadline_is_reset_and_named() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&Frame::new(BINARY, pattern(100)).octets(false)[..50])?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin).stop("drain_timeout", "300ms").start();
    let mut socket = opened(&proxy);
    let mut got = Vec::new();
    socket.wire.exactly(50, &mut got).unwrap();
    proxy.terminate();
    assert_eq!(socket.wire.until_end(&mut got), End::Reset);
    assert_eq!(proxy.wait_exit().code(), 3);
    let cut = proxy.wait_event("request_cut");
    assert_eq!((cut.text("method"), cut.text("target")), ("GET", "/chat"));
    assert_eq!(proxy.reported("cut_total"), 1);
}

#[test]
fn no_second_close_follows_one_that_has_passed() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Frame::close(4001).octets(false))?;
        conn.hold("stop")?;
        let _answer = ws::read(conn.wire(), true)?;
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin).start();
    let mut socket = opened(&proxy);
    assert_eq!(socket.read_to_close(), (Some(4001), vec![]));
    proxy.terminate();
    proxy.wait_phase("draining");
    origin.release("stop");
    socket.send(&Frame::close(4001));
    assert_eq!(socket.end(), End::Eof);
    drop(socket);
    proxy.wait_clean_exit();
}

#[test]
fn a_tunnel_whose_lengths_are_encoded_wrongly_is_left_alone_until_the_deadline() {
    let strange = [0x82, 126, 0, 3, b'a', b'b', b'c'];
    let origin = Origin::scripted(move |conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(strange)?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin).stop("drain_timeout", "300ms").start();
    let mut socket = opened(&proxy);
    let mut got = Vec::new();
    socket.wire.exactly(strange.len(), &mut got).unwrap();
    assert_eq!(got, strange);
    proxy.terminate();
    let mut more = Vec::new();
    assert_eq!((socket.wire.until_end(&mut more), more), (End::Reset, vec![]));
    assert_eq!(proxy.wait_exit().code(), 3);
}

#[test]
fn a_policy_leaves_tunnels_alone_until_they_end_by_themselves() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).set("websocket.on_drain", "leave").start();
    let mut socket = opened(&proxy);
    proxy.terminate();
    proxy.wait_phase("draining");
    for _ in 0..3 {
        socket.echo("still here");
    }
    socket.send(&Frame::close(1000));
    assert_eq!(socket.read_to_close(), (Some(1000), vec![]));
    assert_eq!(socket.end(), End::Eof);
    drop(socket);
    proxy.wait_clean_exit();
}

#[test]
fn closes_are_spread_so_that_clients_do_not_all_come_back_at_once() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin)
        .arg("--workers")
        .arg("1")
        .stop("stream_close_after", "200ms")
        .stop("spread", "600ms")
        .start();
    let sockets: Vec<_> = (0..100).map(|_| opened(&proxy)).collect();
    let began = proxy.terminate();
    let readers: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            std::thread::spawn(move || {
                assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
                let at = began.elapsed();
                socket.send(&Frame::close(1001));
                assert_eq!(socket.end(), End::Eof);
                at
            })
        })
        .collect();
    let mut told: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    told.sort();
    let (first, last) = (told[0], told[told.len() - 1]);
    assert!(first >= ms(150) && last - first >= ms(400), "from {first:?} to {last:?}");
    proxy.wait_clean_exit();
}

#[test]
fn a_wish_that_is_answered_in_the_drain_is_told_at_once() {
    let origin = Origin::scripted(|conn, request| {
        conn.hold("agree")?;
        ws::echo(conn, request)
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send(ws::upgrade("/chat"));
    origin.wait_started("/chat");
    proxy.terminate();
    proxy.wait_phase("draining");
    origin.release("agree");
    let socket = Socket::opened(client);
    is_told(socket);
    proxy.wait_clean_exit();
}

#[test]
fn a_close_of_the_app_server_that_is_under_way_arrives_whole() {
    for at in 1..4 {
        let octets = Frame::close(4002).octets(false);
        let origin = Origin::scripted(move |conn, request| {
            conn.send(ws::agree(request))?;
            conn.send(&octets[..at])?;
            conn.hold("rest")?;
            conn.send(&octets[at..])?;
            let _answer = ws::read(conn.wire(), true)?;
            Ok(Next::Close)
        });
        let proxy = Launch::before(&origin).start();
        let mut socket = opened(&proxy);
        while socket.wire.ahead.len() < at {
            socket.wire.fill().unwrap();
        }
        proxy.terminate();
        proxy.wait_phase("draining");
        pause(ms(50));
        origin.release("rest");
        assert_eq!(socket.read_to_close(), (Some(4002), vec![]), "{at}");
        socket.send(&Frame::close(4002));
        assert_eq!(socket.end(), End::Eof);
        drop(socket);
        proxy.wait_clean_exit();
    }
}

#[test]
fn who_does_not_read_his_close_before_the_deadline_is_reset_and_named() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(Frame::new(BINARY, pattern(8 << 20)).octets(false))?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin)
        .stop("drain_timeout", "600ms")
        .stop("close_timeout", "100ms")
        .start();
    let mut client = Client::connect_narrow(&proxy.place(), 4096);
    client.send(ws::upgrade("/chat"));
    let mut socket = Socket::opened(client);
    let mut got = Vec::new();
    socket.wire.exactly(50, &mut got).unwrap();
    proxy.terminate();
    assert_eq!(proxy.wait_exit().code(), 3);
    assert_eq!(socket.wire.until_end(&mut got), End::Reset);
    assert_eq!(proxy.reported("cut_total"), 1);
}

#[test]
fn a_close_is_sent_and_taken_even_if_no_time_is_given_to_answer() {
    let origin = Origin::scripted(ws::echo);
    let proxy = Launch::before(&origin).stop("close_timeout", "0s").start();
    let mut socket = opened(&proxy);
    proxy.terminate();
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    drop(socket);
    proxy.wait_clean_exit();
}

#[test]
fn a_wish_that_is_answered_late_is_told_in_time_to_answer() {
    let origin = Origin::scripted(|conn, request| {
        conn.hold("agree")?;
        ws::echo(conn, request)
    });
    let proxy = Launch::before(&origin)
        .stop("stream_close_after", "60s")
        .stop("drain_timeout", "3s")
        .stop("close_timeout", "2s")
        .start();
    let mut client = proxy.client();
    client.send(ws::upgrade("/chat"));
    origin.wait_started("/chat");
    proxy.terminate();
    proxy.wait_phase("draining");
    origin.release("agree");
    let socket = Socket::opened(client);
    is_told(socket);
    proxy.wait_clean_exit();
}

#[test]
fn the_app_server_is_told_of_a_client_that_only_hung_up() {
    let origin = told_first();
    for resets in [false, true] {
        let proxy = Launch::before(&origin).start();
        let mut socket = opened(&proxy);
        proxy.terminate();
        assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
        if resets {
            socket.wire.reset();
        }
        drop(socket);
        proxy.wait_clean_exit();
    }
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    assert_eq!(origin.wait_connection_end(1).0, End::Eof);
}

#[test]
fn a_client_inside_a_frame_that_does_not_answer_becomes_a_reset_for_the_app_server() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        Err(conn.wait_end())
    });
    let proxy = Launch::before(&origin).stop("close_timeout", "200ms").start();
    let mut socket = opened(&proxy);
    socket.wire.send(&Frame::new(TEXT, "half of it").octets(true)[..9]).unwrap();
    proxy.terminate();
    assert_eq!(socket.read_to_close(), (Some(1001), vec![]));
    assert_eq!(socket.end(), End::Eof);
    drop(socket);
    assert_eq!(origin.wait_connection_end(0).0, End::Reset);
    proxy.wait_clean_exit();
}

#[test]
fn what_age_could_not_end_the_deadline_names() {
    let origin = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        conn.send(&Frame::new(BINARY, pattern(100)).octets(false)[..50])?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin)
        .set("websocket.max_age", "1s")
        .stop("drain_timeout", "1500ms")
        .stop("close_timeout", "500ms")
        .start();
    let mut socket = opened(&proxy);
    let mut got = Vec::new();
    socket.wire.exactly(50, &mut got).unwrap();
    proxy.terminate();
    assert_eq!(socket.wire.until_end(&mut got), End::Reset);
    assert_eq!(proxy.wait_exit().code(), 3);
    assert_eq!(proxy.reported("cut_total"), 1);
}
