//! What is said to the service manager, and in which order, heard by ourselves.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::Signal;

use crate::ear::{Ear, longest_gap};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::{PATIENCE, ms, pause};

fn start(origin: &Origin, ear: &Ear) -> Proxy {
    launch(origin, ear).start()
}

fn launch(origin: &Origin, ear: &Ear) -> Launch {
    Launch::before(origin).env("NOTIFY_SOCKET", &ear.address())
}

#[test]
fn a_life_is_told_in_its_order() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let proxy = start(&origin, &ear);
    let ready = ear.wait("READY=1");
    assert_eq!(ready.value("STATUS"), Some("serving: 0 connections, 0 requests in flight"));
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    ear.wait("STATUS=serving: 1 connection, 1 request in flight");
    proxy.terminate();
    let stopping = ear.wait("STOPPING=1");
    assert_eq!(stopping.value("EXTEND_TIMEOUT_USEC"), Some("5000000"));
    let status = stopping.value("STATUS").expect("a status");
    assert!(status.starts_with("closing: 1 connection, 1 request in flight"), "{status}");
    ear.wait_where("a draining status", |message| {
        message.value("STATUS").is_some_and(|status| {
            status.starts_with("draining: 1 connection") && status.ends_with(" s")
        })
    });
    pause(ms(2500));
    origin.release("/hold");
    client.response();
    drop(client);
    proxy.wait_clean_exit();
    assert_eq!((ear.all("READY=1").len(), ear.all("STOPPING=1").len()), (1, 1));
    assert!(ear.all("WATCHDOG=1").is_empty(), "nobody has asked for it");
    let extended = ear.all("EXTEND_TIMEOUT_USEC");
    assert!(extended.len() >= 3 && longest_gap(&extended) < ms(3000), "{extended:?}");
    assert!(extended[0].at >= stopping.at, "not before the stop");
}

#[test]
fn a_lame_duck_asks_for_time_and_is_not_stopping_yet() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let proxy = launch(&origin, &ear).stop("lame_duck", "1s").start();
    proxy.terminate();
    let lame = ear.wait_where("a lame duck", |message| {
        message.value("STATUS").is_some_and(|status| status.starts_with("lame_duck"))
    });
    assert!(lame.value("EXTEND_TIMEOUT_USEC").is_some() && !lame.says("STOPPING=1"));
    let stopping = ear.wait("STOPPING=1");
    assert!(stopping.at >= lame.at + ms(900));
    proxy.wait_clean_exit();
}

#[test]
fn the_watchdog_hears_twice_in_its_time_also_in_a_drain() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let proxy = launch(&origin, &ear).env("WATCHDOG_USEC", "1000000").start();
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    pause(ms(2000));
    proxy.terminate();
    proxy.wait_phase("draining");
    pause(ms(2000));
    origin.release("/hold");
    client.response();
    drop(client);
    proxy.wait_clean_exit();
    let pings = ear.all("WATCHDOG=1");
    assert!(pings.len() >= 6 && pings.len() <= 10, "{pings:?}");
    assert!(longest_gap(&pings) < ms(1000), "{pings:?}");
    assert!(proxy.events("worker_stuck").is_empty());
}

#[test]
fn the_watchdog_hears_nothing_while_a_worker_is_stuck() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let launch = launch(&origin, &ear).env("EBBTIDE_SABOTAGE", "worker-turns");
    let proxy = launch.env("WATCHDOG_USEC", "400000").set("workers", "2").start();
    ear.wait("WATCHDOG=1");
    let mut client = proxy.client();
    client.get("/never");
    let stuck = proxy.wait_event("worker_stuck");
    assert!(stuck.number("worker") < 2, "{}", stuck.fields);
    // What was under way has been heard.
    pause(ms(200));
    let before = ear.all("WATCHDOG=1").len();
    pause(ms(1500));
    assert_eq!(ear.all("WATCHDOG=1").len(), before);
    assert_eq!(proxy.events("worker_stuck").len(), 1, "it is said once");
    proxy.signal(Signal::KILL);
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_left_alone() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let launch = launch(&origin, &ear).env("WATCHDOG_USEC", "200000");
    let proxy = launch.env("WATCHDOG_PID", "1").start();
    ear.wait("READY=1");
    pause(ms(500));
    proxy.terminate();
    proxy.wait_clean_exit();
    assert!(ear.all("WATCHDOG=1").is_empty());
}

#[test]
fn a_name_in_the_abstract_namespace_is_found() {
    let origin = Origin::new();
    let name = format!("ebbtide-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = UnixDatagram::bind_addr(&address).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a bound");
    let proxy = Launch::before(&origin).env("NOTIFY_SOCKET", &format!("@{name}")).start();
    let mut octets = [0; 512];
    let n = manager.recv(&mut octets).expect("a message");
    assert!(octets[..n].starts_with(b"READY=1\n"));
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn a_manager_that_is_not_there_is_named_once_and_changes_nothing() {
    let origin = Origin::new();
    let launch = Launch::before(&origin).env("NOTIFY_SOCKET", "/nowhere/at/all");
    let proxy = launch.env("WATCHDOG_USEC", "200000").start();
    let mut client = proxy.client();
    assert_eq!(client.get("/").response().status, 200);
    pause(ms(500));
    drop(client);
    proxy.terminate();
    proxy.wait_clean_exit();
    assert_eq!(proxy.events("notify_failed").len(), 1);
}

#[test]
fn a_manager_that_does_not_listen_is_not_waited_for_and_hears_what_matters_later() {
    let origin = Origin::new();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let other = UnixDatagram::unbound().expect("a socket");
    other.set_nonblocking(true).expect("non-blocking");
    while other.send_to(b"X=1", &path).is_ok() {}
    let launch = Launch::before(&origin).env("NOTIFY_SOCKET", &path.display().to_string());
    let proxy = launch.start();
    assert_eq!(proxy.client().get("/").response().status, 200);
    manager.set_read_timeout(Some(Duration::from_secs(5))).expect("a bound");
    let mut octets = [0; 512];
    let ready = std::iter::from_fn(|| manager.recv(&mut octets).ok().map(|n| octets[..n].to_vec()));
    assert!(ready.into_iter().any(|message| message.starts_with(b"READY=1\n")));
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn no_more_is_stored_than_the_manager_says_it_takes() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let launch = launch(&origin, &ear).set("systemd.store", "true").env("FDSTORE", "1");
    let proxy = launch.listen("127.0.0.1:0").listen("127.0.0.1:0").start();
    let stored = ear.wait("FDSTORE=1");
    assert_eq!(stored.value("FDNAME"), Some("ebbtide/127.0.0.1=0"));
    assert_eq!(proxy.wait_event("store_full").number("room"), 1);
    proxy.terminate();
    proxy.wait_clean_exit();
    assert_eq!(ear.all("FDSTORE").len(), 1);
    let closed = proxy.events("listener_closed");
    let shared = closed.iter().filter(|event| event.text("way") == "shared").count();
    assert_eq!((closed.len(), shared), (2, 1), "only what is stored is left to the manager");
}
