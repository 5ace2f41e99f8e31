//! Whom the proxy believes when it is told who the client is.

use crate::support::client::Client;
use crate::support::h2::H2;
use crate::support::origin::{Origin, Request};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;

fn behind(trusted: &str) -> (Origin, Proxy) {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("trusted_proxies", trusted).start();
    (origin, proxy)
}

/// What the app server gets of a request with these fields.
fn forwarded(origin: &Origin, proxy: &Proxy, fields: &str) -> Request {
    let mut client = proxy.client();
    client.send(format!("GET /h HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n"));
    assert_eq!(client.response().status, 200);
    origin.requests_for("/h").pop().expect("a request")
}

const CLAIMS: &str = "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /p\r\n\
    X-Request-Start: t=1700000000000\r\nForwarded: for=198.51.100.9\r\nX-Real-IP: 1.1.1.1\r\n";

#[test]
fn trusted_peer_names_the_client_it_speaks_for() {
    let (origin, proxy) = behind("127.0.0.0/8");
    let request = forwarded(&origin, &proxy, CLAIMS);
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.9, 127.0.0.1"),
        ("x-real-ip", "198.51.100.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/p"),
        ("x-request-start", "t=1700000000000"),
    ] {
        assert_eq!(request.head.all(name), [value], "{name}");
    }
    assert_eq!(request.field("forwarded"), None, "it is passed on where it is written");
    proxy.terminate();
    proxy.wait_clean_exit();
    assert_eq!(proxy.access_log()[0]["remote_ip"], "198.51.100.9");
}

#[test]
fn anybody_else_names_nobody() {
    let (origin, proxy) = behind("10.0.0.0/8,::1");
    let request = forwarded(&origin, &proxy, CLAIMS);
    assert_eq!(request.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.head.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(request.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.head.all("x-forwarded-host"), ["app.test"]);
    for name in ["x-forwarded-prefix", "forwarded"] {
        assert_eq!(request.field(name), None, "{name}");
    }
    proxy.terminate();
    proxy.wait_clean_exit();
    assert_eq!(proxy.access_log()[0]["remote_ip"], "127.0.0.1");
}

#[test]
fn trusted_peer_speaks_over_http2_too() {
    let (origin, proxy) = behind("127.0.0.1");
    let mut h2 = H2::connect(&proxy.place());
    let mut fields = h2.pseudo("GET", "/h");
    fields.push(("x-forwarded-for".into(), "198.51.100.9".into()));
    let stream = h2.fresh_stream();
    h2.send_fields(stream, &fields, true);
    assert_eq!(h2.response(stream).status, 200);
    let request = origin.requests_for("/h").pop().expect("a request");
    assert_eq!(request.field("x-forwarded-for"), Some("198.51.100.9, 127.0.0.1"));
    assert_eq!(request.field("via"), Some("2.0 ebbtide"));
}

#[test]
fn unix_listener_can_be_trusted() {
    let origin = Origin::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.sock");
    let proxy = Launch::before(&origin)
        .listen(&format!("unix:{}", path.display()))
        .set("trusted_proxies", "unix")
        .start();
    let mut client = Client::connect(&Place::Unix(path));
    client.send(format!("GET /h HTTP/1.1\r\nHost: app.test\r\n{CLAIMS}\r\n"));
    assert_eq!(client.response().status, 200);
    let request = origin.requests_for("/h").pop().expect("a request");
    assert_eq!(request.field("x-forwarded-for"), Some("198.51.100.9"));
    assert_eq!(request.field("x-real-ip"), Some("198.51.100.9"));
    drop(proxy);
}

#[test]
fn forwarded_is_added_where_it_is_wanted() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("forwarding.forwarded", "on").start();
    let request = forwarded(&origin, &proxy, "Forwarded: for=6.6.6.6\r\n");
    assert_eq!(request.head.all("forwarded"), ["for=127.0.0.1;host=\"app.test\";proto=http"]);
}

#[test]
fn underscores_are_dropped_refused_or_passed() {
    for (how, status, passes) in [("drop", 200, false), ("refuse", 400, false), ("pass", 200, true)]
    {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).set("forwarding.underscores", how).start();
        let mut client = proxy.client();
        client.send(
            "POST /echo HTTP/1.1\r\nHost: app.test\r\nmy_field: 1\r\nX_Forwarded_For: 6.6.6.6\r\n\
             Transfer-Encoding: chunked\r\nTrailer: my_sum\r\n\r\n0\r\nmy_sum: 2\r\nx-sum: 3\r\n\r\n",
        );
        assert_eq!(client.response().status, status, "{how}");
        let Some(request) = origin.requests().pop() else {
            assert_eq!(how, "refuse");
            continue;
        };
        assert_eq!(request.field("my_field").is_some(), passes, "{how}");
        assert_eq!(request.field("x_forwarded_for"), None, "{how}");
        let trailers: Vec<_> = request.trailers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(trailers, if passes { vec!["my_sum", "x-sum"] } else { vec!["x-sum"] }, "{how}");
    }
}

#[test]
fn via_can_be_switched_off() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("forwarding.via", "off").start();
    assert_eq!(forwarded(&origin, &proxy, "").field("via"), None);
    let mut client = proxy.client();
    client.get("/");
    assert_eq!(client.response().field("via"), None);
}

#[test]
fn refused_words_about_trust_are_named_with_what_is_allowed() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .set("trusted_proxies", "10.0.0.1/8")
        .set("forwarding.underscores", "keep")
        .spawn();
    assert_eq!(proxy.wait_exit().code(), 2);
    let said = proxy.said();
    for part in ["10.0.0.1/8", "bits behind its prefix", "found \\\"keep", "drop, refuse, pass"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
