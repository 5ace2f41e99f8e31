//! gRPC calls: what goes wrong with one is said as a gRPC status, its timeout is
//! obeyed, and its silence is nobody's fault.

use std::time::Instant;

use crate::support::h2::exchange::Response;
use crate::support::h2::{Code, H2};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::{PATIENCE, ms};
use crate::way::Way;

/// A message of a call: its flag, its length, and so many octets.
pub(crate) fn message(length: usize) -> Vec<u8> {
    let size = u32::try_from(length).unwrap().to_be_bytes();
    [&[0][..], &size, &vec![b'm'; length]].concat()
}

/// Begins a call with more fields; its request has not ended.
pub(crate) fn call(h2: &mut H2, path: &str, more: &[(&str, &str)]) -> u32 {
    let mut fields = h2.pseudo("POST", path);
    let own = [("content-type", "application/grpc+proto"), ("te", "trailers")];
    let all = own.iter().chain(more);
    fields.extend(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    h2.headers(&fields, false)
}

/// A call of one message.
fn unary(h2: &mut H2, path: &str, more: &[(&str, &str)]) -> u32 {
    let stream = call(h2, path, more);
    h2.data(stream, &message(10), true);
    stream
}

/// The status of a response that consists of its head alone.
#[track_caller]
fn status(response: &Response) -> u16 {
    assert!(response.whole && response.reset.is_none() && response.body.is_empty(), "{response:?}");
    assert_eq!((response.status, response.field("content-type")), (200, Some("application/grpc")));
    assert!(response.field("grpc-message").unwrap().starts_with("ebbtide: "));
    response.field("grpc-status").unwrap().parse().unwrap()
}

fn launch(origin: &Origin) -> (Proxy, H2) {
    let proxy = Launch::before(origin).start();
    let h2 = Way::Clear.connect(&proxy);
    (proxy, h2)
}

/// Answers like a gRPC server does: a head, messages, trailers that nobody announced.
fn server() -> Origin {
    Origin::scripted(|conn, request| {
        if request.target == "/die" {
            return Ok(Next::Close);
        }
        if request.target == "/nonsense" {
            return conn.send("SMTP ready\r\n\r\n").map(|()| Next::Close);
        }
        conn.body()?;
        if request.target.starts_with("/hold") {
            conn.hold(&request.target)?;
        }
        let message = message(3);
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n")?;
        conn.send(format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", message.len()))?;
        conn.send(&message)?;
        conn.send("\r\n0\r\ngrpc-status: 0\r\nx-more: yes\r\n\r\n").map(|()| Next::KeepAlive)
    })
}

#[test]
fn call_is_answered_with_its_trailers() {
    let origin = server();
    let (_proxy, mut h2) = launch(&origin);
    let stream = unary(&mut h2, "/a.B/C", &[("grpc-timeout", "20S")]);
    let response = h2.response(stream);
    assert_eq!((response.status, &response.body), (200, &message(3)));
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(response.trailers, [("grpc-status", "0"), ("x-more", "yes")].map(own));
    let request = origin.wait_whole("/a.B/C");
    assert_eq!(request.body, message(10));
    assert_eq!(request.field("grpc-timeout"), Some("20S"), "the server has to know it as well");
    assert!(request.head.lists("te", "trailers"));
}

#[test]
fn what_goes_wrong_is_said_as_a_grpc_status() {
    let origin = server();
    let proxy = Launch::before(&origin)
        .set("upstream.first_byte_timeout", "300ms")
        .set("limits.body_size", "1k")
        .start();
    let mut h2 = Way::Clear.connect(&proxy);
    for (path, code) in [("/die", 14), ("/nonsense", 13), ("/hold/late", 4)] {
        let stream = unary(&mut h2, path, &[]);
        assert_eq!(status(&h2.response(stream)), code, "{path}");
    }
    let stream = call(&mut h2, "/long", &[]);
    h2.data(stream, &message(2000), true);
    assert_eq!(status(&h2.response(stream)), 8, "longer than limits.body_size");
    let stream = call(&mut h2, "/announced", &[("content-length", "4096")]);
    assert_eq!(status(&h2.response(stream)), 8, "refused before it was planned");
    let stream = unary(&mut h2, "/a.B/C", &[]);
    assert!(h2.response(stream).whole, "and the connection goes on");
}

#[test]
fn call_without_a_server_is_unavailable() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Launch::before_addr(&nobody.to_string()).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = unary(&mut h2, "/a.B/C", &[]);
    assert_eq!(status(&h2.response(stream)), 14);
    let stream = h2.post("/web", b"no call");
    assert_eq!(h2.response(stream).status, 502, "what is no call gets a status of HTTP");
}

#[test]
fn grpc_web_is_answered_in_its_own_way() {
    let origin = server();
    let (_proxy, mut h2) = launch(&origin);
    let mut fields = h2.pseudo("POST", "/die");
    fields.push(("content-type".to_owned(), "application/grpc-web+proto".to_owned()));
    let stream = h2.headers(&fields, true);
    assert_eq!(h2.response(stream).status, 502);
}

#[test]
fn timeout_of_a_call_is_obeyed_and_its_server_let_go() {
    let origin = server();
    let (proxy, mut h2) = launch(&origin);
    let before = Instant::now();
    let stream = unary(&mut h2, "/hold/long", &[("grpc-timeout", "400m")]);
    let request = origin.wait_started("/hold/long");
    assert_eq!(status(&h2.response(stream)), 4);
    assert!(before.elapsed() >= ms(400) && before.elapsed() < PATIENCE, "{:?}", before.elapsed());
    origin.wait_connection_end(request.connection);
    let line = proxy.wait_access("the call", |line| line.contains("/hold/long"));
    assert!(line.contains("\"error\":\"grpc_timeout\""), "{line}");
    for odd in ["soon", "5s", ""] {
        let stream = unary(&mut h2, "/a.B/C", &[("grpc-timeout", odd)]);
        assert_eq!(h2.response(stream).status, 200, "{odd:?} is the server's to judge");
    }
}

#[test]
fn call_may_be_silent_for_longer_than_any_other_request() {
    let origin = Origin::scripted(|conn, request| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n")?;
        conn.send("Transfer-Encoding: chunked\r\n\r\n")?;
        conn.hold(&request.target)?;
        conn.body()?;
        conn.send("0\r\ngrpc-status: 0\r\n\r\n").map(|()| Next::KeepAlive)
    });
    let proxy = Launch::before(&origin)
        .set("upstream.between_bytes_timeout", "200ms")
        .set("timeouts.body", "200ms")
        .start();
    let mut h2 = Way::Clear.connect(&proxy);
    let patient = call(&mut h2, "/hold/patient", &[]);
    let mut fields = h2.pseudo("POST", "/hold/other");
    fields.push(("content-type".to_owned(), "application/json".to_owned()));
    let other = h2.headers(&fields, false);
    h2.response_head(patient);
    assert!(h2.response(other).reset.is_some(), "an ordinary request is ended");
    assert!(!h2.is_over(patient));
    h2.data(patient, &message(5), true);
    origin.release("/hold/patient");
    let response = h2.response(patient);
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
}

/// Answers each call with a head and this piece, waits until the call is released, sends
/// the next one, and so on.
fn piecewise(pieces: &'static [&'static [u8]]) -> Origin {
    Origin::scripted(move |conn, request| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n")?;
        conn.send("Transfer-Encoding: chunked\r\n\r\n")?;
        for piece in pieces {
            conn.send(format!("{:x}\r\n", piece.len()))?;
            conn.send(piece)?;
            conn.send("\r\n")?;
            conn.hold(&request.target)?;
        }
        Ok(Next::Close)
    })
}

/// A call of which so many octets of its answer have come, while its request goes on.
fn answered(h2: &mut H2, octets: usize) -> u32 {
    let stream = call(h2, "/hold/both", &[]);
    h2.data(stream, &message(1), false);
    while h2.so_far(stream).body.len() < octets {
        h2.next_frame().unwrap();
    }
    stream
}

const WHOLE: &[u8] = b"\0\0\0\0\x03abc";
const PART: &[u8] = b"\0\0\0\0\x03a";

#[track_caller]
fn was_told(response: &Response, body: &[u8]) {
    assert!(response.whole && response.reset.is_none(), "{response:?}");
    assert_eq!(response.body, body);
    let [(status, code), (text, _)] = &response.trailers[..] else { panic!("{response:?}") };
    assert_eq!(
        (status.as_str(), code.as_str(), text.as_str()),
        ("grpc-status", "14", "grpc-message")
    );
}

#[test]
fn stream_ends_between_two_messages_two_seconds_before_the_hard_deadline() {
    let origin = piecewise(&[WHOLE, WHOLE]);
    let proxy = Launch::before(&origin).stop("drain_timeout", "2500ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = answered(&mut h2, WHOLE.len());
    let before = Instant::now();
    proxy.terminate();
    was_told(&h2.response(stream), WHOLE);
    assert!(before.elapsed() >= ms(500), "not before its time: {:?}", before.elapsed());
    assert_eq!(proxy.wait_exit().code(), 3, "it was cut short");
    assert!(before.elapsed() < ms(2500), "and nothing waited for the deadline");
    let cut = proxy.events("request_cut");
    assert_eq!((cut.len(), cut[0].text("target")), (1, "/hold/both"));
}

#[test]
fn inside_a_message_the_end_waits_for_its_last_octet() {
    let origin = piecewise(&[PART, b"bc\0\0\0\0\x01x"]);
    let proxy = Launch::before(&origin).stop("drain_timeout", "2s").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = answered(&mut h2, PART.len());
    proxy.terminate();
    proxy.wait_phase("draining");
    origin.release("/hold/both");
    was_told(&h2.response(stream), WHOLE);
    assert_eq!(proxy.wait_exit().code(), 3);
}

#[test]
fn at_the_hard_deadline_half_a_message_is_no_clean_end() {
    let origin = piecewise(&[PART, WHOLE]);
    let proxy = Launch::before(&origin).stop("drain_timeout", "1s").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = answered(&mut h2, PART.len());
    proxy.terminate();
    let response = h2.response(stream);
    assert_eq!((response.reset, response.whole), (Some(Code::INTERNAL_ERROR), false));
    assert!(response.trailers.is_empty());
    assert_eq!(proxy.wait_exit().code(), 3);
    assert_eq!(proxy.events("request_cut").len(), 1);
}

#[test]
fn endless_call_is_told_at_once_and_that_is_no_cut() {
    let origin = piecewise(&[WHOLE, WHOLE]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ebbtide.toml");
    std::fs::write(&file, "[[route]]\npath = '/hold'\nendless = true\n").unwrap();
    let proxy = Launch::before(&origin).arg("--config").arg(file.display().to_string()).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = answered(&mut h2, WHOLE.len());
    proxy.terminate();
    was_told(&h2.response(stream), WHOLE);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("told"), 1);
}

/// Servers send their head with the first message.
#[test]
fn endless_call_may_take_its_time_to_begin() {
    let origin = server();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ebbtide.toml");
    std::fs::write(&file, "[[route]]\npath = '/hold/watch'\nendless = true\n").unwrap();
    let proxy = Launch::before(&origin)
        .arg("--config")
        .arg(file.display().to_string())
        .set("upstream.first_byte_timeout", "300ms")
        .start();
    let mut h2 = Way::Clear.connect(&proxy);
    let watch = unary(&mut h2, "/hold/watch", &[]);
    let other = unary(&mut h2, "/hold/other", &[]);
    assert_eq!(status(&h2.response(other)), 4, "which came later than the first");
    origin.release("/hold/watch");
    assert_eq!(h2.response(watch).body, message(3));
}

#[test]
fn what_only_calls_itself_grpc_in_the_request_is_ended_by_the_deadline_alone() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).stop("drain_timeout", "500ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = unary(&mut h2, "/part/chunked/html", &[]);
    h2.response_head(stream);
    proxy.terminate();
    let response = h2.response(stream);
    assert_eq!(response.reset, Some(Code::INTERNAL_ERROR));
    assert_eq!(proxy.wait_exit().code(), 3);
}
