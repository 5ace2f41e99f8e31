//! Connections of HTTP/1: between requests, behind a response, with octets ahead.

use std::sync::atomic::{AtomicBool, Ordering};

use ebbtide::telemetry::{ConnectionState, MovedKind};

use crate::rig::Side;
use crate::support::client::{Client, get};
use crate::support::origin::Origin;

/// An elder and a successor, each with an app server of its own.
struct Pair {
    apps: [Origin; 2],
    elder: Side,
    successor: Side,
}

impl Pair {
    fn new(set: &[&str]) -> Pair {
        let apps = [Origin::new(), Origin::new()];
        let [elder, successor] = apps.each_ref().map(|app| Side::before(app.place(), set));
        Pair { apps, elder, successor }
    }

    fn client(&self) -> Client {
        Client::connect(self.elder.place())
    }

    /// Nothing is left in the elder, and it has closed nobody.
    fn assert_gone(&self) {
        self.elder.wait_alive(0);
        assert_eq!(self.elder.closed(), 0);
    }
}

#[test]
fn who_waits_for_nothing_goes_on_in_the_successor() {
    let mut pair = Pair::new(&[]);
    let mut clients: Vec<_> = (0..40).map(|_| pair.client()).collect();
    for client in &mut clients[20..] {
        assert_eq!(client.get("/first").response().status, 200);
    }
    pair.elder.wait_state(ConnectionState::H1Idle, 20);
    pair.elder.wait_state(ConnectionState::H1Fresh, 20);
    pair.elder.tell_moves();
    let kinds = pair.elder.hand_over(&pair.successor, 40);
    assert_eq!(kinds.iter().filter(|kind| **kind == MovedKind::H1Fresh).count(), 20);
    pair.assert_gone();
    pair.successor.wait_state(ConnectionState::H1Fresh, 20);
    for client in &mut clients {
        for _ in 0..2 {
            let response = client.get("/second").response();
            assert_eq!((response.status, response.says_close()), (200, false));
        }
    }
    assert_eq!(pair.apps[1].requests_for("/second").len(), 80);
    assert!(pair.apps[0].requests_for("/second").is_empty());
}

#[test]
fn who_is_served_moves_behind_his_response_with_what_he_has_sent_ahead() {
    let mut pair = Pair::new(&[]);
    let mut client = pair.client();
    let half = get("/third");
    let (front, back) = half.split_at(20);
    client.send(format!("{}{}{front}", get("/hold"), get("/second")));
    pair.apps[0].wait_started("/hold");
    pair.elder.tell_moves();
    assert!(pair.elder.try_departure().is_none());
    pair.apps[0].release("/hold");
    let first = client.response();
    assert_eq!((first.text().as_str(), first.says_close()), ("held", false));
    let departure = pair.elder.departure();
    assert_eq!(departure.kind, MovedKind::H1Active);
    let ahead = String::from_utf8_lossy(&departure.parcel.octets).into_owned();
    assert!(format!("{}{front}", get("/second")).starts_with(&ahead), "{ahead:?}");
    pair.successor.deliver(departure);
    pair.assert_gone();
    assert_eq!(client.response().text(), "GET /second 0");
    client.send(back);
    assert_eq!(client.response().text(), "GET /third 0");
    assert_eq!(pair.apps[1].requests().len(), 2);
}

#[test]
fn who_is_reading_or_uploading_is_served_first() {
    let mut pair = Pair::new(&[]);
    let (mut reading, mut uploading) = (pair.client(), pair.client());
    reading.send("GET /half HT");
    uploading.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    pair.apps[0].wait_started("/echo");
    pair.elder.wait_state(ConnectionState::H1Reading, 1);
    pair.elder.tell_moves();
    reading.send("TP/1.1\r\nHost: a\r\n\r\n");
    uploading.send("67890");
    for (client, text) in [(&mut reading, "GET /half 0"), (&mut uploading, "1234567890")] {
        let response = client.response();
        assert_eq!((response.text().as_str(), response.says_close()), (text, false));
    }
    assert_eq!(pair.elder.hand_over(&pair.successor, 2), [MovedKind::H1Active; 2]);
    pair.assert_gone();
    assert_eq!(reading.get("/a").response().status, 200);
    assert_eq!(uploading.get("/b").response().status, 200);
}

#[test]
fn what_comes_while_he_is_on_the_way_is_answered() {
    let mut pair = Pair::new(&[]);
    let mut client = pair.client();
    client.get("/first").response();
    pair.elder.tell_moves();
    let departure = pair.elder.departure();
    client.get("/second");
    pair.successor.deliver(departure);
    assert_eq!(client.response().text(), "GET /second 0");
    pair.assert_gone();
}

#[test]
fn half_an_empty_line_is_not_lost() {
    let mut pair = Pair::new(&[]);
    let mut client = pair.client();
    client.get("/first").response();
    client.send("\r");
    let half = |pair: &mut Pair| {
        pair.elder.tell_moves();
        pair.elder.departure()
    };
    // It is in the kernel or has been read: either goes along.
    let departure = half(&mut pair);
    pair.successor.deliver(departure);
    client.send(format!("\n{}", get("/second")));
    assert_eq!(client.response().text(), "GET /second 0");
}

#[test]
fn who_has_left_meanwhile_is_gone_in_the_successor_too() {
    let mut pair = Pair::new(&[]);
    let mut client = pair.client();
    client.get("/first").response();
    pair.elder.tell_moves();
    let departure = pair.elder.departure();
    drop(client);
    pair.successor.deliver(departure);
    pair.assert_gone();
    pair.successor.wait_alive(0);
    assert_eq!(pair.successor.closed(), 1);
}

#[test]
fn a_trusted_peer_announces_its_client_to_whom_it_meets() {
    let set = ["trusted_proxies=127.0.0.1"];
    let mut pair = Pair::new(&set);
    let (mut later, mut before) = (pair.client(), pair.client());
    before.send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n");
    before.get("/first").response();
    pair.elder.wait_state(ConnectionState::H1Fresh, 1);
    pair.elder.tell_moves();
    pair.elder.hand_over(&pair.successor, 2);
    pair.assert_gone();
    before.get("/before").response();
    later.send("PROXY TCP4 192.0.2.8 192.0.2.1 4000 80\r\n");
    later.get("/later").response();
    for (target, address) in [("/before", "192.0.2.7"), ("/later", "192.0.2.8")] {
        let request = pair.apps[1].wait_started(target);
        assert_eq!(request.field("x-forwarded-for"), Some(address));
    }
}

#[test]
fn the_age_of_a_connection_goes_with_it() {
    let mut pair = Pair::new(&["limits.connection_age=1s", "timeouts.idle=75s"]);
    let mut client = pair.client();
    client.get("/first").response();
    crate::support::pause(crate::support::ms(700));
    pair.elder.tell_moves();
    pair.elder.hand_over(&pair.successor, 1);
    pair.assert_gone();
    crate::support::pause(crate::support::ms(500));
    // Behind its age it ends: by a response that says so, or by itself.
    if client.try_send(get("/second")).is_ok()
        && let Ok(response) = client.try_response()
    {
        assert!(response.says_close());
    }
}

#[test]
fn who_sends_more_ahead_than_can_move_is_served_until_it_can() {
    let mut pair = Pair::new(&["limits.head_size=1m"]);
    let mut client = pair.client();
    // A head that makes the buffer large, and behind it more than a message takes.
    let field = "x".repeat(60_000);
    let large = |n: usize| {
        format!(
            "GET /{n} HTTP/1.1\r\nHost: a\r\nX-A: {field}\r\nX-B: {field}\r\nX-C: {field}\r\n\r\n"
        )
    };
    let mut writer = pair.client();
    // Who was not accepted before would have to wait for the successor.
    pair.elder.wait_state(ConnectionState::H1Fresh, 2);
    writer.send(large(0));
    pair.elder.tell_moves();
    let over = AtomicBool::new(false);
    let (elder, successor, over) = (&mut pair.elder, &pair.successor, &over);
    std::thread::scope(|scope| {
        let pump = scope.spawn(move || elder.hand_over_until(successor, over));
        for n in 1..8 {
            writer.send(large(n));
        }
        for n in 0..8 {
            let response = writer.response();
            assert_eq!((response.text(), response.says_close()), (format!("GET /{n} 0"), false));
        }
        assert_eq!(client.get("/other").response().status, 200);
        over.store(true, Ordering::SeqCst);
        assert!(pump.join().unwrap() >= 1);
    });
}
