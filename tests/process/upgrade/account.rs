//! What is counted and written down is counted and written down once, and never goes
//! back; and nothing stays behind an upgrade.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{app, start, upgrade_whole};
use crate::support::admin::metric_in;
use crate::support::client::{Client, get};
use crate::support::crowd::Crowd;
use crate::support::generations::{Generations, sum};
use crate::support::process::{Launch, Stdout};
use crate::support::ws::Socket;
use crate::support::{PATIENCE, Rng, ms, pause, within};

/// How many upgrades there are where many are asked for.
fn many() -> usize {
    let set = std::env::var("TESTS_STORM_UPGRADES").ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(0).max(20)
}

/// Clients that keep their connections, each request with a target of its own: the
/// targets that were asked for, and answered.
fn load(line: &Generations, many: u64) -> Crowd<Vec<String>> {
    let place = line.place();
    Crowd::start(many, move |number, crowd| {
        let mut rng = Rng::new(number);
        let mut client = Client::connect(&place);
        let mut targets = Vec::new();
        while !crowd.is_over() {
            let target = format!("/load/{number}/{}", targets.len());
            client.get(&target);
            assert_eq!(client.response().text(), format!("GET {target} 0"));
            targets.push(target);
            crowd.serve();
            pause(Duration::from_micros(rng.below(10_000)));
        }
        targets
    })
}

/// Counters by name and labels.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let mut kinds = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        if let Some((name, kind)) = line.split_once(' ') {
            kinds.insert(name, kind);
        }
    }
    let counted = |name: &str| {
        let base = name.split('{').next().unwrap_or_default();
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| base.strip_suffix(end))
            .any(|base| kinds.get(base) == Some(&"histogram"));
        histogram || kinds.get(base) == Some(&"counter")
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| counted(name))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

#[test]
fn counters_and_generation_never_go_back_however_often_they_are_read() {
    let (_origin, line) = start(|launch| launch);
    let line = Arc::new(line);
    let load = load(&line, 6);
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (line, over) = (Arc::clone(&line), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut before = BTreeMap::new();
            let (mut generation, mut reads) = (0.0, 0);
            while !over.load(Ordering::SeqCst) {
                let text = line.ask("/metrics").expect("the admin interface always answers");
                let now = counters(&text);
                assert!(now.len() > 5, "{text}");
                for (name, value) in &before {
                    let found = now.get(name).copied();
                    let kept = found.is_some_and(|now: f64| now >= *value);
                    assert!(kept, "{name} was {value} and is {found:?}, generation {generation}");
                }
                let newer = metric_in(&text, "ebbtide_generation");
                assert!(newer >= generation, "generation {generation}, then {newer}");
                generation = newer;
                before = now;
                reads += 1;
            }
            (generation, reads)
        })
    };
    for _ in 0..4 {
        load.go_on();
        line.upgrade();
    }
    load.go_on();
    let asked = load.end().concat();
    within(PATIENCE, "the elders to have gone", || {
        line.status()["elders"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    over.store(true, Ordering::SeqCst);
    let (generation, reads) = reader.join().expect("a reader");
    assert!((generation, reads > 50) == (5.0, true), "{generation}, {reads} reads");
    let counted = line.metric("ebbtide_requests_total{code=\"200\"}") as usize;
    assert_eq!(counted, asked.len(), "each request is counted once, and no question of our own");
    let text = line.ask("/metrics").unwrap();
    let moved: f64 = counters(&text)
        .iter()
        .filter(|(name, _)| name.starts_with("ebbtide_moved_connections_total"))
        .map(|(_, value)| value)
        .sum();
    assert!(moved >= 24.0, "six connections have moved four times: {moved}");
}

/// That each target stands in the log once, and nothing else: not what successors ask
/// themselves.
#[track_caller]
fn judge(log: &[Value], asked: &[String]) {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for line in log {
        *times.entry(line["target"].as_str().unwrap_or_else(|| panic!("{line}"))).or_default() += 1;
    }
    for target in asked {
        assert_eq!(times.remove(&**target), Some(1), "{target}");
    }
    assert!(times.is_empty(), "{times:?}");
}

#[test]
fn access_log_has_each_request_once_and_no_line_is_torn() {
    let (_origin, line) = start(|launch| launch);
    let load = load(&line, 8);
    for _ in 0..many() {
        load.go_on();
        line.upgrade();
    }
    let asked = load.end().concat();
    assert_eq!(line.stop().code, Some(0));
    line.wait_exit();
    judge(&line.access_log(), &asked);
}

#[test]
fn access_log_in_a_file_is_as_complete() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    std::fs::write(&file, "").unwrap();
    let (_origin, line) = start(|launch| launch.stdout(Stdout::File(file.clone())));
    let load = load(&line, 8);
    for _ in 0..5 {
        load.go_on();
        line.upgrade();
    }
    let asked = load.end().concat();
    assert_eq!(line.stop().code, Some(0));
    line.wait_exit();
    let text = std::fs::read_to_string(&file).unwrap();
    let log: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    judge(&log, &asked);
}

#[test]
fn nothing_is_left_behind_by_many_upgrades() {
    let origin = app();
    let line = Generations::start(Launch::before(&origin).arg("--workers").arg("2").tls());
    let mut idle: Vec<Client> = (0..40).map(|_| line.idle_client()).collect();
    let mut sockets: Vec<Socket> = (0..10).map(|_| Socket::open(line.client(), "/ws")).collect();
    let mut found = Vec::new();
    for n in 0..many() {
        upgrade_whole(&line);
        for client in &mut idle {
            client.send(get("/on"));
            assert_eq!(client.response().text(), "GET /on 0");
        }
        for socket in &mut sockets {
            socket.echo("on");
        }
        if n == 0 || n + 1 == many() {
            line.wait_alive(1);
            let newest = line.newest();
            // Upstream connections are closed when they have been idle.
            let mut least = usize::MAX;
            let settled = std::time::Instant::now();
            while settled.elapsed() < ms(2_500) {
                least = least.min(newest.descriptors());
                pause(ms(50));
            }
            assert_eq!(newest.children(), Vec::<u32>::new());
            found.push((least, newest.memory()));
        }
    }
    let [(descriptors, memory), last] = found[..] else { panic!("{found:?}") };
    eprintln!("after one: {descriptors} descriptors, {memory} octets; after many: {last:?}");
    assert_eq!(last.0, descriptors, "descriptors");
    assert!(last.1 < memory + memory / 5 + 512 * 1024, "{} octets, then {}", memory, last.1);
}

#[test]
fn status_shows_all_generations() {
    let (origin, line) = start(|launch| launch);
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let _idle: Vec<Client> = (0..3).map(|_| line.idle_client()).collect();
    let (elder, serving) = line.upgrade();
    let status = within(PATIENCE, "what has moved", || {
        let status = line.status();
        (sum(&status["elders"][0]["moved"]) == 3).then_some(status)
    });
    assert_eq!(status["generation"], 2);
    assert_eq!(status["pid"], serving.fields["successor"]);
    let [old] = &status["elders"].as_array().expect("elders")[..] else { panic!("{status}") };
    assert_eq!((&old["generation"], &old["pid"]), (&1.into(), &elder.pid.into()));
    assert_eq!(old["phase"], "draining");
    assert!(old["deadline_ms"].as_u64().is_some_and(|left| left > 3_000_000), "an hour: {old}");
    assert_eq!(sum(&old["connections"]), 1, "{old}");
    let metrics = ["ebbtide_elders", "ebbtide_elder_connections{generation=\"1\"}"];
    assert_eq!(metrics.map(|name| line.metric(name)), [1.0, 1.0]);
    assert!(old["waiting"].as_object().is_some_and(|why| !why.is_empty()), "{old}");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_ebbtide"))
        .arg("status")
        .arg("--admin")
        .arg(line.admin_place().to_string())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for pid in [elder.pid.to_string(), serving.number("successor").to_string()] {
        assert!(shown.contains(&pid), "no {pid} in {shown}");
    }
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    elder.wait_gone(PATIENCE);
    within(PATIENCE, "no elder", || {
        line.status()["elders"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}
