//! Workers that cannot start, and workers that die, are noticed.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::within;
use crate::support::{PATIENCE, client};

/// Starts with so few descriptors; once it is ready, or has ended.
fn start_with(origin: &Origin, descriptors: u32) -> (Proxy, bool) {
    let launch = Launch::before(origin).arg("--workers").arg("2").descriptors(descriptors);
    let proxy = launch.spawn();
    let ready = within(PATIENCE, "ready or the end", || {
        let ready = !proxy.events("ready").is_empty();
        (ready || !proxy.runs()).then_some(ready)
    });
    (proxy, ready)
}

#[test]
fn process_is_ready_with_all_its_workers_or_does_not_start() {
    let origin = Origin::new();
    let mut without_worker = 0;
    for descriptors in 8.. {
        let (proxy, ready) = start_with(&origin, descriptors);
        if ready {
            assert_eq!(proxy.threads("worker-"), 2, "with {descriptors} descriptors");
            break;
        }
        assert_eq!(proxy.wait_exit().code(), 1, "with {descriptors} descriptors");
        let said = proxy.said();
        assert!(said.contains("cannot "), "with {descriptors} descriptors: {said}");
        assert!(proxy.events("listening").is_empty(), "with {descriptors} descriptors: {said}");
        let no_worker = "cannot start a worker: Too many open files";
        without_worker += u32::from(said.contains(no_worker));
    }
    assert!(without_worker > 0, "it never was a worker that could not start");
}

#[test]
fn worker_that_dies_begins_a_stop_that_names_it() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .arg("--workers")
        .arg("2")
        .env("EBBTIDE_SABOTAGE", "worker-lives")
        .start();
    let mut client = Client::connect(&proxy.place());
    let _ = client.try_send(client::get("/lost"));
    let lost = proxy.wait_event("worker_lost");
    assert_eq!(lost.text("level"), "error");
    assert!(lost.number("worker") < 2);
    assert!(lost.text("error").contains("told to die"), "{}", lost.fields);
    drop(client);
    assert_eq!(proxy.wait_exit().code(), 3, "what it served was lost");
    assert_eq!(proxy.drain_report()["reason"], "worker_lost");
    assert_eq!(proxy.reported("exit_status"), 3);
    assert_eq!(proxy.reported("errors"), 1, "{}", proxy.drain_report());
}
