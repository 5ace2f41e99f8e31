//! Closing a listener without a reset, by both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::thread::CapabilitySet;

use crate::support::client::{Client, End, get};
use crate::support::origin::Origin;
use crate::support::process::{Launch, is_privileged};
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, pause};

const STOPS: usize = 10;
const CLIENTS: usize = 12;

/// What clients that connect in a loop saw through one stop.
#[derive(Debug, Default)]
struct Seen {
    served: AtomicUsize,
    refused: AtomicUsize,
    never_connected: AtomicUsize,
}

/// Connects and asks until it is refused.
fn ask_until_refused(place: &Place, seen: &Seen) {
    loop {
        match Client::try_connect(place, Duration::from_secs(5)) {
            Err(End::Refused) => {
                seen.refused.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Err(end) => {
                // Its handshake was not answered: it never believed that it was connected.
                assert_eq!(end, End::TimedOut, "connect");
                seen.never_connected.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Ok(mut client) => {
                let sent = client
                    .try_send(get("/loop").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
                assert_eq!(sent, Ok(()), "a connection that was established takes the request");
                let response = client.try_response();
                let response =
                    response.unwrap_or_else(|broken| panic!("connected, then {broken:?}"));
                assert_eq!(response.text(), "GET /loop 0");
                seen.served.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

fn stops_lose_nobody(launch: impl Fn(&Origin) -> Launch, way: &str) {
    let origin = Origin::new();
    for stop in 0..STOPS {
        let proxy = launch(&origin).start();
        let place = proxy.place();
        let seen = Arc::new(Seen::default());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (place, seen) = (place.clone(), Arc::clone(&seen));
                std::thread::spawn(move || ask_until_refused(&place, &seen))
            })
            .collect();
        crate::support::within(PATIENCE, "some requests", || {
            (seen.served.load(Ordering::SeqCst) > 2 * CLIENTS).then_some(())
        });
        pause(ms(stop as u64));
        proxy.terminate();
        for client in clients {
            client.join().unwrap_or_else(|_| panic!("stop {stop} lost a request: {seen:?}"));
        }
        proxy.wait_clean_exit();
        let closed = proxy.wait_event("listener_closed");
        assert_eq!(closed.text("way"), way, "{}", closed.fields);
    }
}

#[test]
fn no_connection_is_reset_when_syns_are_filtered() {
    if !is_privileged() {
        eprintln!("not tried: without CAP_NET_ADMIN there is no filter; the other way is tested");
        return;
    }
    stops_lose_nobody(Launch::before, "syn-filter");
}

#[test]
fn no_connection_is_reset_when_the_backlog_is_plugged() {
    stops_lose_nobody(unprivileged, "backlog-plug");
}

/// Without the capability that a filter needs, if the test has it.
fn unprivileged(origin: &Origin) -> Launch {
    let launch = Launch::before(origin);
    if is_privileged() { launch.without(CapabilitySet::NET_ADMIN) } else { launch }
}

fn full_queue_is_served(launch: impl Fn(&Origin) -> Launch) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let place = proxy.place();
    let mut clients = Vec::new();
    proxy.terminate_frozen(ms(0), || {
        for _ in 0..100 {
            clients.push(Client::connect(&place));
        }
        for client in &mut clients {
            client.get("/queued");
        }
    });
    for client in &mut clients {
        assert_eq!(client.response().text(), "GET /queued 0");
    }
    drop(clients);
    proxy.wait_clean_exit();
}

#[test]
fn accept_queue_is_served_when_syns_are_filtered() {
    full_queue_is_served(Launch::before);
}

#[test]
fn accept_queue_is_served_when_the_backlog_is_plugged() {
    full_queue_is_served(unprivileged);
}

#[test]
fn unix_listener_loses_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    for _ in 0..STOPS {
        let path = dir.path().join("front.sock");
        let proxy = Launch::before(&origin).listen(&format!("unix:{}", path.display())).start();
        let place = proxy.place();
        let seen = Arc::new(Seen::default());
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (place, seen) = (place.clone(), Arc::clone(&seen));
                std::thread::spawn(move || ask_until_refused(&place, &seen))
            })
            .collect();
        crate::support::within(PATIENCE, "some requests", || {
            (seen.served.load(Ordering::SeqCst) > 8).then_some(())
        });
        proxy.terminate();
        for client in clients {
            client.join().expect("nobody is lost");
        }
        proxy.wait_clean_exit();
    }
}
