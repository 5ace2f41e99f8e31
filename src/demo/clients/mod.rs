//! The clients of the demo: every kind there is, each counting what became of its
//! requests.
//!
//! Owns one thread for all of them, so that they fit beside what they load. Promises
//! that every answer is checked, octet by octet, and that every request is counted
//! once: as served, refused, raced or lost (see [`Counts`]). The clients go on until
//! they are told to finish; one that is refused waits a little and tries again, so
//! that the same clients see a restart.

mod account;
mod body;
mod caller;
mod goaway;
mod h1;
mod h2;
mod kind;
mod pace;
mod tally;
#[cfg(test)]
pub(super) mod tests;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::account::Account;
use self::pace::Rng;
use self::tally::Counters;
use super::ledger::Ledger;
use super::thread::Worker;
use crate::limits::{DEMO_PATIENCE, DEMO_SETTLE};

pub use kind::Kind;
pub use tally::{Counts, Tally, Way};

/// How many clients there are of each kind, and how they work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    counts: [usize; Kind::COUNT],
    /// How long long answers, downloads and uploads take; at most a minute.
    pub long: Duration,
    /// How long a busy client thinks between two requests, on average.
    pub think: Duration,
}

impl Mix {
    /// No client yet.
    pub const fn none() -> Mix {
        let (long, think) = (Duration::from_secs(4), Duration::from_millis(10));
        Mix { counts: [0; Kind::COUNT], long, think }
    }

    /// What the demo shows: some hundred connections of all kinds, on which there is
    /// always something under way that takes seconds.
    pub const fn demo() -> Mix {
        Mix::none()
            .with(Kind::Get, 12)
            .with(Kind::Post, 8)
            .with(Kind::SlowGet, 6)
            .with(Kind::SlowPost, 6)
            .with(Kind::OneEach, 4)
            .with(Kind::MostlyIdle, 40)
            .with(Kind::Long, 8)
            .with(Kind::Download, 8)
            .with(Kind::Upload, 8)
            .with(Kind::H2, 8)
    }

    /// With so many clients of this kind.
    #[must_use]
    pub const fn with(mut self, kind: Kind, count: usize) -> Mix {
        self.counts[kind as usize] = count;
        self
    }

    /// How many clients there are of a kind.
    pub const fn of(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    counters: Arc<Counters>,
    finish: watch::Sender<bool>,
    worker: Worker,
}

impl Clients {
    /// Starts the clients of `mix` on a thread of their own; they ask at `target` for
    /// what the app of this ledger does. The thread inherits the cores that the caller
    /// may use.
    ///
    /// # Errors
    ///
    /// If there is no thread or no runtime to be had.
    pub fn start(target: SocketAddr, ledger: &Arc<Ledger>, mix: Mix) -> io::Result<Clients> {
        let counters = Arc::new(Counters::default());
        let (finish, finished) = watch::channel(false);
        let (ledger, shared) = (Arc::clone(ledger), Arc::clone(&counters));
        let worker = Worker::start("demo-clients", move |told| async move {
            let account = Rc::new(Account {
                target,
                ledger,
                counters: shared,
                finish: finished,
                doubts: RefCell::default(),
            });
            tokio::select! {
                () = work(account, mix) => {}
                // Nobody wants to know any more.
                _ = told => {}
            }
        })?;
        Ok(Clients { counters, finish, worker })
    }

    /// What they have counted so far. Requests that raced, or were lost without an octet
    /// of an answer, may still be counted otherwise at the end.
    pub fn tally(&self) -> Tally {
        self.counters.read()
    }

    /// Lets the clients end what is under way, and begin nothing more; what they have
    /// counted, finally. Takes as long as the longest request.
    pub fn finish(self) -> Tally {
        self.finish.send_replace(true);
        self.worker.join();
        self.counters.read()
    }
}

async fn work(account: Rc<Account>, mix: Mix) {
    let mut rng = Rng::new(1);
    let mut clients = JoinSet::new();
    for kind in Kind::ALL {
        for _ in 0..mix.of(kind) {
            let (account, rng) = (Rc::clone(&account), rng.fork());
            match kind {
                Kind::H2 => clients.spawn_local(h2::run(account, mix, rng)),
                _ => clients.spawn_local(caller::run(account, kind, mix, rng)),
            };
        }
    }
    let mut finish = account.finish.clone();
    // Whoever could tell them is gone: that is the end too.
    let _gone = finish.wait_for(|finish| *finish).await.is_err();
    let ended = async { while clients.join_next().await.is_some() {} };
    // Each wait of theirs has a bound of its own.
    let _all = timeout(DEMO_PATIENCE * 2, ended).await;
    sleep(DEMO_SETTLE).await;
    account.settle();
}
