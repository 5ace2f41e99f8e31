//! As many tunnels and event streams at a stop as there are descriptors for: all are
//! told, evenly over `spread`, and the process leaves when the last has gone.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod histogram;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::crowd::Crowd;
use crate::histogram::Histogram;
use crate::support::process::Launch;
use crate::support::pypi::{self, Program};
use crate::support::{PATIENCE, ms};

/// How many are wanted.
const TUNNELS: usize = 4000;
const STREAMS: usize = 4000;

/// Descriptors of the proxy besides two for each of them, generously.
const SPARE: u64 = 1000;

const SPREAD: Duration = Duration::from_secs(2);

/// How far the closes may be ahead of an even row, as a part of all. Behind it they may
/// be as far as the machine is busy.
const AHEAD: f64 = 0.1;

/// What part of all may fall into a twentieth of the time. A machine that stood still for
/// a quarter of it is forgiven.
const AT_ONCE: f64 = 0.3;

/// Raises the limit of this process and its children; which part of all it is enough for.
fn room() -> f64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the limit");
    let wanted = SPARE + 2 * (TUNNELS + STREAMS) as u64;
    (limit.maximum.unwrap_or(u64::MAX) as f64 / wanted as f64).min(1.0)
}

#[test]
fn thousands_are_told_one_after_the_other() {
    let room = room();
    let [tunnels, streams] = [TUNNELS, STREAMS].map(|wanted| (wanted as f64 * room) as usize);
    println!("{tunnels} tunnels of {TUNNELS} wanted, {streams} event streams of {STREAMS}");
    let app = Program::start(&mut pypi::program("many/app.py"));
    let proxy = Launch::before_addr(&app.place().to_string())
        .admin()
        .arg("--access-log")
        .arg("off")
        .stop("spread", "2s")
        .start();
    let mut crowd = Crowd::connect(&proxy.place(), tunnels, streams);
    proxy.wait_count(&["connections", "tunnel", "websocket"], tunnels as u64);
    let told = proxy.terminate();
    let ends = crowd.follow(SPREAD + PATIENCE);
    let exit = proxy.wait_clean_exit();
    for (what, times, all) in
        [("tunnels", &ends.tunnels, tunnels), ("event streams", &ends.streams, streams)]
    {
        let histogram = Histogram::of(times.iter().map(|at| *at - told), SPREAD);
        println!("{what}, ended after the signal:\n{histogram}");
        assert_eq!(times.len(), all, "all of the {what} were told");
        histogram.assert_never_ahead_by(AHEAD);
        histogram.assert_never_at_once(AT_ONCE);
    }
    assert_eq!(proxy.reported("cut_total"), 0);
    let last = ends.last.expect("somebody has ended");
    println!("the last ended after {:?}, the process {:?} later", last - told, exit.at - last);
    assert!(exit.at - last < ms(1000), "the process stayed");
}
