//! Closing a listener without a reset, by both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use crate::support::client::{Client, End, get};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy, is_privileged};
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
    assert!(is_privileged(), "only root can filter");
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

/// Clients that have connected and asked, and wait in the queue of `place`.
fn queue_up(place: &Place, n: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..n).map(|_| Client::connect(place)).collect();
    for client in &mut clients {
        client.get("/queued");
    }
    clients
}

fn assert_served(clients: &mut [Client]) {
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.try_response();
        let response = response.unwrap_or_else(|broken| panic!("client {n}: {broken:?}"));
        assert_eq!(response.text(), "GET /queued 0");
    }
}

/// More than the runtime's budget lets a task accept at once, and more than
/// the kernel lets wait where it is set up in the old way.
fn long_queue() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).expect("a soft limit can be raised");
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn");
    most.trim().parse::<usize>().expect("a number").saturating_sub(64).min(2000)
}

fn long_queue_is_served(launch: impl Fn(&Origin) -> Launch, way: &str) {
    let n = long_queue();
    let origin = Origin::new();
    let proxy = launch(&origin).set("limits.connections", "1").start();
    let mut first = proxy.client();
    first.get("/hold");
    origin.wait_started("/hold");
    let mut clients = queue_up(&proxy.place(), n);
    proxy.terminate();
    let closed = proxy.wait_event("listener_closed");
    assert_eq!(closed.text("way"), way, "{}", closed.fields);
    // Each worker may have let one in before it knew of the first.
    assert!(closed.number("accepted") + 4 > n as u64, "{}", closed.fields);
    origin.release("/hold");
    assert_eq!(first.response().text(), "held");
    assert_served(&mut clients);
    drop((first, clients));
    proxy.wait_clean_exit();
}

#[test]
fn two_thousand_in_the_queue_are_served_when_syns_are_filtered() {
    assert!(is_privileged(), "only root can filter");
    long_queue_is_served(Launch::before, "syn-filter");
}

#[test]
fn two_thousand_in_the_queue_are_served_when_the_backlog_is_plugged() {
    long_queue_is_served(unprivileged, "backlog-plug");
}

fn queue_is_served_when_descriptors_come_back(launch: impl Fn(&Origin) -> Launch) {
    let origin = Origin::new();
    let proxy = launch(&origin).set("limits.connections", "1").start();
    let mut first = proxy.client();
    first.get("/hold");
    origin.wait_started("/hold");
    let before = proxy.limit_descriptors(Some(3));
    let mut clients = queue_up(&proxy.place(), 50);
    proxy.terminate();
    proxy.wait_phase("draining");
    assert!(proxy.events("listener_closed").is_empty(), "it is not closed upon who waits in it");
    proxy.limit_descriptors(before);
    let closed = proxy.wait_event("listener_closed");
    assert!(closed.number("accepted") >= 45, "{}", closed.fields);
    origin.release("/hold");
    assert_eq!(first.response().text(), "held");
    assert_served(&mut clients);
    drop((first, clients));
    proxy.wait_clean_exit();
}

#[test]
fn queue_waits_for_descriptors_when_syns_are_filtered() {
    queue_is_served_when_descriptors_come_back(Launch::before);
}

#[test]
fn queue_waits_for_descriptors_when_the_backlog_is_plugged() {
    queue_is_served_when_descriptors_come_back(unprivileged);
}

#[test]
fn queue_is_let_in_only_as_far_as_upstream_connections_have_descriptors() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).descriptors(64).start();
    let place = proxy.place();
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(&place)).collect();
    for client in &mut clients {
        client.get("/hold");
    }
    origin.wait_started("/hold");
    proxy.terminate();
    proxy.wait_phase("draining");
    origin.release("/hold");
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.try_response();
        let response = response.unwrap_or_else(|broken| panic!("client {n}: {broken:?}"));
        assert_eq!((response.status, response.text().as_str()), (200, "held"), "client {n}");
    }
    drop(clients);
    proxy.wait_clean_exit();
}

/// Nobody can be let in, to the end; the proxy with its drain report.
fn queue_is_given_up(cut_timeout: &str) -> (Proxy, serde_json::Value) {
    let origin = Origin::new();
    let launch = Launch::before(&origin).set("limits.connections", "1");
    let proxy = launch.stop("drain_timeout", "1s").stop("cut_timeout", cut_timeout).start();
    proxy.limit_descriptors(Some(3));
    let clients = queue_up(&proxy.place(), 20);
    proxy.terminate();
    let report = proxy.drain_report();
    drop(clients);
    (proxy, report)
}

#[test]
fn queue_that_is_given_up_is_counted_and_reported() {
    let (proxy, report) = queue_is_given_up("4s");
    assert_eq!(proxy.wait_event("listener_queue_reset").number("reset"), 20);
    assert!(report["errors"].to_string().contains("with 20 in its queue"), "{report}");
}

#[test]
fn queue_that_outlives_the_cut_is_reported() {
    let (proxy, report) = queue_is_given_up("200ms");
    proxy.wait_event("listeners_unswept");
    assert!(report["errors"].to_string().contains("not closed in time"), "{report}");
}

#[test]
fn second_signal_in_lame_duck_answers_who_waits_in_the_queue() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).stop("lame_duck", "20s").start();
    proxy.terminate();
    proxy.wait_phase("lame_duck");
    // Two signals within a second are one.
    pause(ms(1100));
    let before = proxy.limit_descriptors(Some(3));
    let mut clients = queue_up(&proxy.place(), 20);
    proxy.terminate();
    proxy.wait_phase("cutting");
    pause(ms(100));
    proxy.limit_descriptors(before);
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.try_response();
        let response = response.unwrap_or_else(|broken| panic!("client {n}: {broken:?}"));
        assert!([200, 503].contains(&response.status), "client {n}: {}", response.status);
    }
    drop(clients);
    proxy.wait_exit();
}
