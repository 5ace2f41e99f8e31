//! What one app server or one client must not cost all others who share a connection.

use crate::support::h2::H2;
use crate::support::h2::origin::H2Origin;

use super::launch;

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
