//! When a request is sent a second time, and when it must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Client, Response, post_head};
use crate::support::ms;
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};

/// An origin whose connections serve one request and die on reading the second, without
/// an octet of response.
fn dies_on_reuse() -> Origin {
    let seen = Arc::new(std::sync::Mutex::new(std::collections::HashMap::new()));
    Origin::scripted(move |conn, request| {
        let nth = {
            let mut seen = seen.lock().unwrap();
            let count = seen.entry(request.connection).or_insert(0);
            *count += 1;
            *count
        };
        conn.body()?;
        if nth > 1 { Ok(Next::Close) } else { conn.answer("200 OK", "first") }
    })
}

/// A proxy that is sure to use the upstream connection of the warm-up again.
fn before(origin: &Origin) -> Launch {
    Launch::before(origin).set("upstream.idle_timeout", "60s").arg("--workers").arg("1")
}

fn warmed(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.get("/warm");
    assert_eq!(client.response().text(), "first");
    client
}

fn is_bad_gateway(response: &Response) {
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(response.field("proxy-status").is_some(), "{:?}", response.head);
}

#[test]
fn stale_connection_in_the_pool_is_never_an_error() {
    // The origin closes after each response without having said so.
    let origin = Origin::scripted(|conn, request| {
        let request = conn.body().map(|whole| whole.method).unwrap_or(request.method.clone());
        conn.answer("200 OK", request)?;
        Ok(Next::Close)
    });
    let proxy = before(&origin).start();
    let mut client = proxy.client();
    for n in 0..20 {
        // A client that thinks a little: the FIN is there before the next request, so that
        // nothing needs to be written to that connection.
        crate::support::pause(ms(30));
        if n % 2 == 0 {
            client.get("/get");
        } else {
            client.post("/post", b"body");
        }
        let response = client.response();
        assert_eq!(response.status, 200, "request {n}: {}", response.text());
    }
    assert_eq!(origin.requests().len(), 20);
}

#[test]
fn stale_connection_is_never_an_error_for_get_even_at_once() {
    let origin = Origin::scripted(|conn, _| {
        conn.answer("200 OK", "short-lived")?;
        Ok(Next::Close)
    });
    let proxy = before(&origin).start();
    let mut client = proxy.client();
    for _ in 0..200 {
        client.get("/get");
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn octets_nobody_asked_for_make_a_pooled_connection_unusable() {
    let origin = Origin::scripted(|conn, _| {
        let answered = conn.answer("200 OK", "fine")?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")?;
        Ok(answered)
    });
    let proxy = before(&origin).start();
    let mut client = proxy.client();
    for _ in 0..5 {
        client.get("/x");
        assert_eq!(client.response().text(), "fine");
        crate::support::pause(ms(20));
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn get_on_a_reused_connection_that_died_is_sent_once_more() {
    let origin = dies_on_reuse();
    let proxy = before(&origin).start();
    let mut client = warmed(&proxy);
    client.get("/again");
    assert_eq!(client.response().text(), "first");
    assert_eq!(origin.requests_for("/again").len(), 2);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn post_on_a_reused_connection_that_died_is_a_bad_gateway() {
    let origin = dies_on_reuse();
    let proxy = before(&origin).start();
    let mut client = warmed(&proxy);
    client.post("/order", b"one");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/order").len(), 1);
}

#[test]
fn get_with_a_body_is_not_sent_again() {
    let origin = dies_on_reuse();
    let proxy = before(&origin).start();
    let mut client = warmed(&proxy);
    client.send(post_head("/search", 3).replace("POST", "GET")).send("abc");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/search").len(), 1);
}

#[test]
fn nothing_is_sent_again_when_retry_is_off() {
    let origin = dies_on_reuse();
    let proxy = before(&origin).set("upstream.retry", "never").start();
    let mut client = warmed(&proxy);
    client.get("/again");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/again").len(), 1);
}

#[test]
fn request_on_a_fresh_connection_that_died_is_not_sent_again() {
    let origin = Origin::scripted(|conn, _| {
        conn.body()?;
        Ok(Next::Close)
    });
    let proxy = before(&origin).start();
    let mut client = proxy.client();
    client.get("/once");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/once").len(), 1);
    let mut client = proxy.client();
    client.post("/once-too", b"x");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/once-too").len(), 1);
}

#[test]
fn request_is_not_sent_again_once_an_octet_of_its_response_came() {
    let nth = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted(move |conn, _| {
        if nth.fetch_add(1, Ordering::SeqCst) == 0 {
            return conn.answer("200 OK", "first");
        }
        conn.send("HTTP/1.1 2")?;
        Ok(Next::Close)
    });
    let proxy = before(&origin).start();
    let mut client = warmed(&proxy);
    client.get("/half");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/half").len(), 1);
}

#[test]
fn get_is_sent_again_only_once() {
    // The second attempt goes over a fresh connection, which dies as well.
    let nth = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted(move |conn, _| {
        if nth.fetch_add(1, Ordering::SeqCst) == 0 {
            return conn.answer("200 OK", "first");
        }
        Ok(Next::Reset)
    });
    let proxy = before(&origin).start();
    let mut client = warmed(&proxy);
    client.get("/doomed");
    is_bad_gateway(&client.response());
    assert_eq!(origin.requests_for("/doomed").len(), 2);
}
