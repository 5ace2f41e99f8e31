//! As many idle connections as there are descriptors for, up to ten thousand, while one
//! client asks a thousand times a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ebbtide::telemetry::ConnectionState;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::Side;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::pause;
use crate::support::wire::Place;

const WANTED: u64 = 10_000;

/// How many fit: each has two ends in this process, and for a moment a third.
fn fitting() -> usize {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("the limit");
    let fits = most.map_or(WANTED, |most| most.saturating_sub(1500) / 2);
    usize::try_from(fits.min(WANTED)).expect("a number")
}

/// How long each answer took, of a client that asks once in a millisecond until `over`.
fn ask(place: &Place, over: &AtomicBool) -> Vec<Duration> {
    let mut client = Client::connect(place);
    let mut took = Vec::new();
    let mut next = Instant::now();
    while !over.load(Ordering::SeqCst) {
        next += Duration::from_millis(1);
        pause(next.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        let response = client.get("/").response();
        assert!(!response.says_close());
        took.push(start.elapsed());
    }
    took.sort();
    took
}

/// The same while `act` runs, which says when it is over.
fn while_asked<T>(place: &Place, act: impl FnOnce(&AtomicBool) -> T) -> (Vec<Duration>, T) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(place, &over));
        let result = act(&over);
        over.store(true, Ordering::SeqCst);
        (asking.join().expect("a client"), result)
    })
}

#[test]
fn ten_thousand_idle_connections_move_while_somebody_asks() {
    let app = Origin::new();
    let mut elder = Side::before(app.place(), &[]);
    let successor = Side::before(app.place(), &[]);
    let count = fitting();
    let mut idle: Vec<_> = (0..count).map(|_| Client::connect(elder.place())).collect();
    elder.wait_state(ConnectionState::H1Fresh, count);
    // Not those that wait for the first moment in a task of their own.
    pause(Duration::from_millis(500));
    let place = elder.place().clone();
    let (calm, ()) = while_asked(&place, |_| pause(Duration::from_millis(600)));
    let (moving, last) = while_asked(&place, |over| {
        pause(Duration::from_millis(50));
        elder.tell_moves();
        let start = Instant::now();
        std::thread::scope(|scope| {
            let pump = scope.spawn(|| elder.hand_over_until(&successor, over));
            successor.wait_state(ConnectionState::H1Fresh, count);
            let last = start.elapsed();
            pause(Duration::from_millis(300).saturating_sub(last));
            over.store(true, Ordering::SeqCst);
            assert!(pump.join().expect("a pump") >= count);
            last
        })
    });
    let at = |took: &[Duration], part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    println!(
        "{count} moved in {last:?}; p99 {:?} calm, {:?} moving ({} answers); worst {:?}",
        at(&calm, 990),
        at(&moving, 990),
        moving.len(),
        at(&moving, 1000),
    );
    assert!(last < Duration::from_secs(5), "{last:?}");
    for client in idle.iter_mut().step_by(97) {
        assert!(!client.get("/behind").response().says_close());
    }
}
