//! What the proxy takes out of a head, and what it puts in.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::origin::{Origin, Request};
use crate::support::process::{Launch, Proxy};

fn pair() -> (Origin, Proxy) {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    (origin, proxy)
}

/// What the app server gets of a request with these fields.
fn forwarded(origin: &Origin, proxy: &Proxy, fields: &str) -> Request {
    let mut client = proxy.client();
    client.send(format!("GET /h HTTP/1.1\r\nHost: app.test:8443\r\n{fields}\r\n"));
    assert_eq!(client.response().status, 200);
    origin.requests_for("/h").pop().expect("a request")
}

#[test]
fn hop_by_hop_fields_of_a_request_stay_here() {
    let (origin, proxy) = pair();
    let request = forwarded(
        &origin,
        &proxy,
        "Connection: keep-alive, X-Secret, x-other\r\nX-Secret: 1\r\nX-Other: 2\r\nX-Kept: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: trailers, deflate\r\n\
         Proxy-Authorization: Basic eDp5\r\n",
    );
    for name in ["x-secret", "x-other", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert_eq!(request.field(name), None, "{name}");
    }
    assert_eq!(request.field("x-kept"), Some("3"));
    assert!(!request.head.lists("connection", "x-secret"));
    assert!(!request.head.lists("te", "deflate"));
}

#[test]
fn connection_cannot_take_out_what_the_proxy_puts_in() {
    let (origin, proxy) = pair();
    let request = forwarded(&origin, &proxy, "Connection: X-Forwarded-For, X-Real-IP, Host\r\n");
    assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
    assert!(request.field("x-forwarded-for").is_some());
    assert_eq!(request.field("host"), Some("app.test:8443"));
}

#[test]
fn hop_by_hop_fields_of_a_response_stay_here() {
    let origin = Origin::scripted(|conn, _| {
        conn.send(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Internal\r\nX-Internal: 1\r\nX-Kept: 2\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\
             Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok",
        )?;
        Ok(crate::support::origin::Next::KeepAlive)
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.get("/");
    let response = client.response();
    for name in ["x-internal", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(response.field(name), None, "{name}");
    }
    assert_eq!(response.field("x-kept"), Some("2"));
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn close_of_the_app_server_is_not_ours() {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(crate::support::origin::Next::Close)
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.get("/");
        let response = client.response();
        assert_eq!((response.text(), response.says_close()), ("ok".to_owned(), false));
    }
}

#[test]
fn upgrade_is_taken_out_and_the_request_is_an_ordinary_one() {
    let (origin, proxy) = pair();
    let request = forwarded(
        &origin,
        &proxy,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    );
    assert_eq!(request.field("upgrade"), None);
    assert!(!request.head.lists("connection", "upgrade"));
}

#[test]
fn client_is_named_to_the_app_server() {
    let (origin, proxy) = pair();
    let request = forwarded(&origin, &proxy, "");
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("app.test:8443"));
    let port = proxy.place().port().to_string();
    assert!(
        [Some("8443"), Some(port.as_str())].contains(&request.field("x-forwarded-port")),
        "{:?}",
        request.head
    );
    assert_eq!(request.field("host"), Some("app.test:8443"), "Host passes as it is");
}

#[test]
fn client_cannot_name_itself() {
    let (origin, proxy) = pair();
    let request = forwarded(
        &origin,
        &proxy,
        "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 6\r\nX-Request-Start: t=6\r\n",
    );
    assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("app.test:8443"));
    assert_ne!(request.field("x-request-start"), Some("t=6"));
}

#[test]
fn request_id_is_made_where_there_is_none() {
    let (origin, proxy) = pair();
    let first = forwarded(&origin, &proxy, "").field("x-request-id").map(str::to_owned);
    let second = forwarded(&origin, &proxy, "").field("x-request-id").map(str::to_owned);
    assert!(first.as_ref().is_some_and(|id| id.len() >= 16), "{first:?}");
    assert_ne!(first, second);
}

#[test]
fn request_id_that_is_one_is_kept() {
    let (origin, proxy) = pair();
    let request = forwarded(&origin, &proxy, "X-Request-Id: 7f3a-Order_42\r\n");
    assert_eq!(request.field("x-request-id"), Some("7f3a-Order_42"));
    let strange = "x".repeat(1000);
    let request = forwarded(&origin, &proxy, &format!("X-Request-Id: {strange}\r\n"));
    assert_ne!(request.field("x-request-id"), Some(strange.as_str()));
    assert!(request.field("x-request-id").is_some());
}

#[test]
fn start_of_the_request_is_told_in_unix_milliseconds() {
    let (origin, proxy) = pair();
    let now = || {
        u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    };
    let before = now();
    let request = forwarded(&origin, &proxy, "");
    let told = request.field("x-request-start").and_then(|v| v.strip_prefix("t="));
    let told: u64 = told.expect("t=<ms>").parse().expect("milliseconds");
    assert!((before - 5..=now() + 5).contains(&told), "{told}, not {before}");
}

#[test]
fn order_and_spelling_of_other_fields_stay() {
    let (origin, proxy) = pair();
    let request = forwarded(&origin, &proxy, "X-B: 1\r\nX-A: 2\r\nCookie: a=1; b=2\r\nX-B: 3\r\n");
    assert_eq!(request.head.all("x-b"), ["1", "3"]);
    assert_eq!(request.field("x-a"), Some("2"));
    assert_eq!(request.field("cookie"), Some("a=1; b=2"));
}

#[test]
fn absolute_targets_reach_the_app_server_as_paths() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.send("GET http://other.test/path?q HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let request = origin.requests().pop().unwrap();
    assert_eq!(request.target, "/path?q");
    assert_eq!(request.field("host"), Some("other.test"));
}
