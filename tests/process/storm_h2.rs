//! Stops under the load of HTTP/2 and TLS clients of other make, which go on through
//! each stop of the real binary and count for themselves what they lost.
//!
//! `TESTS_STORM_STOPS` sets the number of stops.

use std::time::Duration;

use ebbtide::drain::SABOTAGE;

use crate::storm::stops;
use crate::support::identity::Identity;
use crate::support::origin::Origin;
use crate::support::peers::{
    CURL_H1, CURL_H2, CURL_PRIOR, Counts, GO_H1, GO_H2, H2LOAD, Kind, NGHTTP, PYTHON, Peer, Target,
};
use crate::support::process::{Launch, Proxy};
use crate::support::{Rng, pause};

const OVER_TLS: &[Kind] = &[PYTHON, GO_H2, GO_H1, CURL_H2, CURL_H1, H2LOAD, NGHTTP];
const IN_CLEAR_TEXT: &[Kind] = &[PYTHON, CURL_PRIOR, H2LOAD, NGHTTP];

/// One stop under load: the process, and what each client counted.
fn storm(
    kinds: &[Kind],
    over_tls: bool,
    seed: u64,
    sabotage: Option<&str>,
) -> (Proxy, Vec<(&'static str, Counts)>) {
    let origin = Origin::new();
    let identity = Identity::new();
    let mut launch = Launch::before(&origin)
        .arg("--access-log")
        .arg("off")
        .stop("idle_grace", "2s")
        // Longer than a client that thinks for 50 ms can be held up by a busy machine.
        .stop("goaway_grace", "500ms")
        .stop("drain_timeout", "60s");
    if let Some(rule) = sabotage {
        launch = launch.env(SABOTAGE, rule);
    }
    if over_tls {
        launch = launch.arg("--tls-listen").arg("127.0.0.1:0").identity(&identity.files);
    }
    let proxy = launch.start();
    let place = proxy.place_of(if over_tls { "https" } else { "http" }, 0);
    let trusted = over_tls.then(|| identity.authority.clone());
    let target = Target { place, trusted, seed };
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, &target)).collect();
    for kind in kinds {
        let begins = format!("/{}/", kind.name);
        origin.wait_request(&begins, |request| request.target.starts_with(&begins));
    }
    pause(Duration::from_micros(Rng::new(seed).below(50_000)));
    proxy.terminate();
    (proxy, peers.into_iter().map(Peer::wait).collect())
}

/// Nobody may lose anything, and the proxy may not say otherwise.
fn storm_without_loss(kinds: &[Kind], over_tls: bool, seed: u64) {
    let (proxy, counts) = storm(kinds, over_tls, seed, None);
    proxy.wait_clean_exit();
    for (name, counts) in &counts {
        assert_eq!(counts.lost, 0, "stop {seed}: {name}: {counts:?}");
        assert!(counts.ok > 0, "stop {seed}: {name}: {counts:?}");
    }
    for what in ["cut", "raced"] {
        assert_eq!(proxy.reported(what), 0, "stop {seed}: {what}");
    }
}

#[test]
fn storm_of_http2_and_http1_clients_over_tls_loses_nothing_through_stops() {
    for stop in 0..stops() {
        storm_without_loss(OVER_TLS, true, stop);
    }
}

#[test]
fn storm_of_http2_clients_in_clear_text_loses_nothing_through_stops() {
    for stop in 0..stops() {
        storm_without_loss(IN_CLEAR_TEXT, false, 1000 + stop);
    }
}

/// The storm would see it: without the time between the two GOAWAYs, a client that is
/// far away loses what it had on the way.
#[test]
fn storm_sees_a_final_goaway_that_did_not_wait() {
    let found = (0..5).any(|stop| {
        let (_proxy, counts) = storm(&[PYTHON], false, stop, Some("goaway-grace"));
        counts.iter().any(|(_, counts)| counts.lost > 0)
    });
    assert!(found, "no client lost anything");
}
