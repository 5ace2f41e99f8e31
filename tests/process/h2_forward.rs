//! Streams pass as HTTP/1 messages do: methods, fields, bodies of every framing,
//! interim responses and trailers; each stream waits, fails and ends by itself.

use crate::support::client::get;
use crate::support::h2::frame::setting;
use crate::support::h2::{Code, Frame, Got, H2};
use crate::support::origin::{HALVES, Next, Origin, Request};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::End;
use crate::support::{PATIENCE, admin, ms, pattern, pause, within};
use crate::way::{Way, both_ways};

/// What an upload may be ahead of the app server: on a stream, and on a connection.
const WINDOW_STREAM: usize = 256 << 10;
const WINDOW: usize = 1 << 20;

fn launch(origin: &Origin) -> Launch {
    Launch::before(origin).tls().admin()
}

fn pair() -> (Origin, Proxy, H2) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let h2 = Way::Clear.connect(&proxy);
    (origin, proxy, h2)
}

/// A proxy that is sure to use an upstream connection again.
fn one_worker(origin: &Origin) -> Launch {
    launch(origin).set("upstream.idle_timeout", "60s").arg("--workers").arg("1")
}

/// Opens a stream with more fields.
fn ask(h2: &mut H2, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> u32 {
    let mut fields = h2.pseudo(method, path);
    fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    h2.headers(&fields, end)
}

/// What the app server gets of a GET with these fields.
fn forwarded(origin: &Origin, h2: &mut H2, more: &[(&str, &str)]) -> Request {
    let stream = ask(h2, "GET", "/h", more, true);
    assert_eq!(h2.response(stream).status, 200, "{}", h2.story());
    origin.requests_for("/h").pop().expect("a request")
}

#[track_caller]
fn is_served(h2: &mut H2, stream: u32, text: &str) {
    let response = h2.response(stream);
    assert_eq!((response.status, response.text().as_str()), (200, text), "{}", h2.story());
    assert!(response.whole && response.reset.is_none(), "{response:?}");
}

/// The connection still serves.
#[track_caller]
fn goes_on(h2: &mut H2) {
    let stream = h2.get("/goes/on");
    is_served(h2, stream, "GET /goes/on 0");
}

/// Nothing is under way any more.
fn wait_rest(proxy: &Proxy) {
    within(PATIENCE, "no request to be in flight", || (in_flight(proxy) == 0.0).then_some(()));
}

fn in_flight(proxy: &Proxy) -> f64 {
    admin::metric(&proxy.admin(), "ebbtide_requests_in_flight{protocol=\"h2\"}")
}

both_ways! {
    requests_with_and_without_bodies_pass
    a_body_keeps_its_framing_whatever_the_method
    the_client_is_named_to_the_app_server
    large_bodies_pass_both_ways_side_by_side
    interim_responses_pass_in_order
    a_response_ends_as_it_ended_upstream_or_is_reset
    a_preface_that_comes_octet_by_octet_is_understood
    requests_are_counted_and_logged_under_their_protocol
    a_client_that_does_not_read_holds_up_its_connection_only_and_costs_no_memory
}

fn requests_with_and_without_bodies_pass(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let stream = h2.get("/a?b=c%20d");
    is_served(&mut h2, stream, "GET /a?b=c%20d 0");
    let stream = h2.post("/p", b"12345");
    is_served(&mut h2, stream, "POST /p 5");
    let stream = h2.request("HEAD", "/bytes/12");
    let response = h2.response(stream);
    assert_eq!((response.status, response.field("content-length")), (200, Some("12")));
    assert!(response.whole && response.body.is_empty());
    let stream = h2.request("OPTIONS", "*");
    assert_eq!(h2.response(stream).status, 200);
    let stream = h2.get("/none");
    let response = h2.response(stream);
    assert_eq!((response.status, response.field("content-length")), (204, None));
    assert!(response.whole && response.body.is_empty());
    let stream = h2.get("/unmodified");
    let response = h2.response(stream);
    assert_eq!((response.status, response.field("etag")), (304, Some("\"1\"")));
    assert!(response.whole && response.body.is_empty());
    let seen: Vec<_> = origin.requests().into_iter().map(|r| r.head.start).collect();
    let expected = [
        "GET /a?b=c%20d HTTP/1.1",
        "POST /p HTTP/1.1",
        "HEAD /bytes/12 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /none HTTP/1.1",
        "GET /unmodified HTTP/1.1",
    ];
    assert_eq!(seen, expected);
    for start in ["CONNECT", "connect"] {
        let mut fields = h2.pseudo(start, "/");
        if start == "CONNECT" {
            fields.retain(|(name, _)| name == ":method" || name == ":authority");
        }
        let stream = h2.headers(&fields, true);
        let answer = h2.response(stream);
        assert!(answer.reset.is_some() || answer.status != 0, "{answer:?}");
    }
    goes_on(&mut h2);
}

fn a_body_keeps_its_framing_whatever_the_method(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    for method in ["POST", "PUT", "PATCH", "GET", "DELETE", "OPTIONS", "REPORT"] {
        let with = format!("/with/{method}");
        let stream = ask(&mut h2, method, &with, &[("content-length", "5")], false);
        h2.data(stream, b"12345", true);
        is_served(&mut h2, stream, &format!("{method} {with} 5"));
        let request = origin.wait_whole(&with);
        assert_eq!(request.field("content-length"), Some("5"));
        assert_eq!(request.field("transfer-encoding"), None);
        assert_eq!(request.body, b"12345");

        let without = format!("/without/{method}");
        let stream = ask(&mut h2, method, &without, &[], false);
        h2.data(stream, b"123", false);
        h2.data(stream, b"45", true);
        is_served(&mut h2, stream, &format!("{method} {without} 5"));
        let request = origin.wait_whole(&without);
        assert_eq!(request.field("content-length"), None);
        assert_eq!(request.field("transfer-encoding"), Some("chunked"));
        assert_eq!(request.body, b"12345");

        let none = format!("/none-{method}");
        let stream = ask(&mut h2, method, &none, &[], true);
        is_served(&mut h2, stream, &format!("{method} {none} 0"));
        let request = origin.wait_whole(&none);
        assert_eq!(request.field("content-length"), None);
        assert_eq!(request.field("transfer-encoding"), None);

        let zero = format!("/zero/{method}");
        let stream = ask(&mut h2, method, &zero, &[("content-length", "0")], true);
        is_served(&mut h2, stream, &format!("{method} {zero} 0"));
        assert_eq!(origin.wait_whole(&zero).field("content-length"), Some("0"));

        let nothing = format!("/nothing/{method}");
        let stream = ask(&mut h2, method, &nothing, &[], false);
        h2.data(stream, b"", true);
        is_served(&mut h2, stream, &format!("{method} {nothing} 0"));
    }
}

fn the_client_is_named_to_the_app_server(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    h2.authority = "app.test:8443".to_owned();
    let lies = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-port", "6"),
        ("x-request-start", "t=6"),
    ];
    for more in [&[][..], &lies] {
        let request = forwarded(&origin, &mut h2, more);
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
        assert_eq!(request.field("x-forwarded-proto"), Some(h2.scheme()));
        assert_eq!(request.field("x-forwarded-host"), Some("app.test:8443"));
        let port = way.place(&proxy).port().to_string();
        assert_eq!(request.field("x-forwarded-port"), Some(port.as_str()));
        assert_ne!(request.field("x-request-start"), Some("t=6"));
        assert_eq!(request.field("host"), Some("app.test:8443"));
        assert!(request.field("x-request-id").is_some_and(|id| id.len() >= 16));
    }
    let request = forwarded(&origin, &mut h2, &[("x-request-id", "7f3a-Order_42")]);
    assert_eq!(request.field("x-request-id"), Some("7f3a-Order_42"));
    let strange = "x".repeat(1000);
    let request = forwarded(&origin, &mut h2, &[("x-request-id", &strange)]);
    assert_ne!(request.field("x-request-id"), Some(strange.as_str()));
}

fn large_bodies_pass_both_ways_side_by_side(way: Way) {
    const LEN: usize = 10_000_000;
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let down: Vec<u32> = (0..3).map(|_| h2.get(&format!("/bytes/{LEN}"))).collect();
    let body = pattern(LEN);
    let up = h2.post("/sink", &body);
    is_served(&mut h2, up, &format!("POST /sink {LEN}"));
    assert!(origin.wait_whole("/sink").body == body, "octets of the upload were changed");
    for stream in down {
        let response = h2.response(stream);
        assert!(response.whole && response.body == body, "octets of the response were changed");
        assert_eq!(response.field("content-length"), Some("10000000"));
    }
    let echoed = h2.post("/echo", &body[..3_000_000]);
    assert!(h2.response(echoed).body == body[..3_000_000]);
}

#[test]
fn many_connections_move_large_bodies_at_once() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let body = pattern(1_000_000);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (proxy, body) = (&proxy, &body);
            scope.spawn(move || {
                let way = if n % 2 == 0 { Way::Clear } else { Way::Tls };
                let mut h2 = way.connect(proxy);
                let down: Vec<u32> = (0..4).map(|_| h2.get("/bytes/1000000")).collect();
                let up = h2.post("/echo", body);
                for stream in down.into_iter().chain([up]) {
                    assert!(h2.response(stream).body == *body, "octets were changed");
                }
            });
        }
    });
    wait_rest(&proxy);
}

#[test]
fn empty_data_is_no_end_of_a_body() {
    let (origin, _proxy, mut h2) = pair();
    let stream = h2.post_head("/empty");
    let pieces: [&[u8]; 6] = [b"", b"first", b"", b"", b"second", b""];
    for piece in pieces {
        h2.send(&Frame::data(stream, piece));
        h2.fence();
    }
    h2.send(&Frame::data(stream, "").padded(200));
    h2.send(&Frame::data(stream, "third").padded(7)).send(&Frame::data(stream, []).end());
    is_served(&mut h2, stream, "POST /empty 16");
    assert_eq!(origin.wait_whole("/empty").body, b"firstsecondthird");
}

#[test]
fn padding_is_no_part_of_a_body_and_its_window_comes_back() {
    let (origin, _proxy, mut h2) = pair();
    let stream = h2.post_head("/padded");
    let body = pattern(1_200_000);
    for piece in body.chunks(300) {
        while h2.room(stream) < 600 {
            h2.next_frame().expect("a window for padding");
        }
        h2.send(&Frame::data(stream, piece).padded(255));
    }
    h2.send(&Frame::data(stream, []).padded(9).end());
    is_served(&mut h2, stream, "POST /padded 1200000");
    assert!(origin.wait_whole("/padded").body == body, "octets were changed");
}

#[test]
fn trailers_pass_both_ways_without_those_that_may_not_be_there() {
    let origin = Origin::scripted(|conn, _| {
        let trailers = conn.body()?.trailers;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")?;
        conn.send("5\r\nhello\r\n0\r\nX-Sum: 12\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n")?;
        conn.send("Host: evil.test\r\nConnection: close\r\nSet-Cookie: a=b\r\n")?;
        conn.send(format!("X-Count: {}\r\n\r\n", trailers.len()))?;
        Ok(Next::KeepAlive)
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = ask(&mut h2, "POST", "/t", &[("trailer", "x-t"), ("te", "trailers")], false);
    h2.data(stream, b"body", false);
    let trailers =
        [("x-t", "v"), ("content-length", "4"), ("host", "evil.test"), ("x-forwarded-for", "6")];
    h2.send_fields(stream, &trailers, true);
    let response = h2.response(stream);
    assert_eq!(response.text(), "hello");
    let named = |name: &str| {
        response.trailers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    };
    assert_eq!((named("x-sum"), named("x-count")), (Some("12"), Some("1")));
    for name in ["content-length", "transfer-encoding", "host", "connection", "set-cookie"] {
        assert_eq!(named(name), None, "{name}");
    }
    assert_eq!(response.field("trailer"), Some("X-Sum"));
    let request = origin.wait_whole("/t");
    assert_eq!(request.body, b"body");
    assert_eq!(request.trailers, [("x-t".to_owned(), "v".to_owned())]);
    assert_eq!(request.field("trailer"), Some("x-t"));
    assert!(request.head.lists("te", "trailers") && request.head.lists("connection", "te"));
}

#[test]
fn trailers_behind_a_body_with_a_length_do_no_harm() {
    let (origin, _proxy, mut h2) = pair();
    let stream = ask(&mut h2, "POST", "/t", &[("content-length", "4")], false);
    h2.data(stream, b"body", false);
    h2.send_fields(stream, &[("x-t", "v")], true);
    is_served(&mut h2, stream, "POST /t 4");
    assert_eq!(origin.wait_whole("/t").field("content-length"), Some("4"));
    goes_on(&mut h2);
}

#[test]
fn a_response_of_trailers_only_has_no_body() {
    let origin = Origin::scripted(|conn, _| {
        conn.body()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n")?;
        conn.send("0\r\nGrpc-Status: 5\r\n\r\n").map(|()| Next::KeepAlive)
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.post("/grpc", b"call");
    let response = h2.response(stream);
    assert!(response.whole && response.body.is_empty());
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "5".to_owned())]);
}

#[test]
fn cookie_crumbs_are_joined() {
    let (origin, _proxy, mut h2) = pair();
    let crumbs = [("cookie", "a=1"), ("x-b", "1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
    let request = forwarded(&origin, &mut h2, &crumbs);
    assert_eq!(request.field("cookie"), Some("a=1; b=2; c=3; d=4"));
    assert_eq!(request.field("x-b"), Some("1"));
    let request = forwarded(&origin, &mut h2, &[("cookie", "alone=1")]);
    assert_eq!(request.field("cookie"), Some("alone=1"));
}

#[test]
fn fields_that_come_twice_stay_two_and_in_order() {
    let (origin, _proxy, mut h2) = pair();
    let request = forwarded(&origin, &mut h2, &[("x-b", "1"), ("x-a", "2"), ("x-b", "3")]);
    assert_eq!(request.head.all("x-b"), ["1", "3"]);
    assert_eq!(request.field("x-a"), Some("2"));
}

#[test]
fn authority_becomes_host_and_must_not_differ_from_it() {
    let (origin, _proxy, mut h2) = pair();
    let without: Vec<_> =
        h2.pseudo("GET", "/h").into_iter().filter(|(name, _)| name != ":authority").collect();
    let host = |value: &str| ("host".to_owned(), value.to_owned());
    let authority = |value: &str| (":authority".to_owned(), value.to_owned());
    for (fields, status) in [
        (vec![authority("a.test")], 200),
        (vec![host("a.test")], 200),
        (vec![authority("a.test"), host("a.test")], 200),
        (vec![authority("A.test"), host("a.TEST")], 200),
        (vec![authority("a.test"), host("b.test")], 400),
        (vec![host("a.test"), host("a.test")], 400),
        (vec![authority("user@a.test")], 400),
        (vec![], 400),
    ] {
        let stream = h2.headers(&[without.clone(), fields.clone()].concat(), true);
        let response = h2.response(stream);
        let refused = response.reset == Some(Code::PROTOCOL_ERROR);
        let fits = response.status == status || (status == 400 && refused);
        assert!(fits, "{fields:?}: {response:?}");
    }
    let seen: Vec<_> =
        origin.requests().into_iter().map(|r| r.head.all("host").join("|")).collect();
    assert!(seen.len() == 4 && seen.iter().all(|h| h.eq_ignore_ascii_case("a.test")), "{seen:?}");
    goes_on(&mut h2);
}

#[test]
fn a_body_that_is_not_as_long_as_was_said_is_an_error_of_its_stream() {
    let (origin, proxy, mut h2) = pair();
    let held = h2.get("/hold/beside");
    for (said, sent) in [("3", "12345"), ("10", "12345")] {
        let stream = ask(&mut h2, "POST", "/x", &[("content-length", said)], false);
        h2.data(stream, sent.as_bytes(), true);
        let response = h2.response(stream);
        assert!(response.reset.is_some() || response.status == 400, "{response:?}");
    }
    origin.wait_started("/hold/beside");
    origin.release_all();
    is_served(&mut h2, held, "held");
    assert!(origin.requests_for("/x").iter().all(|request| !request.whole));
    wait_rest(&proxy);
}

#[test]
fn fields_of_one_connection_do_not_reach_the_client() {
    let origin = Origin::scripted(|conn, _| {
        conn.send(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Internal\r\nX-Internal: 1\r\nX-KEPT: 2\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: x\r\n\
             Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nX-High: \u{fc}\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )
        .map(|()| Next::KeepAlive)
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.get("/");
    let response = h2.response(stream);
    let names = ["x-internal", "keep-alive", "proxy-connection", "upgrade", "te", "connection"];
    for name in names.into_iter().chain(["transfer-encoding"]) {
        assert_eq!(response.field(name), None, "{name}");
    }
    assert_eq!((response.field("x-kept"), response.field("x-empty")), (Some("2"), Some("")));
    assert!(response.field("x-high").is_some());
    let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie");
    assert_eq!(cookies.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(response.text(), "ok");
}

#[test]
fn fields_of_one_connection_do_not_reach_the_app_server() {
    let (origin, _proxy, mut h2) = pair();
    let request =
        forwarded(&origin, &mut h2, &[("proxy-authorization", "Basic eDp5"), ("x-k", "1")]);
    assert_eq!((request.field("proxy-authorization"), request.field("x-k")), (None, Some("1")));
    // These make a request malformed (RFC 9113, section 8.2.2).
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
    ] {
        let stream = ask(&mut h2, "GET", "/malformed", &[(name, value)], true);
        let response = h2.response(stream);
        let fits = response.reset == Some(Code::PROTOCOL_ERROR) || response.status == 400;
        assert!(fits, "{name}: {response:?}");
    }
    assert!(origin.requests_for("/malformed").is_empty());
    goes_on(&mut h2);
}

#[test]
fn garbage_from_the_app_server_is_a_bad_gateway_of_its_stream() {
    let origin = Origin::scripted(|conn, request| {
        let garbage = [
            "this is not HTTP\r\n\r\n",
            "HTTP/1.1 two hundred\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n:status: 200\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\u{1}b\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "",
        ];
        match request.target.strip_prefix("/garbage/") {
            None => crate::support::origin::standard(conn, request),
            Some(n) => {
                conn.send(garbage[n.parse::<usize>().expect("a number")])?;
                Ok(Next::Close)
            }
        }
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let held = h2.get("/hold/beside");
    let streams: Vec<u32> = (0..8).map(|n| h2.get(&format!("/garbage/{n}"))).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        let response = h2.response(stream);
        assert_eq!(response.status, 502, "{n}: {response:?}");
        assert!(response.field("proxy-status").is_some_and(|told| told.contains("ebbtide")));
        assert!(response.whole && response.reset.is_none());
    }
    origin.wait_started("/hold/beside");
    origin.release_all();
    is_served(&mut h2, held, "held");
}

fn interim_responses_pass_in_order(way: Way) {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        conn.hold("hints")?;
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n")?;
        conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        conn.send("HTTP/1.1 102 Processing\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n")?;
        conn.answer("200 OK", "page")
    });
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let stream = h2.get("/");
    let first = h2.read_until(|h2| h2.so_far(stream).interims.first().cloned());
    let hint = |at: &str| (103, vec![("link".to_owned(), format!("</{at}.css>; rel=preload"))]);
    assert_eq!(first, Ok(hint("a")), "at once, not with the response");
    origin.release("hints");
    let response = h2.response(stream);
    assert_eq!(response.interims, [hint("a"), hint("b"), (100, vec![]), (102, vec![])]);
    assert_eq!(response.text(), "page");
}

#[test]
fn interim_responses_without_end_are_a_bad_gateway() {
    let origin = Origin::scripted(|conn, _| {
        loop {
            conn.send("HTTP/1.1 103 Early Hints\r\n\r\n")?;
        }
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.get("/");
    let response = h2.response(stream);
    assert_eq!(response.status, 502);
    assert!(response.interims.len() <= 32, "{}", response.interims.len());
}

#[test]
fn continue_passes_end_to_end() {
    let origin = Origin::scripted(|conn, request| {
        if request.target == "/refuse" {
            conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(Next::Close);
        }
        conn.hold("continue")?;
        conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = conn.body()?.body;
        conn.answer("201 Created", body)
    });
    let proxy = launch(&origin).set("timeouts.body", "500ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let expects = [("expect", "100-continue"), ("content-length", "4")];
    let stream = ask(&mut h2, "POST", "/take", &expects, false);
    assert_eq!(origin.wait_started("/take").field("expect"), Some("100-continue"));
    h2.fence();
    // It waits for the app, whatever the bound on its body.
    pause(ms(600));
    assert!(h2.so_far(stream).interims.is_empty(), "from the origin, not from us");
    origin.release("continue");
    let interim = h2.read_until(|h2| h2.so_far(stream).interims.first().cloned());
    assert_eq!(interim, Ok((100, vec![])));
    h2.data(stream, b"body", true);
    let response = h2.response(stream);
    assert_eq!((response.status, response.text()), (201, "body".to_owned()));

    let stream = ask(&mut h2, "POST", "/refuse", &expects, false);
    let response = h2.response(stream);
    assert_eq!((response.status, response.interims.len()), (417, 0));
    h2.expect_reset(stream, &[Code::NO_ERROR]);
}

fn a_response_ends_as_it_ended_upstream_or_is_reset(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let held = h2.get("/hold/beside");
    let stream = h2.get("/chunked");
    is_served(&mut h2, stream, "hello, world");
    let stream = h2.get("/close");
    is_served(&mut h2, stream, "until the end");
    let stream = h2.get("/bytes/0");
    is_served(&mut h2, stream, "");
    let dying: Vec<u32> =
        ["/die/length", "/die/chunked"].into_iter().map(|target| h2.get(target)).collect();
    // One that ends with its connection can only be cut by a reset.
    let reset = h2.get("/die/close");
    for stream in dying.iter().chain([&reset]) {
        let half = h2.read_until(|h2| (h2.so_far(*stream).text() == HALVES[0]).then_some(()));
        assert_eq!(half, Ok(()), "the first half is out");
    }
    origin.release("/die");
    for stream in dying.into_iter().chain([reset]) {
        let response = h2.response(stream);
        assert_eq!((response.whole, response.reset), (false, Some(Code::INTERNAL_ERROR)));
        assert_eq!(response.text(), HALVES[0]);
    }
    origin.wait_started("/hold/beside");
    origin.release_all();
    is_served(&mut h2, held, "held");
}

#[test]
fn an_app_server_that_refuses_is_a_bad_gateway_and_the_connection_stays() {
    let gone = Origin::new().place().to_string();
    let proxy = Launch::before_addr(&gone).start();
    let mut h2 = H2::connect(&proxy.place());
    for body in [&b""[..], b"body"] {
        let stream = h2.post("/x", body);
        let response = h2.response(stream);
        assert_eq!(response.status, 502);
        let told = response.field("proxy-status").expect("Proxy-Status");
        assert!(told.contains("error=connection_refused"), "{told}");
        assert!((1..500).contains(&response.body.len()) && response.whole);
    }
    let stream = h2.request("HEAD", "/x");
    let response = h2.response(stream);
    assert_eq!((response.status, response.body.len(), response.whole), (502, 0, true));
}

/// An origin whose connections serve one request and die on reading the second.
fn dies_on_reuse() -> Origin {
    Origin::scripted(|conn, request| {
        if request.target == "/warm" || request.target == "/again" && request.connection > 0 {
            return conn.answer("200 OK", "served");
        }
        conn.body()?;
        Ok(Next::Close)
    })
}

#[test]
fn a_get_that_meets_a_dead_connection_is_sent_once_more_and_a_post_is_not() {
    for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 502), ("DELETE", 502)] {
        let origin = dies_on_reuse();
        let proxy = one_worker(&origin).start();
        let mut h2 = Way::Clear.connect(&proxy);
        let warm = h2.get("/warm");
        is_served(&mut h2, warm, "served");
        let stream = h2.request(method, "/again");
        assert_eq!(h2.response(stream).status, status, "{method}");
        let times = if status == 200 { 2 } else { 1 };
        assert_eq!(origin.requests_for("/again").len(), times, "{method}");
    }
}

#[test]
fn a_stale_connection_in_the_pool_is_never_an_error() {
    let origin = Origin::scripted(|conn, _| {
        let len = conn.body()?.body.len();
        conn.answer("200 OK", len.to_string())?;
        Ok(Next::Close)
    });
    let proxy = one_worker(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    for _ in 0..10 {
        // The FIN is there before the next request.
        pause(ms(20));
        let stream = h2.post("/x", b"body");
        is_served(&mut h2, stream, "4");
    }
}

/// Gives a stream up: its request is cancelled upstream, and one beside it goes on.
#[track_caller]
fn is_cancelled(origin: &Origin, proxy: &Proxy, h2: &mut H2, stream: u32, target: &str) {
    let connection = origin.wait_started(target).connection;
    let beside = h2.get("/hold/beside");
    origin.wait_started("/hold/beside");
    h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    origin.wait_connection_end(connection);
    goes_on(h2);
    origin.release("/hold/beside");
    is_served(h2, beside, "held");
    assert!(!h2.so_far(stream).whole);
    wait_rest(proxy);
    let line = proxy.wait_access(target, |line| line.contains(target));
    assert!(line.contains("client_gone"), "{line}");
}

#[test]
fn a_stream_reset_while_it_waits_for_its_head_is_cancelled_upstream() {
    let (origin, proxy, mut h2) = pair();
    let stream = h2.get("/hold/head");
    is_cancelled(&origin, &proxy, &mut h2, stream, "/hold/head");
}

#[test]
fn a_stream_reset_in_the_middle_of_its_upload_is_cancelled_upstream() {
    let (origin, proxy, mut h2) = pair();
    let stream = h2.post_head("/up");
    h2.data(stream, &pattern(5_000), false);
    is_cancelled(&origin, &proxy, &mut h2, stream, "/up");
    assert!(!origin.wait_started("/up").whole, "a body that was cut has no end");
}

#[test]
fn a_stream_reset_while_the_app_server_does_not_read_is_cancelled_upstream() {
    let origin = Origin::scripted(|conn, request| {
        if request.target == "/deaf" {
            conn.hold("never")?;
            // Whatever was sent is behind the end only if it is read.
            return Ok(Next::Reset);
        }
        crate::support::origin::standard(conn, request)
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.post_head("/deaf");
    fill(&mut h2, &[stream], 16_384, 0);
    h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    wait_rest(&proxy);
    goes_on(&mut h2);
    // What the stream had of the connection's window is given back.
    let stream = h2.post("/sink", &pattern(2 * WINDOW));
    is_served(&mut h2, stream, &format!("POST /sink {}", 2 * WINDOW));
}

#[test]
fn a_stream_reset_while_its_response_streams_is_cancelled_upstream() {
    let origin = Origin::scripted(|conn, request| {
        if request.target != "/flood" {
            return crate::support::origin::standard(conn, request);
        }
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.send(b"5\r\nabcde\r\n".repeat(1000))?;
        }
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.get("/flood");
    h2.next_data(stream);
    is_cancelled(&origin, &proxy, &mut h2, stream, "/flood");
    // And one whose window is shut.
    h2.auto.window = false;
    let stream = h2.get("/flood");
    let full = h2.read_until(|h2| (h2.so_far(stream).body.len() == 65_535).then_some(()));
    assert_eq!(full, Ok(()));
    let request = origin.requests_for("/flood").pop().expect("the second");
    h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    origin.wait_connection_end(request.connection);
    wait_rest(&proxy);
}

#[test]
fn a_client_that_is_gone_cancels_all_it_asked_for() {
    let (origin, proxy, mut h2) = pair();
    h2.get("/hold/head");
    let up = h2.post_head("/up");
    h2.data(up, &pattern(1_000), false);
    let part = h2.get("/part/chunked");
    h2.response_head(part);
    let targets = ["/hold/head", "/up", "/part/chunked"];
    let connections = targets.map(|target| origin.wait_started(target).connection);
    assert_eq!(in_flight(&proxy), 3.0);
    h2.reset();
    for connection in connections {
        origin.wait_connection_end(connection);
    }
    wait_rest(&proxy);
    for target in targets {
        proxy.wait_access(target, |line| line.contains(target) && line.contains("client_gone"));
    }
}

#[test]
fn an_early_response_is_followed_by_a_reset_that_loses_nothing() {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("linger", "300ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    for target in ["/early/100000", "/curt/100000"] {
        let stream = h2.post_head(target);
        h2.data(stream, &pattern(5_000), false);
        let response = h2.response(stream);
        assert_eq!((response.status, response.whole), (200, true));
        assert!(response.body == pattern(100_000), "octets were lost");
        if target.starts_with("/early") {
            // It may still read; when its client ends the upload, no reset is due.
            h2.data(stream, &pattern(5_000), false);
            goes_on(&mut h2);
            h2.send(&Frame::rst_stream(stream, Code::CANCEL));
        } else {
            h2.expect_reset(stream, &[Code::NO_ERROR]);
        }
        goes_on(&mut h2);
    }
    wait_rest(&proxy);
}

#[test]
fn a_window_that_never_opens_stalls_its_own_stream_only() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect_with(&proxy, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    goes_on_without_body(&mut h2);
    let before = proxy.rss();
    let stalled: Vec<u32> = (0..20).map(|_| h2.get("/bytes/3000000")).collect();
    for stream in &stalled {
        h2.response_head(*stream);
    }
    let open = h2.get("/bytes/300000");
    let body = h2.read_until(|h2| {
        let response = h2.so_far(open);
        if response.status != 0 && response.body.is_empty() {
            h2.send(&Frame::window_update(open, 1 << 20));
            h2.next_frame().ok()?;
        }
        response.is_over().then_some(response.body)
    });
    assert!(body.is_ok_and(|body| body == pattern(300_000)), "{}", h2.story());
    let grown = proxy.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "bodies in memory: {grown}");
    for stream in &stalled[..2] {
        assert!(h2.so_far(*stream).body.is_empty());
        h2.send(&Frame::window_update(*stream, 3_000_000));
        let response = h2.response(*stream);
        assert!(response.body == pattern(3_000_000), "octets were changed");
    }
}

fn goes_on_without_body(h2: &mut H2) {
    let stream = h2.get("/none");
    assert_eq!(h2.response(stream).status, 204);
}

/// Sends DATA on these streams until they have no more room than this and none has
/// been given back for a while.
fn fill(h2: &mut H2, streams: &[u32], piece: usize, left: usize) {
    let piece = vec![b'x'; piece];
    loop {
        let mut moved = false;
        for stream in streams {
            let room = h2.window_of(*stream).saturating_sub(left);
            let n = h2.room(*stream).min(piece.len()).min(room);
            if n > 0 {
                h2.send(&Frame::data(*stream, &piece[..n]));
                moved = true;
            }
        }
        if !moved && h2.next_within(ms(300)) == Err(End::TimedOut) {
            return;
        }
    }
}

#[test]
fn an_app_server_that_does_not_read_shuts_the_windows_and_others_go_on() {
    let origin = Origin::scripted(|conn, request| {
        if request.target.starts_with("/deaf") {
            conn.hold("read")?;
        }
        crate::support::origin::standard(conn, request)
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    goes_on(&mut h2);
    let before = proxy.rss();
    let streams: Vec<u32> = (0..8).map(|n| h2.post_head(&format!("/deaf/{n}"))).collect();
    assert_eq!((h2.room_of_connection(), h2.window_of(streams[0])), (WINDOW, WINDOW_STREAM));
    fill(&mut h2, &streams[..1], 16_384, 0);
    assert_eq!(h2.window_of(streams[0]), 0);
    // What was taken is given back in large pieces.
    assert!(h2.room_of_connection() >= WINDOW / 4, "the others have theirs");
    fill(&mut h2, &streams[1..], 16_384, 0);
    assert_eq!(h2.room_of_connection(), 0);
    let grown = proxy.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "uploads in memory: {grown}");
    goes_on(&mut h2);
    let mut other = Way::Tls.connect(&proxy);
    let stream = other.post("/sink", &pattern(300_000));
    is_served(&mut other, stream, "POST /sink 300000");
    origin.release("read");
    for (n, stream) in streams.into_iter().enumerate() {
        h2.data(stream, b"end", true);
        let response = h2.response(stream);
        assert!(response.text().starts_with(&format!("POST /deaf/{n} ")), "{}", response.text());
    }
    wait_rest(&proxy);
}

fn a_client_that_does_not_read_holds_up_its_connection_only_and_costs_no_memory(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut warm = way.connect(&proxy);
    goes_on(&mut warm);
    let before = proxy.rss();
    let mut h2 = way.bare_narrow(&proxy, 16 * 1024);
    h2.handshake(&[(setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1)]);
    h2.send(&Frame::window_update(0, (1 << 30) - 1));
    const LEN: usize = 1_500_000;
    let streams: Vec<u32> = (0..10).map(|n| h2.get(&format!("/bytes/{LEN}?{n}"))).collect();
    for n in 0..10 {
        origin.wait_started(&format!("/bytes/{LEN}?{n}"));
    }
    // Time for the proxy to read ahead, if it were to.
    pause(ms(300));
    for _ in 0..3 {
        goes_on(&mut warm);
    }
    let grown = proxy.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "bodies in memory: {grown}");
    h2.auto.window = false;
    for stream in streams {
        assert!(h2.response(stream).body == pattern(LEN), "octets were changed");
    }
}

fn a_preface_that_comes_octet_by_octet_is_understood(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.bare(&proxy);
    let mut octets = crate::support::h2::frame::PREFACE.to_vec();
    octets.extend(Frame::settings(&[]).octets());
    for octet in octets {
        h2.octets(&[octet]);
        pause(ms(1));
    }
    h2.wait_settings_ack();
    goes_on(&mut h2);
}

#[test]
fn a_method_that_begins_like_the_preface_is_still_http_1() {
    let (origin, proxy, _h2) = pair();
    for method in ["POST", "PUT", "PATCH", "PRI", "PRIV", "PROPFIND", "P", "PR"] {
        let head = get(&format!("/{method}")).replacen("GET", method, 1);
        for cut in 1..=method.len() + 2 {
            let mut client = proxy.client();
            client.send(&head[..cut]);
            pause(ms(3));
            client.send(&head[cut..]);
            let response = client.response();
            assert_eq!(response.text(), format!("{method} /{method} 0"), "cut at {cut}");
        }
    }
    // All that a preface begins with, and then something else.
    for wrong in ["PRI * HTTP/1.1\r\nHost: a\r\n\r\n", "PRI /x HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = proxy.client();
        client.send(wrong);
        let status = client.response().status;
        assert!((200..600).contains(&status), "an answer in HTTP/1: {status}");
    }
    drop(origin);
}

#[test]
fn an_upgrade_to_http_2_is_not_taken_and_the_request_is_an_ordinary_one() {
    let (origin, proxy, _h2) = pair();
    let mut client = proxy.client();
    client.send(
        "GET /up HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "GET /up 0".to_owned()));
    let request = origin.wait_started("/up");
    assert_eq!((request.field("upgrade"), request.field("http2-settings")), (None, None));
    client.get("/still");
    assert_eq!(client.response().text(), "GET /still 0");
}

fn requests_are_counted_and_logged_under_their_protocol(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let mut idle = way.connect(&proxy);
    goes_on(&mut idle);
    proxy.wait_count(&["connections", "h2", "idle"], 2);
    let held: Vec<u32> = (0..3).map(|n| h2.get(&format!("/hold/{n}"))).collect();
    for n in 0..3 {
        origin.wait_started(&format!("/hold/{n}"));
    }
    proxy.wait_count(&["connections", "h2", "active"], 1);
    proxy.wait_count(&["connections", "h2", "idle"], 1);
    assert_eq!(in_flight(&proxy), 3.0);
    origin.release_all();
    for stream in held {
        is_served(&mut h2, stream, "held");
    }
    wait_rest(&proxy);
    proxy.wait_count(&["connections", "h2", "idle"], 2);
    proxy.wait_count(&["connections", "h2", "active"], 0);
    let line = proxy.wait_access("/hold/2", |line| line.contains("/hold/2"));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["protocol"], "HTTP/2.0", "{line}");
    assert_eq!((&line["status"], &line["method"]), (&200.into(), &"GET".into()), "{line}");
    assert_eq!(line["bytes_out"], 4, "{line}");
    drop((h2, idle));
    proxy.wait_count(&["connections", "h2", "idle"], 0);
}

#[test]
fn streams_are_answered_as_they_become_ready() {
    let (origin, _proxy, mut h2) = pair();
    let slow = h2.get("/hold/slow");
    let quick: Vec<u32> = (0..50).map(|n| h2.get(&format!("/quick/{n}"))).collect();
    for (n, stream) in quick.into_iter().enumerate() {
        is_served(&mut h2, stream, &format!("GET /quick/{n} 0"));
    }
    assert!(!h2.is_over(slow));
    origin.release_all();
    is_served(&mut h2, slow, "held");
    h2.fence();
    assert!(h2.goaways().is_empty());
}

#[test]
fn an_upload_in_small_pieces_passes_however_fast_it_comes() {
    let (origin, _proxy, mut h2) = pair();
    let body = pattern(120_000);
    let stream = h2.post_head("/small");
    let frames: Vec<Frame> = body.chunks(20).map(|piece| Frame::data(stream, piece)).collect();
    h2.send_all(&frames).send(&Frame::data(stream, []).end());
    is_served(&mut h2, stream, "POST /small 120000");
    assert!(origin.wait_whole("/small").body == body, "octets were changed");
}

#[test]
fn small_messages_that_wait_for_the_app_server_are_not_taken_for_an_attack() {
    let origin = Origin::scripted(|conn, request| {
        if request.target != "/goes/on" {
            conn.hold("read")?;
        }
        crate::support::origin::standard(conn, request)
    });
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let streams: Vec<u32> = (0..4).map(|n| h2.post_head(&format!("/small/{n}"))).collect();
    // What the kernel takes on the way to an app that does not read is no matter.
    fill(&mut h2, &streams, 16_384, 100_000);
    fill(&mut h2, &streams, 64, 0);
    goes_on(&mut h2);
    origin.release("read");
    for stream in streams {
        h2.data(stream, &[], true);
        assert_eq!(h2.response(stream).status, 200, "{}", h2.story());
    }
}

#[test]
fn an_app_server_that_has_answered_and_reads_no_more_is_left_after_the_linger() {
    let origin = Origin::scripted(|conn, _| {
        conn.answer("200 OK", "early")?;
        conn.hold("never")?;
        Ok(Next::Reset)
    });
    let proxy = launch(&origin).stop("linger", "200ms").set("timeouts.body", "300ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    // One that sends more than the app takes, and one that stops sending.
    for more in [true, false] {
        let stream = h2.post_head("/early");
        is_served(&mut h2, stream, "early");
        let piece = vec![b'x'; 16_384];
        while more && h2.so_far(stream).reset.is_none() {
            match h2.room(stream) {
                0 => drop(h2.next_frame().expect("a window or a reset")),
                n => drop(h2.send(&Frame::data(stream, &piece[..n.min(piece.len())]))),
            }
        }
        h2.expect_reset(stream, &[Code::NO_ERROR]);
    }
    wait_rest(&proxy);
}

#[test]
fn a_body_of_no_octets_may_end_late() {
    let (origin, _proxy, mut h2) = pair();
    let held = ask(&mut h2, "POST", "/hold/zero", &[("content-length", "0")], false);
    h2.fence();
    h2.data(held, b"", true);
    origin.wait_whole("/hold/zero");
    origin.release_all();
    is_served(&mut h2, held, "held");
    goes_on(&mut h2);
}

#[test]
fn a_body_longer_than_its_length_never_arrives_whole_however_late_the_rest_comes() {
    let (origin, _proxy, mut h2) = pair();
    let none = ask(&mut h2, "POST", "/none", &[("content-length", "0")], false);
    let some = ask(&mut h2, "POST", "/some", &[("content-length", "5")], false);
    h2.data(some, b"hello", false);
    // Four of its octets are there, and the fifth may be the last or not.
    origin.wait_started("/some");
    h2.fence();
    for stream in [none, some] {
        h2.data(stream, b"!", true);
        h2.expect_reset(stream, &[Code::PROTOCOL_ERROR]);
    }
    goes_on(&mut h2);
    origin.wait_connection_end(origin.requests_for("/some")[0].connection);
    assert!(origin.requests_for("/none").is_empty() && !origin.requests_for("/some")[0].whole);
}

#[test]
fn what_a_client_says_late_on_a_stream_that_is_over_does_no_harm() {
    let (_origin, _proxy, mut h2) = pair();
    let stream = h2.get("/over");
    is_served(&mut h2, stream, "GET /over 0");
    h2.send(&Frame::window_update(stream, 1000)).send(&Frame::rst_stream(stream, Code::CANCEL));
    h2.send(&Frame::priority(stream, 0, 16));
    goes_on(&mut h2);
    let answered = h2.post_head("/curt/10");
    assert_eq!(h2.response(answered).status, 200);
    h2.expect_reset(answered, &[Code::NO_ERROR]);
    // It was under way.
    h2.send(&Frame::data(answered, pattern(10_000))).send(&Frame::data(answered, []).end());
    goes_on(&mut h2);
    let window = h2.post("/sink", &pattern(3 * WINDOW));
    is_served(&mut h2, window, &format!("POST /sink {}", 3 * WINDOW));
}

#[test]
fn an_upload_that_is_answered_and_stands_still_is_over_for_the_proxy() {
    let origin = Origin::scripted(|_, _| Ok(Next::Close));
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.post_head("/stalled");
    let response = h2.response(stream);
    assert_eq!((response.status, response.reset), (502, None), "{response:?}");
    let reset = h2.wait("RST_STREAM", |got| match got {
        Got::Reset { stream, code } => Some((*stream, *code)),
        _ => None,
    });
    assert_eq!(reset, (stream, Code::NO_ERROR));
    proxy.wait_access("the request", |line| line.contains("/stalled"));
    let before = proxy.cpu_time();
    pause(ms(500));
    let spent = proxy.cpu_time() - before;
    assert!(spent < ms(150), "nothing is left to do: {spent:?}");
    let again = h2.get("/again");
    assert_eq!(h2.response(again).status, 502, "the connection goes on");
}
