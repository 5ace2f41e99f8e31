//! Messages pass as they are: methods, bodies of every framing, interim responses,
//! versions, reuse of connections on both sides.

use std::time::Duration;

use crate::support::client::{Client, End, Framing, chunked_head, get, post_head};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::{ms, pattern, pattern_at, pause};

fn pair() -> (Origin, Proxy) {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    (origin, proxy)
}

#[test]
fn get_post_and_head_pass() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.get("/a?b=c%20d");
    assert_eq!(client.response().text(), "GET /a?b=c%20d 0");
    client.post("/p", b"12345");
    assert_eq!(client.response().text(), "POST /p 5");
    client.send("HEAD /bytes/12 HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let response = client.response_to_head();
    assert_eq!((response.status, response.field("content-length")), (200, Some("12")));
    client.send("DELETE /thing HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.response().text(), "DELETE /thing 0");
    client.send("OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let methods: Vec<_> = origin.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["GET", "POST", "HEAD", "DELETE", "OPTIONS"]);
    assert!(origin.requests().iter().all(|r| r.head.start.ends_with(" HTTP/1.1")));
}

#[test]
fn responses_without_a_body_leave_the_connection_usable() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.get("/none");
    let response = client.response();
    assert_eq!((response.status, response.field("content-length")), (204, None));
    client.get("/unmodified");
    let response = client.response();
    assert_eq!((response.status, response.field("etag")), (304, Some("\"1\"")));
    client.get("/after");
    assert_eq!(client.response().text(), "GET /after 0");
}

#[test]
fn chunked_bodies_pass_both_ways_with_their_trailers() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.get("/chunked");
    let response = client.response();
    assert_eq!((response.framing, response.text()), (Framing::Chunked, "hello, world".to_owned()));
    let trailers: Vec<_> = response.trailers.into_iter().map(lower).collect();
    assert_eq!(trailers, [("x-sum".into(), "12".into())]);

    client
        .send(chunked_head("/echo"))
        .send("3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-T: v\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "abc0123456789abcdef");
    let trailers: Vec<_> = response.trailers.into_iter().map(lower).collect();
    assert_eq!(trailers, [("x-t".into(), "v".into())], "though nobody announced them");
    let request = origin.wait_whole("/echo");
    assert_eq!(request.body, b"abc0123456789abcdef");
    assert_eq!(
        request.trailers.into_iter().map(lower).collect::<Vec<_>>(),
        [("x-t".into(), "v".into())]
    );
}

fn lower((name, value): (String, String)) -> (String, String) {
    (name.to_ascii_lowercase(), value)
}

#[test]
fn chunks_pass_as_they_come() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.send(chunked_head("/sink")).send("5\r\nfirst\r\n");
    origin.wait_started("/sink");
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), "POST /sink 5");

    client.get("/part/chunked");
    assert!(client.head().lists("transfer-encoding", "chunked"));
    client.octets(5);
    origin.release_all();
}

#[test]
fn response_that_ends_with_its_connection_becomes_chunked() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.get("/close");
    let response = client.response();
    assert_eq!(response.text(), "until the end");
    assert_eq!(response.framing, Framing::Chunked, "so that its end is seen to be one");
    client.get("/after");
    assert_eq!(client.response().text(), "GET /after 0");
}

#[test]
fn old_clients_get_neither_chunks_nor_interim_responses() {
    let origin = Origin::scripted(|conn, request| {
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        crate::support::origin::standard(conn, request)
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send("GET /chunked HTTP/1.0\r\nHost: app.test\r\n\r\n");
    let response = client.response();
    assert!(response.interim.is_empty());
    assert_eq!((response.framing, response.text()), (Framing::Close, "hello, world".to_owned()));
    assert_eq!(client.end(), End::Eof);

    let mut client = proxy.client();
    client.send("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "GET /x 0");
    assert!(response.head.lists("connection", "keep-alive") || response.says_close());
    assert!(origin.requests().iter().all(|r| r.head.start.ends_with(" HTTP/1.1")));
}

#[test]
fn old_client_without_keep_alive_is_closed() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.send("GET /x HTTP/1.0\r\nHost: app.test\r\n\r\n");
    assert_eq!(client.response().text(), "GET /x 0");
    assert_eq!(client.end(), End::Eof);
}

#[test]
fn client_that_says_close_is_closed_after_its_response() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.send("GET /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    assert!(client.response().says_close());
    assert_eq!(client.end(), End::Eof);
}

#[test]
fn client_that_sent_its_fin_still_gets_its_response() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    origin.wait_started("/hold");
    origin.release_all();
    client.half_close();
    assert_eq!(client.response().text(), "held");
}

#[test]
fn client_that_only_sent_its_fin_is_waited_for_a_while() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.get("/think/1500");
    client.half_close();
    let response = client.response();
    assert_eq!((response.status, client.end()), (200, End::Eof));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    let targets: Vec<String> = (0..50).map(|n| format!("/n/{n}")).collect();
    client.send(targets.iter().map(|t| get(t)).collect::<String>());
    for target in &targets {
        assert_eq!(client.response().text(), format!("GET {target} 0"));
    }
    let seen: Vec<_> = origin.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(seen, targets);
}

#[test]
fn pipelined_posts_keep_their_bodies() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    let first = [post_head("/echo", 5), "first".into()].concat();
    let second = [chunked_head("/echo"), "6\r\nsecond\r\n0\r\n\r\n".into()].concat();
    client.send([first, second, get("/third")].concat());
    assert_eq!(client.response().text(), "first");
    assert_eq!(client.response().text(), "second");
    assert_eq!(client.response().text(), "GET /third 0");
}

#[test]
fn connections_are_used_again_on_both_sides() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .set("upstream.idle_timeout", "60s")
        .arg("--workers")
        .arg("1")
        .start();
    let mut client = proxy.client();
    for n in 0..50 {
        client.get(&format!("/{n}"));
        let response = client.response();
        assert_eq!((response.status, response.says_close()), (200, false));
    }
    let mut other = proxy.client();
    other.get("/other");
    other.response();
    assert_eq!(origin.connections(), 1);
}

#[test]
fn head_that_comes_octet_by_octet_is_understood() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    for octet in [post_head("/echo", 3).as_bytes(), b"abc"].concat() {
        client.send([octet]);
    }
    assert_eq!(client.response().text(), "abc");
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
    let proxy = Launch::before(&origin).start();
    let expecting = |target| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
    };
    let mut client = proxy.client();
    client.send(expecting("/take"));
    let request = origin.wait_started("/take");
    assert_eq!(request.field("expect"), Some("100-continue"));
    client.hears_nothing_for(ms(50));
    origin.release("continue");
    assert!(client.head().start.contains("100"), "from the origin, not from us");
    client.send("body");
    let response = client.response();
    assert_eq!((response.status, response.text()), (201, "body".to_owned()));

    let mut client = proxy.client();
    client.send(expecting("/refuse"));
    let response = client.response();
    assert_eq!((response.status, response.interim.len()), (417, 0));
}

#[test]
fn early_hints_pass() {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n")?;
        conn.answer("200 OK", "page")
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    for _ in 0..2 {
        client.get("/");
        let response = client.response();
        assert_eq!(response.text(), "page");
        assert_eq!(response.interim.len(), 2);
        assert_eq!(response.interim[0].field("link"), Some("</a.css>; rel=preload"));
    }
}

#[test]
fn response_may_come_before_the_request_is_whole() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.send(post_head("/early/1000", 1_000_000)).send(pattern(5000));
    let response = client.response();
    assert_eq!((response.status, response.body), (200, pattern(1000)));
}

#[test]
fn large_uploads_pass_octet_by_octet() {
    let (origin, proxy) = pair();
    let body = pattern(10_000_000);
    let mut client = proxy.client();
    client.post("/sink", &body);
    assert_eq!(client.response().text(), "POST /sink 10000000");
    assert!(origin.wait_whole("/sink").body == body, "the octets are the same");
}

#[test]
fn slow_reader_gets_every_octet_and_costs_no_memory() {
    const LEN: usize = 10_000_000;
    let (_origin, proxy) = pair();
    drop(proxy.idle_client());
    let before = proxy.rss();
    let mut client = Client::connect_narrow(&proxy.place(), 16 * 1024);
    client.get(&format!("/bytes/{LEN}"));
    let head = client.head();
    assert_eq!(head.field("content-length"), Some("10000000"));
    // Time for the proxy to read ahead, if it were to.
    pause(ms(300));
    let grown = proxy.rss().saturating_sub(before);
    let mut at = 0;
    while at < LEN {
        let piece = client.octets(100_000.min(LEN - at));
        assert!(
            piece.iter().enumerate().all(|(i, octet)| *octet == pattern_at(at + i)),
            "near {at}"
        );
        at += piece.len();
    }
    assert!(grown < 8 << 20, "a body in memory: {grown}");
}

#[test]
fn slow_app_server_holds_the_upload_back() {
    const LEN: usize = 10_000_000;
    let origin = Origin::scripted(|conn, _| {
        conn.hold("read")?;
        let read = conn.body()?.body.len();
        conn.answer("200 OK", read.to_string())
    });
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    let before = proxy.rss();
    let writer = std::thread::spawn(move || {
        client.wire.write_bound(Duration::from_secs(60));
        client.post("/up", &pattern(LEN));
        client.response().text()
    });
    origin.wait_started("/up");
    pause(ms(300));
    let grown = proxy.rss().saturating_sub(before);
    origin.release("read");
    assert_eq!(writer.join().unwrap(), LEN.to_string());
    assert!(grown < 8 << 20, "a body in memory: {grown}");
}

#[test]
fn unix_sockets_work_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::unix(&dir.path().join("app.sock"));
    let front = format!("unix:{},mode=0600", dir.path().join("front.sock").display());
    let proxy = Launch::before(&origin).listen(&front).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.post("/echo", &pattern(50_000));
        assert_eq!(client.response().body, pattern(50_000));
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(dir.path().join("front.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn access_log_says_what_was_served() {
    let (_origin, proxy) = pair();
    let mut client = proxy.client();
    client.send("GET /logged?secret=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-1\r\n\r\n");
    client.response();
    let line = proxy.wait_access("of the request", |line| line.contains("/logged"));
    for part in ["GET", "200", "abc-1"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("secret"), "the query is not logged: {line}");
    assert!(proxy.access_log().iter().all(serde_json::Value::is_object));
}

#[test]
fn many_clients_at_once_each_get_their_own_answer() {
    let (_origin, proxy) = pair();
    let clients: Vec<_> = (0..16)
        .map(|c| {
            let mut client = proxy.client();
            std::thread::spawn(move || {
                for n in 0..50 {
                    client.post(&format!("/{c}/{n}"), &pattern(n));
                    assert_eq!(client.response().text(), format!("POST /{c}/{n} {n}"));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}
