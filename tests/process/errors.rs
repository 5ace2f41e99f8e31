//! What a client is told when the app server, or the client itself, does not keep to
//! the bargain.

use std::time::Instant;

use crate::support::client::{End, Response, chunked_head, contains, post_head};
use crate::support::origin::{Crowd, HALVES, Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::{ms, pause};

/// Statuses come with the error's name by RFC 9209 and a short body.
#[track_caller]
fn is_error(response: &Response, status: u16, names: &[&str]) {
    assert_eq!(response.status, status, "{:?}: {}", response.head, response.text());
    let told = response.field("proxy-status").unwrap_or_else(|| panic!("{:?}", response.head));
    assert!(
        names.iter().any(|name| told.contains(&format!("error={name}"))),
        "one of {names:?} in {told:?}"
    );
    assert!((1..500).contains(&response.body.len()), "{}", response.text());
}

/// An origin that never answers, and a proxy with these short timeouts.
fn silent(keys: &[(&str, &str)]) -> (Origin, Proxy) {
    let origin = Origin::new();
    let launch = Launch::before(&origin);
    let proxy = keys.iter().fold(launch, |launch, (key, value)| launch.set(key, value)).start();
    (origin, proxy)
}

#[test]
fn refused_connect_is_a_bad_gateway() {
    let gone = Origin::new().place().to_string();
    let proxy = Launch::before_addr(&gone).start();
    let mut client = proxy.client();
    client.get("/x");
    is_error(&client.response(), 502, &["connection_refused", "destination_unavailable"]);
    client.post("/x", b"again on the same connection");
    let again = client.try_response();
    assert!(again.is_ok_and(|response| response.status == 502), "the connection can stay");
}

#[test]
fn missing_unix_socket_is_a_bad_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let gone = format!("unix:{}", dir.path().join("none.sock").display());
    let proxy = Launch::before_addr(&gone).start();
    let mut client = proxy.client();
    client.get("/x");
    is_error(&client.response(), 502, &["connection_refused", "destination_unavailable"]);
}

#[test]
fn connect_that_takes_too_long_is_a_gateway_timeout() {
    let crowd = Crowd::new();
    let proxy = Launch::before_addr(&crowd.place().to_string())
        .set("upstream.connect_timeout", "300ms")
        .start();
    let mut client = proxy.client();
    let asked = Instant::now();
    client.get("/x");
    is_error(&client.response(), 504, &["connection_timeout"]);
    assert!(asked.elapsed() >= ms(300));
}

#[test]
fn response_that_does_not_begin_is_a_gateway_timeout() {
    let (origin, proxy) = silent(&[("upstream.first_byte_timeout", "300ms")]);
    let mut client = proxy.client();
    let asked = Instant::now();
    client.get("/hold");
    is_error(&client.response(), 504, &["http_response_timeout", "connection_read_timeout"]);
    assert!(asked.elapsed() >= ms(300));
    let request = origin.wait_started("/hold");
    origin.wait_connection_end(request.connection);
    assert_eq!(origin.requests_for("/hold").len(), 1, "it may have been executed");
}

#[test]
fn garbage_from_the_app_server_is_a_bad_gateway() {
    for garbage in [
        "this is not HTTP\r\n\r\n",
        "HTTP/1.1 two hundred\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        "",
    ] {
        let origin = Origin::scripted(move |conn, _| {
            conn.send(garbage)?;
            Ok(Next::Close)
        });
        let proxy = Launch::before(&origin).start();
        let mut client = proxy.client();
        client.get("/x");
        let response = client.response();
        assert_eq!(response.status, 502, "{garbage:?}");
        assert!(response.field("proxy-status").is_some(), "{:?}", response.head);
    }
}

#[test]
fn switching_protocols_that_nobody_asked_for_is_a_bad_gateway() {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")?;
        Ok(Next::Close)
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.get("/x");
    assert_eq!(client.response().status, 502);
}

#[test]
fn head_that_comes_too_slowly_is_a_request_timeout() {
    let (origin, proxy) = silent(&[("timeouts.head", "300ms")]);
    let mut client = proxy.client();
    let begun = Instant::now();
    client.send("GET /x HTTP/1.1\r\nHo");
    let response = client.response();
    assert_eq!((response.status, response.says_close()), (408, true));
    assert!(begun.elapsed() >= ms(300));
    assert_eq!(client.end(), End::Eof);
    assert!(origin.requests().is_empty());
}

#[test]
fn body_that_comes_too_slowly_is_a_request_timeout() {
    let (origin, proxy) = silent(&[("timeouts.body", "300ms")]);
    let mut client = proxy.client();
    client.send(post_head("/x", 10)).send("abc");
    let response = client.response();
    assert_eq!((response.status, response.says_close()), (408, true));
    assert_eq!(client.end(), End::Eof);
    let request = origin.wait_started("/x");
    origin.wait_connection_end(request.connection);
    assert!(!origin.wait_started("/x").whole);
}

#[test]
fn body_below_the_least_rate_is_a_request_timeout() {
    let (_origin, proxy) =
        silent(&[("timeouts.body_rate", "1000"), ("timeouts.body_rate_grace", "300ms")]);
    let mut client = proxy.client();
    client.send(post_head("/x", 1000));
    let begun = Instant::now();
    while client.ended().is_none() && begun.elapsed() < ms(5000) {
        let _ = client.try_send("a");
        pause(ms(50));
        if crate::support::wire::find(&peek(&client), b"408").is_some() {
            break;
        }
    }
    assert_eq!(client.response().status, 408);
}

fn peek(client: &crate::support::client::Client) -> Vec<u8> {
    let mut octets = [std::mem::MaybeUninit::uninit(); 64];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    match rustix::net::recv(&client.wire.sock, &mut octets[..], flags) {
        Ok(((there, _), _)) => there.to_vec(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn idle_connection_is_ended_after_its_timeout() {
    let (_origin, proxy) = silent(&[("timeouts.idle", "300ms")]);
    let mut client = proxy.idle_client();
    let idle = Instant::now();
    assert_eq!(client.end(), End::Eof);
    assert!(idle.elapsed() >= ms(250), "{:?}", idle.elapsed());
}

#[test]
fn client_that_goes_away_cancels_its_request() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    for (target, reset) in [("/hold/fin", false), ("/hold/rst", true)] {
        let mut client = proxy.client();
        client.get(target);
        let request = origin.wait_started(target);
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        origin.wait_connection_end(request.connection);
    }
}

#[test]
fn client_that_goes_away_in_the_response_cancels_it() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.get("/part/chunked");
    client.head();
    let request = origin.wait_started("/part/chunked");
    client.reset();
    origin.wait_connection_end(request.connection);
}

#[test]
fn client_that_goes_away_in_its_upload_never_leaves_a_whole_request() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    for (head, piece) in [(post_head("/len", 10), "abc"), (chunked_head("/chunks"), "3\r\nabc\r\n")]
    {
        let mut client = proxy.client();
        client.send(head).send(piece);
        let target = if piece == "abc" { "/len" } else { "/chunks" };
        let request = origin.wait_started(target);
        drop(client);
        origin.wait_connection_end(request.connection);
        assert!(!origin.wait_started(target).whole, "{target}");
    }
}

/// What a client sees of a response whose app server dies in its middle.
fn dies_in_the_middle(framing: &str, version: &str) -> (End, Vec<u8>) {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send(format!("GET /die/{framing} HTTP/{version}\r\nHost: a\r\n\r\n"));
    let head = client.head();
    let chunked = head.lists("transfer-encoding", "chunked");
    client.octets(HALVES[0].len() + if chunked { "c\r\n\r\n".len() } else { 0 });
    origin.release("/die");
    client.rest()
}

#[test]
fn app_server_that_dies_in_a_response_with_a_length_never_ends_cleanly() {
    let (end, more) = dies_in_the_middle("length", "1.1");
    assert!(matches!(end, End::Eof | End::Reset) && more.is_empty(), "{end:?} after {more:?}");
}

#[test]
fn app_server_that_dies_in_a_chunked_response_never_ends_cleanly() {
    let (end, more) = dies_in_the_middle("chunked", "1.1");
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    assert!(!contains(&more, "0\r\n"), "a terminator: {more:?}");
    assert_eq!(dies_in_the_middle("chunked", "1.0").0, End::Reset);
}

#[test]
fn app_server_that_resets_a_response_without_length_never_ends_cleanly() {
    let (end, more) = dies_in_the_middle("close", "1.1");
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    assert!(!contains(&more, "0\r\n"), "a terminator: {more:?}");
    assert_eq!(dies_in_the_middle("close", "1.0").0, End::Reset);
}

#[test]
fn gap_in_a_response_that_is_too_long_ends_it_uncleanly() {
    let (origin, proxy) = silent(&[("upstream.between_bytes_timeout", "300ms")]);
    let mut client = proxy.client();
    client.get("/part/chunked");
    let (end, got) = client.rest();
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    assert!(contains(&got, HALVES[0]) && !contains(&got, "\r\n0\r\n"));
    let request = origin.wait_started("/part/chunked");
    origin.wait_connection_end(request.connection);
}

#[test]
fn error_is_named_in_the_log() {
    let gone = Origin::new().place().to_string();
    let proxy = Launch::before_addr(&gone).start();
    let mut client = proxy.client();
    client.get("/lost-and-found");
    client.response();
    let line = proxy.wait_event_where("that names the cause", |event| {
        let text = event.fields.to_string();
        text.contains("/lost-and-found") && text.contains("refused")
    });
    assert!(line.fields.to_string().contains(&gone), "{}", line.fields);
}
