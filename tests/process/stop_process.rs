//! The stop as an operator sees it: signals, phases, how fast the process leaves, what
//! it leaves behind.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::{Client, End};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::{PATIENCE, admin, ms};

/// How long the process may take to leave when nothing is left.
const LEAVE: Duration = Duration::from_millis(50);

/// The best of some tries: what the program takes, without what a busy machine adds. One
/// that sleeps where nothing is left never gets there, however often it tries.
fn best_of_many(bound: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut best = Duration::MAX;
    for _ in 0..40 {
        best = best.min(attempt());
        if best <= bound {
            return;
        }
    }
    panic!("at best {best:?}, where {bound:?} is promised");
}

/// Lets every client end its connection when the proxy does, as real ones do.
fn end_with_the_proxy(clients: Vec<Client>) -> Vec<std::thread::JoinHandle<End>> {
    clients.into_iter().map(|mut c| std::thread::spawn(move || c.end())).collect()
}

fn leaves_idle_clients(idle_grace: Duration) {
    best_of_many(idle_grace + LEAVE, || {
        let origin = Origin::new();
        let grace = format!("{}ms", idle_grace.as_millis());
        let proxy = Launch::before(&origin).stop("idle_grace", &grace).start();
        let clients = end_with_the_proxy((0..5).map(|_| proxy.idle_client()).collect());
        let told = proxy.terminate();
        let exit = proxy.wait_clean_exit();
        for client in clients {
            assert_eq!(client.join().unwrap(), End::Eof);
        }
        let took = exit.at - told;
        assert!(took >= idle_grace, "the grace was given: {took:?}");
        took
    });
}

#[test]
fn process_with_idle_connections_leaves_right_after_the_idle_grace() {
    leaves_idle_clients(ms(200));
}

#[test]
fn process_with_idle_connections_and_no_grace_leaves_at_once() {
    leaves_idle_clients(ms(0));
}

#[test]
fn process_with_nothing_to_do_leaves_at_once() {
    best_of_many(LEAVE, || {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).start();
        let told = proxy.terminate();
        proxy.wait_clean_exit().at - told
    });
}

#[test]
fn process_with_one_request_leaves_right_after_its_last_octet() {
    best_of_many(LEAVE, || {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).start();
        let mut client = proxy.client();
        client.get("/think/300");
        origin.wait_started("/think/300");
        proxy.terminate();
        assert_eq!(client.response().text(), "thought");
        let last_octet = Instant::now();
        drop(client);
        proxy.wait_clean_exit().at.saturating_duration_since(last_octet)
    });
}

#[test]
fn every_stop_signal_means_the_same() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).start();
        let mut client = proxy.client();
        client.get("/hold");
        origin.wait_started("/hold");
        proxy.signal(signal);
        proxy.wait_phase("draining");
        origin.release_all();
        assert!(client.response().says_close(), "{signal:?}");
        drop(client);
        proxy.wait_clean_exit();
    }
}

#[test]
fn other_signals_do_not_end_the_process() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    let mut client = proxy.idle_client();
    for signal in [Signal::HUP, Signal::USR1, Signal::PIPE] {
        proxy.signal(signal);
    }
    crate::support::within(PATIENCE, "two signals to be logged", || {
        (proxy.events("signal_ignored").len() == 2).then_some(())
    });
    for _ in 0..3 {
        client.get("/still");
        assert!(!client.response().says_close());
        assert_eq!(proxy.client().get("/new").response().status, 200);
    }
    assert!(proxy.runs());
    assert!(proxy.events("phase").iter().all(|event| event.fields["to_phase"] == "serving"));
}

#[test]
fn lame_duck_serves_everybody_and_tells_everybody() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().arg("--lame-duck").arg("2s").start();
    let mut idle = proxy.idle_client();
    assert_eq!(admin::get(&proxy.admin(), "/readyz").status, 200);
    let told = proxy.terminate();
    proxy.wait_phase("lame_duck");
    assert_eq!(admin::get(&proxy.admin(), "/readyz").status, 503);
    assert_eq!(admin::get(&proxy.admin(), "/livez").status, 200);
    let mut newcomer = proxy.client();
    newcomer.get("/new");
    idle.get("/again");
    for client in [&mut newcomer, &mut idle] {
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.says_close(), "{:?}", response.head);
    }
    drop((newcomer, idle));
    let closing = proxy.wait_phase("closing");
    assert!(closing.at - told >= Duration::from_secs(2), "the pause was made");
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
}

#[test]
fn newcomers_are_refused_once_the_listeners_are_closed() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    let place = proxy.place();
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    proxy.terminate();
    proxy.wait_phase("draining");
    assert_eq!(Client::try_connect(&place, PATIENCE).err(), Some(End::Refused));
    origin.release_all();
    assert_eq!(client.response().status, 200);
}

#[test]
fn admin_outlives_the_listeners() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().start();
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    assert_eq!(admin::status(&proxy.admin())["deadline_ms"], Value::Null);
    proxy.terminate();
    proxy.wait_phase("draining");
    let status = admin::status(&proxy.admin());
    assert_eq!(status["phase"], "draining");
    assert!(status["deadline_ms"].as_u64().is_some_and(|left| left <= 20_000), "{status}");
    assert_eq!(status["requests"], 0, "none is answered yet");
    assert_eq!(admin::get(&proxy.admin(), "/readyz").status, 503);
    assert_eq!(admin::get(&proxy.admin(), "/livez").status, 200);
    assert!((admin::metric(&proxy.admin(), "ebbtide_phase{phase=\"draining\"}") - 1.0).abs() < 0.1);
    origin.release_all();
    assert_eq!(client.response().status, 200);
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn phases_are_passed_in_order() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    proxy.terminate();
    proxy.wait_clean_exit();
    let order = [
        "starting",
        "serving",
        "lame_duck",
        "closing",
        "draining",
        "cutting",
        "finishing",
        "stopped",
    ];
    let place = |name: &String| order.iter().position(|known| known == name).expect("a phase");
    let passed: Vec<usize> = proxy.phases().iter().map(place).collect();
    assert!(passed.is_sorted(), "{:?}", proxy.phases());
    for phase in ["closing", "draining", "finishing"] {
        let event = proxy.wait_phase(phase);
        event.number("elapsed_ms");
        assert!(event.fields["from_phase"].is_string() && event.fields["remaining"].is_object());
    }
}

#[test]
fn drain_report_is_the_last_line_and_the_report_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .arg("--report")
        .arg(file.to_str().unwrap())
        .stop("idle_grace", "0s")
        .start();
    let clients = end_with_the_proxy(vec![proxy.idle_client()]);
    assert!(!file.exists(), "written at the end");
    proxy.terminate();
    proxy.wait_clean_exit();
    let line = proxy.drain_report();
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for field in ["phases", "raced", "cut"] {
        assert!(line.get(field).is_some(), "{field} in {line}");
        assert_eq!(line.get(field), written.get(field));
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
    drop(clients);
}

#[test]
fn every_listener_serves_and_every_listener_closes() {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", dir.path().join("front.sock").display());
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).listen("127.0.0.1:0").listen("[::1]:0").listen(&unix).start();
    let places: Vec<_> = (0..3).map(|n| proxy.place_of("http", n)).collect();
    let mut clients: Vec<_> = places.iter().map(Client::connect).collect();
    for client in &mut clients {
        client.get("/hold");
    }
    crate::support::within(PATIENCE, "three requests", || {
        (origin.requests_for("/hold").len() == 3).then_some(())
    });
    proxy.terminate();
    proxy.wait_phase("draining");
    for place in &places {
        assert_eq!(Client::try_connect(place, PATIENCE).err(), Some(End::Refused), "{place}");
    }
    origin.release_all();
    for client in &mut clients {
        assert!(client.response().says_close());
    }
    drop(clients);
    proxy.wait_clean_exit();
}

fn unix_proxy(origin: &Origin, path: &std::path::Path) -> Proxy {
    Launch::before(origin).listen(&format!("unix:{}", path.display())).start()
}

#[test]
fn path_of_a_unix_listener_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let origin = Origin::new();
    let proxy = unix_proxy(&origin, &path);
    assert!(path.exists());
    proxy.terminate();
    proxy.wait_clean_exit();
    assert!(!path.exists());
}

#[test]
fn path_that_is_no_longer_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let origin = Origin::new();
    let proxy = unix_proxy(&origin, &path);
    std::fs::remove_file(&path).unwrap();
    let successor = Origin::unix(&path);
    proxy.terminate();
    proxy.wait_clean_exit();
    assert_eq!(Client::connect(successor.place()).get("/x").response().text(), "GET /x 0");
}

#[test]
fn upstream_that_cannot_be_reached_does_not_stop_the_start() {
    let gone = Origin::new().place().to_string();
    let proxy = Launch::before_addr(&gone).start();
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn drop_of_the_stopped_process_leaves_no_upstream_connection() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .set("upstream.idle_timeout", "60s")
        .stop("idle_grace", "0s")
        .start();
    let clients = end_with_the_proxy(vec![proxy.idle_client()]);
    proxy.terminate();
    assert_eq!(origin.wait_connection_end(0).0, End::Eof);
    proxy.wait_clean_exit();
    drop(clients);
}
