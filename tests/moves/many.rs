//! As many idle connections as there are descriptors for, up to ten thousand, while one
//! client asks again and again. How long that takes is measured in `benches/compare`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebbtide::telemetry::ConnectionState;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::Side;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::pause;

const WANTED: u64 = 10_000;

/// How many fit: each has two ends in this process, and for a moment a third.
fn fitting() -> usize {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("the limit");
    let fits = most.map_or(WANTED, |most| most.saturating_sub(1500) / 2);
    usize::try_from(fits.min(WANTED)).expect("a number")
}

/// A client that asks once in a millisecond until it is told; how many answers it had.
fn ask(mut client: Client, over: &AtomicBool) -> usize {
    let mut answers = 0;
    while !over.load(Ordering::SeqCst) {
        let response = client.get("/").response();
        assert!(!response.says_close());
        answers += 1;
        pause(Duration::from_millis(1));
    }
    answers
}

#[test]
fn ten_thousand_idle_connections_move_while_somebody_asks() {
    let app = Origin::new();
    let mut elder = Side::before(app.place(), &[]);
    let successor = Side::before(app.place(), &[]);
    let count = fitting();
    let mut idle: Vec<_> = (0..count).map(|_| Client::connect(elder.place())).collect();
    elder.wait_state(ConnectionState::H1Fresh, count);
    let mut asker = Client::connect(elder.place());
    asker.get("/before").response();
    let (asked, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(asker, &asked));
        elder.tell_moves();
        let pump = scope.spawn(|| elder.hand_over_until(&successor, &over));
        successor.wait_state(ConnectionState::H1Fresh, count);
        asked.store(true, Ordering::SeqCst);
        let answers = asking.join().expect("a client");
        // It may have been on the way until then.
        over.store(true, Ordering::SeqCst);
        let moved = pump.join().expect("a pump");
        println!("{moved} moved, {answers} answers meanwhile");
        assert!(moved >= count);
    });
    for client in idle.iter_mut().step_by(97) {
        assert!(!client.get("/behind").response().says_close());
    }
}
