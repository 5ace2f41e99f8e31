//! Where the app server, or the client, may see another end of a message than the
//! proxy does: then nothing of it reaches anybody else.

use crate::support::client::{Client, End, contains};
use crate::support::h2::H2;
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::{ms, pause};

fn before(origin: &Origin) -> Proxy {
    // One worker, so that there is one pool.
    Launch::before(origin).set("upstream.idle_timeout", "60s").arg("--workers").arg("1").start()
}

/// An app that refuses what asks for leave, and takes whatever comes next for a request.
fn curt() -> Origin {
    Origin::scripted(|conn, request| {
        if request.target == "/leave" {
            conn.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")?;
            // Its body is not read: the next octets are the next request.
            conn.forget_body();
            return Ok(Next::KeepAlive);
        }
        let said = request.head.start.clone();
        conn.answer("200 OK", said)
    })
}

/// What a client hides in a body: a request, and the beginning of another.
const HIDDEN: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\nGET /eats HTTP/1.1\r\nX-Eat: ";

#[test]
fn body_of_a_request_that_was_answered_instead_reaches_nobody() {
    let origin = curt();
    let proxy = before(&origin);
    let mut client = proxy.client();
    let length = HIDDEN.len();
    client.send(format!(
        "POST /leave HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    ));
    assert_eq!(client.response().status, 417);
    let _late = client.try_send(HIDDEN);
    let mut other = proxy.client();
    other.get("/victim");
    assert_eq!(other.response().text(), "GET /victim HTTP/1.1");
    client.half_close();
    origin.wait_connection_end(0);
    assert!(origin.requests_for("/evil").is_empty());
    let connection = |target: &str| origin.requests_for(target)[0].connection;
    assert_ne!(connection("/leave"), connection("/victim"));
}

#[test]
fn connection_of_an_app_that_answers_before_it_was_asked_is_not_used_again() {
    let origin = curt();
    let proxy = before(&origin);
    let mut client = proxy.client();
    let length = HIDDEN.len();
    client.send(format!("POST /leave HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(client.response().status, 417);
    client.send(HIDDEN);
    let mut other = proxy.client();
    other.get("/victim");
    assert_eq!(other.response().text(), "GET /victim HTTP/1.1");
    let connection = |target: &str| origin.requests_for(target)[0].connection;
    assert_ne!(connection("/leave"), connection("/victim"));
}

#[test]
fn stream_that_has_not_ended_takes_no_connection_and_no_answer_of_others() {
    let origin = Origin::scripted(|conn, request| {
        conn.answer("200 OK", "first")?;
        if request.target == "/first" {
            conn.hold("second")?;
            conn.answer("200 OK", "second")?;
            conn.send("")?;
        }
        Ok(Next::KeepAlive)
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.get("/first");
    assert_eq!(client.response().text(), "first");
    let mut h2 = H2::connect(&proxy.place());
    let stream = h2.fresh_stream();
    let mut fields = h2.pseudo("POST", "/none");
    fields.push(("content-length".into(), "0".into()));
    h2.send_fields(stream, &fields, false);
    h2.fence();
    origin.release("second");
    // The forged answer has gone out before anything is asked.
    origin.wait_connection_end(0);
    h2.data(stream, b"", true);
    let response = h2.response(stream);
    assert_eq!((response.status, response.text().as_str()), (200, "first"));
    assert_eq!(origin.requests_for("/none")[0].connection, 1);
}

#[test]
fn trailers_that_others_end_elsewhere_end_the_connection_whoever_answers() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    for section in
        ["X: y\n\r\nGET /two HTTP/1.1\r\nHost: h\r\n\r\n", "bad\r\n\r\n", "X : y\r\n\r\n"]
    {
        let mut client = proxy.client();
        client.send(format!(
            "OPTIONS /one HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n{section}"
        ));
        assert!(client.response().says_close(), "{section:?}");
        let _late = client.try_send("GET /three HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(client.rest().1.is_empty(), "{section:?}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn trailers_that_are_none_are_no_clean_end_for_an_old_client_either() {
    let origin = Origin::scripted(|conn, _| {
        conn.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nbad\r\n\r\n",
        )?;
        Ok(Next::KeepAlive)
    });
    let proxy = before(&origin);
    for n in 0..2 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let (end, got) = client.rest();
        let cut = end == End::Reset || contains(&got, "502");
        assert!(cut, "{end:?} after {:?}", String::from_utf8_lossy(&got));
        assert_eq!(origin.wait_connection_end(n).0, End::Eof, "it is not used again");
    }
}

#[test]
fn refusal_of_a_head_request_has_no_body() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    for (octets, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n".to_owned(), 400),
        ("HEAD / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        (format!("HEAD / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(200)), 431),
    ] {
        let mut client: Client = proxy.client();
        client.send(octets);
        let head = client.head();
        assert!(head.start.contains(&status.to_string()), "{head:?}");
        assert_eq!(client.rest(), (End::Eof, Vec::new()), "{head:?}");
    }
}

#[test]
fn endpoint_that_closes_before_it_was_asked_is_passed_over() {
    let closes = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = closes.local_addr().unwrap().to_string();
    std::thread::spawn(move || closes.incoming().for_each(drop));
    let origin = Origin::new();
    let proxy = Launch::before(&origin).arg("--upstream").arg(place).start();
    // Whether the end comes before the request is written is a matter of luck.
    let passed_over = (0..500).any(|n| {
        let mut client = proxy.client();
        client.post(&format!("/n/{n}"), b"body");
        client.response();
        let line = proxy.wait_access("the request", |line| line.contains(&format!("/n/{n}\"")));
        line.contains("\"retries\":1") && line.contains("\"status\":200")
    });
    assert!(passed_over, "no request went to the other one");
}

#[test]
fn carriage_return_on_an_idle_connection_is_nothing() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().stop("idle_grace", "300ms").start();
    let mut client = proxy.client();
    for part in ["\r", "\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r"] {
        client.send(part);
        // Long enough for it to be parked in between.
        pause(ms(250));
    }
    assert_eq!(client.response().text(), "GET /one 0");
    proxy.wait_connections("idle", 1);
    let began = proxy.terminate();
    assert_eq!(client.end(), End::Eof);
    let exit = proxy.wait_clean_exit();
    assert!(exit.at.duration_since(began) < ms(3000), "it held the drain");
    assert_eq!(proxy.reported("cut_total"), 0);
}

#[test]
fn carriage_return_before_a_request_is_still_seen_when_the_rest_comes_late() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.client();
    client.send("\r");
    pause(ms(250));
    client.get("/late");
    assert_eq!(client.response().status, 400);
    assert!(origin.requests().is_empty());
}
