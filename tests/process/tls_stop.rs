//! The stop over TLS: every fresh and half-shaken cell of the contract's table,
//! and what differs from clear text in the others.

use std::time::Duration;

use crate::support::client::get;
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::tls::{Manner, TlsClient, TlsEnd};
use crate::support::{PATIENCE, ms, within};

/// Graces so long that a test which waits for their end fails.
const LONG: &str = "60s";

fn start(origin: &Origin) -> Proxy {
    Launch::before(origin)
        .tls()
        .admin()
        .set("timeouts.tls_handshake", LONG)
        .stop("first_request_grace", LONG)
        .stop("idle_grace", LONG)
        .stop("drain_timeout", "120s")
        .start()
}

/// SIGTERM, and the moment from which every connection is asked to end.
fn drain(proxy: &Proxy) {
    proxy.terminate();
    proxy.wait_phase("draining");
}

/// A whole answer that says that it is the last one, and the end that it announced.
#[track_caller]
fn is_last_answer(client: &mut TlsClient) -> String {
    let response = client.response();
    assert!(response.says_close(), "the client is told: {:?}", response.head);
    assert_eq!(client.end(), TlsEnd::Clean);
    response.text()
}

/// Where a client stands when the process is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    BeforeHello,
    InHello,
    AfterHello,
    Shaken,
}

use Stands::{AfterHello, BeforeHello, InHello, Shaken};

const ALL: [Stands; 4] = [BeforeHello, InHello, AfterHello, Shaken];

/// A client that has come so far; what it sends next to go on.
fn stand(proxy: &Proxy, stands: Stands) -> (TlsClient, Vec<u8>) {
    let mut client = Manner::new().connect(&proxy.tls_place());
    let mut next = Vec::new();
    match stands {
        BeforeHello => {}
        InHello => {
            let hello = client.take_flight();
            client.send_raw(&hello[..hello.len() / 2]);
            next = hello[hello.len() / 2..].to_vec();
        }
        AfterHello => {
            client.take_flight_out();
            client.read_flight();
            next = client.take_flight();
        }
        Shaken => {
            client.shake().unwrap();
        }
    }
    (client, next)
}

#[test]
fn whoever_goes_on_within_the_grace_is_served() {
    for stands in ALL {
        let origin = Origin::new();
        let proxy = start(&origin);
        let (mut client, next) = stand(&proxy, stands);
        proxy.wait_connections("fresh", 1);
        drain(&proxy);
        if stands == Shaken {
            client.hears_nothing_for(ms(100));
        } else {
            assert!(!client.has_end_within(ms(100)), "{stands:?}");
        }
        client.send_raw(&next);
        client.get("/first");
        assert_eq!(is_last_answer(&mut client), "GET /first 0", "{stands:?}");
        drop(client);
        proxy.wait_clean_exit();
    }
}

#[test]
fn whoever_does_not_go_on_is_ended_after_the_grace() {
    for stands in ALL {
        let origin = Origin::new();
        let proxy = Launch::before(&origin)
            .tls()
            .admin()
            .stop("first_request_grace", "400ms")
            .stop("drain_timeout", "60s")
            .start();
        let (mut client, _) = stand(&proxy, stands);
        proxy.wait_connections("fresh", 1);
        let told = proxy.terminate();
        client.wait_end();
        assert!(told.elapsed() >= ms(400), "{stands:?}, early: {:?}", told.elapsed());
        drop(client);
        let exit = proxy.wait_clean_exit();
        let took = exit.at.duration_since(told);
        assert!(took < Duration::from_secs(5), "{stands:?}, at its bound: {took:?}");
        assert_eq!(proxy.reported("raced"), 0, "{stands:?}");
    }
}

#[test]
fn each_milestone_has_the_grace_anew() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .tls()
        .admin()
        .stop("first_request_grace", "1s")
        .stop("drain_timeout", "60s")
        .start();
    let (mut client, next) = stand(&proxy, InHello);
    proxy.wait_connections("fresh", 1);
    drain(&proxy);
    crate::support::pause(ms(600));
    client.send_raw(&next);
    client.read_flight();
    let next = client.take_flight();
    crate::support::pause(ms(600));
    client.send_raw(&next);
    crate::support::pause(ms(600));
    client.get("/at-last");
    assert_eq!(is_last_answer(&mut client), "GET /at-last 0");
}

#[test]
fn octets_of_a_client_hello_do_not_prolong_the_grace() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .tls()
        .admin()
        .stop("first_request_grace", "400ms")
        .stop("drain_timeout", "60s")
        .start();
    let (mut client, next) = stand(&proxy, InHello);
    proxy.wait_connections("fresh", 1);
    let told = proxy.terminate();
    let mut octets = next.iter();
    while !client.has_news() {
        client.send_raw(&[*octets.next().expect("it ends before the ClientHello does")]);
        crate::support::pause(ms(20));
    }
    assert!(told.elapsed() >= ms(400) && told.elapsed() < ms(3000), "{:?}", told.elapsed());
    let hung = proxy.wait_event("client_hung");
    assert_eq!(hung.text("what"), "did not finish its TLS handshake");
}

#[test]
fn the_hard_deadline_ends_a_handshake() {
    for stands in ALL {
        let origin = Origin::new();
        let proxy = Launch::before(&origin)
            .tls()
            .admin()
            .stop("first_request_grace", "300s")
            .stop("drain_timeout", "400ms")
            .start();
        let (mut client, _) = stand(&proxy, stands);
        proxy.wait_connections("fresh", 1);
        let told = proxy.terminate();
        client.wait_end();
        let exit = proxy.wait_clean_exit();
        let took = exit.at.duration_since(told);
        assert!(took >= ms(400) && took < Duration::from_secs(4), "{stands:?}: {took:?}");
    }
}

#[test]
fn connections_in_the_accept_queue_are_served() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let place = proxy.tls_place();
    let mut clients = Vec::new();
    proxy.terminate_frozen(ms(0), || {
        clients = (0..10).map(|_| Manner::new().connect(&place)).collect();
    });
    proxy.wait_phase("draining");
    for client in &mut clients {
        client.get("/queued");
        assert_eq!(is_last_answer(client), "GET /queued 0");
    }
    drop(clients);
    proxy.wait_clean_exit();
}

#[test]
fn idle_connection_is_used_once_more_within_the_grace() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.idle_tls_client();
    proxy.wait_connections("idle", 1);
    drain(&proxy);
    client.hears_nothing_for(ms(100));
    client.get("/again");
    assert_eq!(is_last_answer(&mut client), "GET /again 0");
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn idle_connection_is_ended_by_close_notify_and_fin_after_the_grace() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().stop("idle_grace", "300ms").start();
    let mut client = proxy.idle_tls_client();
    let told = proxy.terminate();
    assert_eq!(client.end(), TlsEnd::Clean);
    assert!(told.elapsed() >= ms(300), "the grace was not given: {:?}", told.elapsed());
    drop(client);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
}

#[test]
fn last_look_finds_requests_that_came_before_the_signal() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().stop("idle_grace", "0s").start();
    let mut clients: Vec<TlsClient> = (0..20).map(|_| proxy.idle_tls_client()).collect();
    proxy.terminate_frozen(ms(0), || {
        for client in &mut clients {
            client.get("/look");
        }
    });
    for client in &mut clients {
        assert_eq!(client.response().text(), "GET /look 0");
        assert_eq!(client.end(), TlsEnd::Clean);
    }
    drop(clients);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
}

/// Whether something that a client sends on a connection retired under it counts.
fn raced(late: impl Fn(&mut TlsClient)) -> u64 {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().stop("idle_grace", "0s").start();
    let mut client = proxy.idle_tls_client();
    proxy.terminate();
    within(PATIENCE, "the end", || client.has_news().then_some(()));
    late(&mut client);
    proxy.wait_clean_exit();
    assert!(origin.requests_for("/raced").is_empty());
    proxy.reported("raced")
}

#[test]
fn a_request_after_our_end_is_counted_as_raced_and_an_alert_is_not() {
    // It is read for a moment after the FIN; a busy machine may miss that.
    let counted = (0..5).any(|_| {
        raced(|client| {
            let _ = client.try_send(get("/raced"));
        }) == 1
    });
    assert!(counted);
    for _ in 0..3 {
        let quiet = raced(|client| {
            client.conn.send_close_notify();
            let _ = std::io::Write::flush(client);
        });
        assert_eq!(quiet, 0, "a close_notify is no request");
    }
}

#[test]
fn pipelined_request_of_which_half_a_record_has_come_is_answered() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.tls_client();
    client.get("/hold");
    origin.wait_started("/hold");
    std::io::Write::write_all(&mut client.conn.writer(), get("/second").as_bytes()).unwrap();
    let record = client.take_flight();
    client.send_raw(&record[..20]);
    drain(&proxy);
    origin.release("/hold");
    let response = client.response();
    assert_eq!(response.text(), "held");
    assert!(!response.says_close(), "octets of a further request are there");
    client.send_raw(&record[20..]);
    assert_eq!(is_last_answer(&mut client), "GET /second 0");
}

#[test]
fn a_response_cut_at_the_hard_deadline_has_no_close_notify() {
    for framing in ["length", "chunked", "close"] {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).tls().stop("drain_timeout", "300ms").start();
        let mut client = proxy.tls_client();
        client.get(&format!("/part/{framing}"));
        client.head();
        proxy.terminate();
        let (end, _) = client.rest();
        assert!(matches!(end, TlsEnd::Truncated | TlsEnd::Reset), "{framing}: {end:?}");
        drop(client);
        assert_eq!(proxy.wait_exit().code(), 3);
        assert_eq!(proxy.events("request_cut").len(), 1);
    }
}

#[test]
fn a_request_not_answered_at_the_hard_deadline_is_told_so_with_a_clean_end() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().stop("drain_timeout", "300ms").start();
    let mut client = proxy.tls_client();
    client.get("/hold");
    origin.wait_started("/hold");
    proxy.terminate();
    let response = client.response();
    assert_eq!(response.status, 504);
    assert!(response.says_close());
    assert_eq!(client.end(), TlsEnd::Clean);
    drop(client);
    assert_eq!(proxy.wait_exit().code(), 3);
}
