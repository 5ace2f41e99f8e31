//! What one app server or one client must not cost all others who share a connection.

use crate::support::h2::frame::setting;
use crate::support::h2::origin::H2Origin;
use crate::support::h2::{Code, Frame, H2};
use crate::support::ms;

use super::{launch, warmed};

/// Connections that a worker has to one app server.
const MOST: usize = 128;

#[test]
fn connections_are_bounded_and_whoever_comes_later_waits_for_room() {
    let origin = H2Origin::new();
    let proxy = launch(&origin)
        .set("upstream.h2_streams", "1")
        .set("upstream.connect_timeout", "2s")
        .set("limits.streams", "200")
        .start();
    let mut h2 = H2::connect(&proxy.place());
    let mut full: Vec<_> = (0..MOST)
        .map(|n| {
            let above = h2.get(&format!("/{n}"));
            let mut peer = origin.accept();
            (above, peer.request(), peer)
        })
        .collect();
    let late = h2.get("/late");
    let response = h2.response(late);
    assert_eq!(response.status, 503);
    let told = response.field("proxy-status").unwrap();
    assert!(told.contains("connection_limit_reached"), "{told}");
    let waits = h2.get("/waits");
    let (above, stream, mut peer) = full.remove(MOST / 2);
    peer.answer(stream, "done");
    assert_eq!(h2.response(above).text(), "done");
    let stream = peer.request();
    peer.answer(stream, "its turn");
    assert_eq!(h2.response(waits).text(), "its turn");
    assert!(origin.accept_now().is_none());
    // One that has gone makes room for another.
    drop((peer, full.pop()));
    let another = h2.get("/another");
    let mut peer = origin.accept();
    let stream = peer.request();
    peer.answer(stream, "new");
    assert_eq!(h2.response(another).text(), "new");
}

/// What was on its way to streams that their clients have given up.
#[test]
fn clients_that_leave_cost_a_connection_nothing() {
    for (streams, all) in [("100", 100), ("1", 40)] {
        let origin = H2Origin::new();
        let proxy = launch(&origin).set("upstream.h2_streams", streams).start();
        let mut peer = warmed(&origin, &proxy);
        let mut h2 = H2::connect(&proxy.place());
        let mut given_up = Vec::new();
        while given_up.len() < all {
            let at_once = streams.parse().unwrap();
            let above: Vec<u32> = (0..at_once).map(|_| h2.get("/leaves")).collect();
            let below: Vec<u32> = above.iter().map(|_| peer.request()).collect();
            for stream in &below {
                peer.headers(*stream, &[(":status", "200")], false);
            }
            for stream in above {
                h2.response_head(stream);
                h2.send(&Frame::rst_stream(stream, Code::CANCEL));
            }
            below.iter().for_each(|stream| assert_eq!(peer.reset(*stream), Code::CANCEL));
            given_up.extend(below);
        }
        for stream in given_up.iter().flat_map(|stream| [stream; 40]) {
            peer.octets(&Frame::data(*stream, b"late".as_slice()).octets());
        }
        peer.fence();
        assert_eq!(peer.goaways, []);
        if all == 100 {
            let known = |stream: &u32| peer.seen[stream].reset == Some(Code::CANCEL);
            assert!(given_up.iter().all(known), "none of them was forgotten: {:?}", peer.seen);
        }
        let above = h2.get("/stays");
        let stream = peer.request();
        peer.answer(stream, "stays");
        assert_eq!(h2.response(above).text(), "stays");
    }
}

#[test]
fn a_client_that_does_not_read_small_messages_costs_only_its_own_streams() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).set("upstream.h2_streams", "4").set("timeouts.send", "10m").start();
    let mut peer = warmed(&origin, &proxy);
    let mut stuck = H2::bare(&proxy.place());
    stuck.handshake(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    for _ in 0..4 {
        stuck.get("/stuck");
        let stream = peer.request();
        peer.headers(stream, &[(":status", "200")], false);
        // What the proxy holds, and then the window's worth.
        while peer.room(stream) > 0 || peer.next_within(ms(100)).is_ok() {
            let n = peer.room(stream).min(8);
            if n > 0 {
                peer.send(&Frame::data(stream, vec![b'x'; n]));
            }
        }
    }
    peer.fence();
    assert_eq!(peer.goaways, []);
    let above = stuck.get("/other");
    let mut other = origin.accept();
    let stream = other.request();
    other.headers(stream, &[(":status", "204")], true);
    assert_eq!(stuck.response(above).status, 204, "on a connection of its own");
}
