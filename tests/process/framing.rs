//! Requests whose end could be understood in two ways, or not at all: refused before
//! anything reaches the app server.

use crate::support::client::{Client, End, Response};
use crate::support::ms;
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};

fn pair() -> (Origin, Proxy) {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    (origin, proxy)
}

/// What the proxy answers to octets, on a connection that it then ends.
#[track_caller]
fn refusal(proxy: &Proxy, octets: &str) -> Response {
    let mut client = proxy.client();
    client.send(octets);
    let response = client.response();
    assert!(response.says_close(), "{octets:?}: {:?}", response.head);
    assert!(matches!(client.rest().0, End::Eof), "{octets:?}");
    response
}

#[test]
fn ambiguous_framing_is_a_bad_request() {
    let (origin, proxy) = pair();
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
    ] {
        let response =
            refusal(&proxy, &format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n"));
        assert_eq!(response.status, 400, "{fields:?}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn malformed_heads_are_bad_requests() {
    let (origin, proxy) = pair();
    for head in [
        "GET /x HTTP/1.1\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-Y : z\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        assert_eq!(refusal(&proxy, head).status, 400, "{head:?}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn unknown_transfer_encoding_is_not_implemented() {
    let (origin, proxy) = pair();
    let post =
        |coding| format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
    assert_eq!(refusal(&proxy, &post("gzip, chunked")).status, 501);
    assert!(origin.requests().is_empty());
}

#[test]
fn transfer_encoding_from_an_old_client_is_a_bad_request() {
    let (origin, proxy) = pair();
    let octets = "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(refusal(&proxy, octets).status, 400);
    assert!(origin.requests().is_empty());
}

#[test]
fn broken_chunks_never_become_a_whole_request() {
    for broken in ["xyz\r\n", "5\r\nhelloXX", "-1\r\n", "fffffffffffffffff\r\n", "3\nabc\n"] {
        let (origin, proxy) = pair();
        let mut client = proxy.client();
        client.send(crate::support::client::chunked_head("/x")).send("2\r\nok\r\n").send(broken);
        let response = client.response();
        assert_eq!(response.status, 400, "{broken:?}");
        assert!(response.says_close());
        assert!(origin.requests().iter().all(|request| !request.whole), "{broken:?}");
    }
}

#[test]
fn target_that_is_too_long_is_refused() {
    let (origin, proxy) = pair();
    let octets = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000));
    let status = refused_while_sending(&proxy, &octets);
    assert!([414, 431].contains(&status), "{status}");
    assert!(origin.requests().is_empty());
}

#[test]
fn head_that_is_too_large_is_refused() {
    let (origin, proxy) = pair();
    let octets = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(refused_while_sending(&proxy, &octets), 431);
    let octets = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(150));
    assert_eq!(refused_while_sending(&proxy, &octets), 431);
    assert!(origin.requests().is_empty());
}

#[test]
fn limits_of_the_head_are_configured() {
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).set("limits.head_size", "2k").set("limits.head_count", "5").start();
    let with = |fields: String| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(refused_while_sending(&proxy, &with("X: 1\r\n".repeat(5))), 431);
    assert_eq!(refused_while_sending(&proxy, &with(format!("X: {}\r\n", "x".repeat(3000)))), 431);
    let mut client = proxy.client();
    client.send(with("X: 1\r\n".repeat(4)));
    assert_eq!(client.response().status, 200);
}

/// A refusal may come while the client still sends.
fn refused_while_sending(proxy: &Proxy, octets: &str) -> u16 {
    let mut client: Client = proxy.client();
    let _ = client.try_send(octets);
    client.response().status
}

#[test]
fn refused_request_does_not_reach_into_the_next() {
    let (origin, proxy) = pair();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = proxy.client();
    client.send(format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    ));
    assert_eq!(client.response().status, 400);
    assert_eq!(client.end(), End::Eof);
    crate::support::pause(ms(50));
    assert!(origin.requests().is_empty());
}

#[test]
fn refusal_after_a_pipelined_request_comes_in_its_turn() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.get("/good").send("bad\r\n\r\n");
    assert_eq!(client.response().text(), "GET /good 0");
    assert_eq!(client.response().status, 400);
    assert_eq!(client.end(), End::Eof);
}

#[test]
fn line_that_ends_with_lf_alone_is_refused() {
    let (origin, proxy) = pair();
    for octets in [
        "GET / HTTP/1.1\nHost: app.test\n\n",
        "GET / HTTP/1.1\r\nHost: app.test\r\n\n",
        "GET / HTTP/1.1\r\nHost: app.test\r\nX: b\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(refusal(&proxy, octets).status, 400, "{octets:?}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn another_version_is_505_and_a_malformed_request_line_400() {
    let (origin, proxy) = pair();
    let host = "\r\nHost: app.test\r\n\r\n";
    for (line, status) in [
        ("GET / HTTP/2.0", 505),
        ("GET /a b HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1", 400),
    ] {
        assert_eq!(refusal(&proxy, &format!("{line}{host}")).status, status, "{line}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn body_beyond_the_limit_is_too_large() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("limits.body_size", "10").start();
    let mut client = proxy.client();
    client.post("/fits", b"0123456789");
    assert_eq!(client.response().status, 200);
    let told = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 11\r\n\r\n";
    assert_eq!(refusal(&proxy, told).status, 413);
    let chunks = "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                  8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n";
    assert_eq!(refusal(&proxy, chunks).status, 413);
    let whole = origin.requests().iter().filter(|request| !request.body.is_empty()).count();
    assert_eq!(whole, 1, "no octet of the others' bodies reached the app server");
}

#[test]
fn refusal_says_in_the_access_log_what_was_wrong() {
    let (_origin, proxy) = pair();
    assert_eq!(refusal(&proxy, "GET / HTTP/1.1\r\n\r\n").status, 400);
    proxy.terminate();
    proxy.wait_clean_exit();
    assert_eq!(proxy.access_log()[0]["error"], "no Host");
}
