//! The hard deadline: what is left is cut, never ends cleanly, and is named.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::{Client, End, Response, post_head};
use crate::support::origin::{Crowd, HALVES, Origin};
use crate::support::process::{Event, Launch, Proxy};
use crate::support::{ms, pause};

fn start(origin: &Origin, drain_timeout: &str) -> Proxy {
    Launch::before(origin)
        .admin()
        .stop("drain_timeout", drain_timeout)
        .stop("idle_grace", "100ms")
        .stop("first_request_grace", "100ms")
        .start()
}

/// The one request that was cut.
#[track_caller]
fn the_cut(proxy: &Proxy) -> Event {
    assert_eq!(proxy.wait_exit().code(), 3, "a cut request shows in the exit status");
    let cut = proxy.events("request_cut");
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert_eq!(proxy.reported("cut"), 1);
    cut[0].clone()
}

fn is_gateway_timeout(response: &Response) {
    assert_eq!(response.status, 504);
    assert!(response.says_close());
    assert_eq!(response.field("retry-after"), None, "it may have been executed");
    assert!(response.field("proxy-status").is_some(), "{:?}", response.head);
}

#[test]
fn request_never_handed_over_is_told_to_try_again() {
    let crowd = Crowd::new();
    let proxy = Launch::before_addr(&crowd.place().to_string())
        .admin()
        .set("upstream.connect_timeout", "60s")
        .stop("drain_timeout", "500ms")
        .start();
    let mut client = proxy.client();
    client.get("/waits");
    proxy.wait_connections("active", 1);
    let told = proxy.terminate();
    let response = client.response();
    assert!(told.elapsed() >= ms(500), "not before the deadline: {:?}", told.elapsed());
    assert_eq!(response.status, 503);
    assert!(response.says_close());
    assert!(response.field("retry-after").is_some(), "{:?}", response.head);
    assert_eq!(client.end(), End::Eof);
    drop(client);
    let cut = the_cut(&proxy);
    assert_eq!(cut.text("target"), "/waits");
    assert_eq!(cut.fields["sent_upstream"], false);
}

#[test]
fn request_handed_over_and_not_answered_is_a_gateway_timeout() {
    let origin = Origin::new();
    let proxy = start(&origin, "500ms");
    let mut client = proxy.client();
    client.send(
        "GET /hold/x?secret=1 HTTP/1.1\r\nHost: app.test\r\nX-Request-Id: order-4711\r\n\r\n",
    );
    let request = origin.wait_request("the order", |r| r.target.starts_with("/hold/x"));
    let told = proxy.terminate();
    let response = client.response();
    assert!(told.elapsed() >= ms(500), "not before the deadline: {:?}", told.elapsed());
    is_gateway_timeout(&response);
    assert_eq!(client.end(), End::Eof);
    let ours = client.wire.sock.local_addr().unwrap().as_socket().unwrap().to_string();
    drop(client);

    let cut = the_cut(&proxy);
    assert_eq!(cut.text("method"), "GET");
    assert_eq!(cut.text("target"), "/hold/x", "without its query");
    assert!(ours.starts_with(cut.text("client")), "{ours} or its address: {}", cut.fields);
    assert_eq!(cut.text("upstream"), origin.place().to_string());
    assert_eq!(cut.text("request_id"), "order-4711");
    assert_eq!(request.field("x-request-id"), Some("order-4711"));
    assert_eq!(cut.fields["sent_upstream"], true);
    assert!(cut.number("age_ms") >= 500, "{}", cut.fields);
    cut.number("bytes_in");
    cut.number("bytes_out");
    cut.text("protocol");
}

#[test]
fn what_was_cut_is_named_in_the_drain_report() {
    let origin = Origin::new();
    let proxy = start(&origin, "300ms");
    let mut client = proxy.client();
    client.get("/hold/7");
    origin.wait_started("/hold/7");
    proxy.terminate();
    is_gateway_timeout(&client.response());
    drop(client);
    let report = proxy.drain_report().to_string();
    for name in ["/hold/7", "GET", &origin.place().to_string()] {
        assert!(report.contains(name), "{name} in {report}");
    }
}

#[test]
fn queries_are_logged_where_the_operator_wants_them() {
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).set("log.query", "true").stop("drain_timeout", "200ms").start();
    let mut client = proxy.client();
    client.get("/hold?q=1");
    origin.wait_started("/hold?q=1");
    proxy.terminate();
    is_gateway_timeout(&client.response());
    drop(client);
    assert_eq!(the_cut(&proxy).text("target"), "/hold?q=1");
}

#[test]
fn request_that_is_cut_is_cancelled_upstream() {
    let origin = Origin::new();
    let proxy = start(&origin, "300ms");
    let mut client = proxy.client();
    client.get("/hold");
    let request = origin.wait_started("/hold");
    proxy.terminate();
    origin.wait_connection_end(request.connection);
    is_gateway_timeout(&client.response());
}

#[test]
fn upload_cut_in_the_middle_is_a_gateway_timeout() {
    let origin = Origin::new();
    let proxy = start(&origin, "300ms");
    let mut client = proxy.client();
    client.send(post_head("/up", 100)).send("only this");
    origin.wait_started("/up");
    proxy.terminate();
    is_gateway_timeout(&client.response());
    assert_eq!(client.end(), End::Eof);
    drop(client);
    assert_eq!(the_cut(&proxy).text("method"), "POST");
}

/// Cuts a response in its middle; how the client saw it end, and what came after the head.
fn cut_in_the_middle(framing: &str, version: &str) -> (End, Vec<u8>) {
    let origin = Origin::new();
    let proxy = start(&origin, "300ms");
    let mut client = proxy.client();
    let target = format!("/part/{framing}");
    client.send(format!("GET {target} HTTP/{version}\r\nHost: app.test\r\n\r\n"));
    client.head();
    proxy.terminate();
    let ended = client.rest();
    drop(client);
    let cut = the_cut(&proxy);
    assert_eq!(cut.text("target"), target);
    assert_eq!(cut.fields["sent_upstream"], true);
    ended
}

#[test]
fn cut_response_with_a_length_falls_short_of_it() {
    let (end, body) = cut_in_the_middle("length", "1.1");
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    assert_eq!(body, HALVES[0].as_bytes());
}

#[test]
fn cut_chunked_response_has_no_terminator() {
    let (end, body) = cut_in_the_middle("chunked", "1.1");
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains(HALVES[0]), "{text:?}");
    assert!(!text.contains("\r\n0\r\n"), "it ends as if it were whole: {text:?}");
}

#[test]
fn cut_response_that_ends_with_its_connection_is_reset() {
    let (end, _) = cut_in_the_middle("close", "1.0");
    assert_eq!(end, End::Reset);
    let (end, _) = cut_in_the_middle("chunked", "1.0");
    assert_eq!(end, End::Reset);
}

#[test]
fn every_request_that_is_cut_is_named() {
    let origin = Origin::new();
    let proxy = start(&origin, "300ms");
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/hold/{n}"));
        origin.wait_started(&format!("/hold/{n}"));
    }
    proxy.terminate();
    for client in &mut clients {
        is_gateway_timeout(&client.response());
    }
    drop(clients);
    assert_eq!(proxy.wait_exit().code(), 3);
    let mut named: Vec<_> =
        proxy.events("request_cut").iter().map(|event| event.text("target").to_owned()).collect();
    named.sort();
    assert_eq!(named, (0..10).map(|n| format!("/hold/{n}")).collect::<Vec<_>>());
    assert_eq!(proxy.reported("cut"), 10);
}

#[test]
fn request_whose_response_ends_in_time_is_not_cut() {
    let origin = Origin::new();
    let proxy = start(&origin, "30s");
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    proxy.terminate();
    proxy.wait_phase("draining");
    origin.release_all();
    assert_eq!(client.response().status, 200);
    drop(client);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("cut"), 0);
    assert!(
        !proxy.phases().contains(&"cutting".to_owned()) || proxy.events("request_cut").is_empty()
    );
}

#[test]
fn later_signal_skips_to_cutting() {
    let origin = Origin::new();
    let proxy = start(&origin, "120s");
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    proxy.terminate();
    proxy.wait_phase("draining");
    pause(Duration::from_millis(1200));
    proxy.terminate();
    is_gateway_timeout(&client.response());
    drop(client);
    the_cut(&proxy);
}

#[test]
fn signals_within_a_second_of_the_first_are_the_same_request() {
    let origin = Origin::new();
    let proxy = start(&origin, "120s");
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    // On a machine so busy that the second takes longer, it would be a later one.
    let first = proxy.terminate();
    proxy.signal(Signal::INT);
    proxy.terminate();
    let together = first.elapsed() < ms(500);
    proxy.wait_phase("draining");
    client.hears_nothing_for(ms(300));
    origin.release_all();
    assert!(together, "the machine is too busy to send two signals within a second");
    assert_eq!(client.response().status, 200);
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn third_signal_ends_the_process() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .stop("drain_timeout", "120s")
        .stop("linger", "120s")
        .stop("cut_timeout", "120s")
        .start();
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    proxy.terminate();
    proxy.wait_phase("draining");
    pause(Duration::from_millis(1200));
    proxy.try_signal(Signal::TERM);
    is_gateway_timeout(&client.response());
    // The connection lingers, since this client does not end it.
    pause(ms(100));
    proxy.try_signal(Signal::TERM);
    assert_eq!(proxy.wait_exit().code(), 3);
    drop(client);
}

#[test]
fn third_signal_names_what_it_ended() {
    for pause_between in [0, 1, 5, 20] {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).stop("drain_timeout", "120s").start();
        let mut client = proxy.client();
        client.get("/hold-named");
        origin.wait_started("/hold-named");
        proxy.terminate();
        proxy.wait_phase("draining");
        pause(Duration::from_millis(1200));
        proxy.try_signal(Signal::INT);
        pause(ms(pause_between));
        proxy.try_signal(Signal::QUIT);
        assert_eq!(proxy.wait_exit().code(), 3);
        // The last line, with everything in it.
        let report = proxy.drain_report();
        let cut = report["cut"].as_array().expect("a list");
        assert_eq!(cut.len(), 1, "{report}");
        assert_eq!(cut[0]["target"], "/hold-named");
        assert_eq!(report["cut_total"], 1);
        assert_eq!(proxy.events("request_cut").len(), 1);
        drop(client);
    }
}
