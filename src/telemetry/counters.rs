//! What each worker counts.
//!
//! Owns the counters behind metrics, status and the drain report. Promises that
//! counting costs a load and a store: each [`Counters`] has one writer, its
//! worker, and any thread may read. Does not count open connections (the census
//! of [`crate::drain`] does).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::moved::MovedKind;

/// Why a downstream connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The client closed first.
    Client,
    /// A response said `Connection: close`, at the client's or the app's wish.
    Response,
    /// Idle longer than `timeouts.idle`.
    Idle,
    /// The process is draining.
    Drain,
    /// Older than `limits.connection_age`.
    Age,
    /// A head, body or send timeout.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The request could not be understood.
    BadRequest,
    /// The app server failed in the middle of a response.
    Upstream,
    /// A connection limit.
    Limit,
    /// The hard deadline.
    Cut,
    /// A socket error.
    Error,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [CloseReason; 12] = [
        Self::Client,
        Self::Response,
        Self::Idle,
        Self::Drain,
        Self::Age,
        Self::Timeout,
        Self::Tls,
        Self::BadRequest,
        Self::Upstream,
        Self::Limit,
        Self::Cut,
        Self::Error,
    ];

    /// The name used in metrics and the drain report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Response => "response",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Age => "age",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::BadRequest => "bad_request",
            Self::Upstream => "upstream",
            Self::Limit => "limit",
            Self::Cut => "cut",
            Self::Error => "error",
        }
    }
}

/// The protocols that requests in flight are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// HTTP/1.0 and HTTP/1.1
    H1,
    /// HTTP/2
    H2,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 2] = [Family::H1, Family::H2];

    /// The name used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Family::H1 => "h1",
            Family::H2 => "h2",
        }
    }
}

const CODE_MIN: u16 = 100;
const CODE_MAX: u16 = 599;
/// One place for each code, and place 0 for whatever is not one.
const CODES: usize = (CODE_MAX - CODE_MIN) as usize + 2;

/// One worker's counters. Every method that counts is for the worker alone: two
/// writers would lose counts (nothing worse), because none of them locks the bus.
#[derive(Debug)]
// Two workers' counters never share a cache line.
#[repr(align(128))]
pub struct Counters {
    codes: [AtomicU64; CODES],
    closed: [AtomicU64; CloseReason::ALL.len()],
    raced: AtomicU64,
    cut: AtomicU64,
    in_flight: [AtomicU64; 2],
    told: AtomicU64,
    cancelled: AtomicU64,
    endless: [AtomicU64; 2],
    moved: [AtomicU64; MovedKind::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            codes: [const { AtomicU64::new(0) }; CODES],
            closed: [const { AtomicU64::new(0) }; CloseReason::ALL.len()],
            raced: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            in_flight: [const { AtomicU64::new(0) }; 2],
            told: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            endless: [const { AtomicU64::new(0) }; 2],
            moved: [const { AtomicU64::new(0) }; MovedKind::ALL.len()],
        }
    }
}

fn place(code: u16) -> usize {
    match code {
        CODE_MIN..=CODE_MAX => usize::from(code - CODE_MIN) + 1,
        _ => 0,
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Counters {
    /// A request was answered with this status code.
    pub fn request(&self, code: u16) {
        add(&self.codes[place(code)], 1);
    }

    /// A connection was closed.
    pub fn closed(&self, reason: CloseReason) {
        add(&self.closed[reason as usize], 1);
    }

    /// A successor has a connection that was ours.
    pub fn moved(&self, kind: MovedKind) {
        add(&self.moved[kind as usize], 1);
    }

    /// Octets of a request arrived after our FIN.
    pub fn raced(&self) {
        add(&self.raced, 1);
    }

    /// A request was ended by the hard deadline.
    pub fn cut(&self) {
        add(&self.cut, 1);
    }

    /// An endless response was ended by a drain, and its client could be told.
    pub fn told(&self) {
        add(&self.told, 1);
    }

    /// A request was ended by a drain because its route says so.
    pub fn cancelled(&self) {
        add(&self.cancelled, 1);
    }

    /// An endless response has begun.
    pub fn endless_add(&self, family: Family) {
        add(&self.endless[family as usize], 1);
    }

    /// An endless response has ended, however it did.
    pub fn endless_sub(&self, family: Family) {
        add(&self.endless[family as usize], u64::MAX);
    }

    /// A request head was read.
    pub fn in_flight_add(&self, family: Family) {
        add(&self.in_flight[family as usize], 1);
    }

    /// A request ended, however it did.
    pub fn in_flight_sub(&self, family: Family) {
        add(&self.in_flight[family as usize], u64::MAX);
    }
}

/// The counters of all workers together, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    codes: [u64; CODES],
    closed: [u64; CloseReason::ALL.len()],
    /// Requests that arrived after our FIN.
    pub raced: u64,
    /// Requests ended by the hard deadline.
    pub cut: u64,
    /// Requests whose head was read and whose response is not finished, by [`Family`].
    pub in_flight: [u64; 2],
    /// Endless responses that a drain has ended, and whose clients could be told.
    pub told: u64,
    /// Requests that a drain has ended because their routes say so.
    pub cancelled: u64,
    /// Endless responses that are under way, by [`Family`].
    pub endless: [u64; 2],
    /// Connections that a successor has taken, by [`MovedKind`].
    pub moved: [u64; MovedKind::ALL.len()],
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            codes: [0; CODES],
            closed: [0; CloseReason::ALL.len()],
            raced: 0,
            cut: 0,
            in_flight: [0; 2],
            told: 0,
            cancelled: 0,
            endless: [0; 2],
            moved: [0; MovedKind::ALL.len()],
        }
    }
}

impl Totals {
    /// Adds up the workers' counters.
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a Arc<Counters>>) -> Self {
        let mut totals = Self::default();
        for worker in workers {
            for (sum, counter) in totals.codes.iter_mut().zip(&worker.codes) {
                *sum += counter.load(Relaxed);
            }
            for (sum, counter) in totals.closed.iter_mut().zip(&worker.closed) {
                *sum += counter.load(Relaxed);
            }
            totals.raced += worker.raced.load(Relaxed);
            totals.cut += worker.cut.load(Relaxed);
            for (sum, counter) in totals.in_flight.iter_mut().zip(&worker.in_flight) {
                *sum = sum.wrapping_add(counter.load(Relaxed));
            }
            totals.told += worker.told.load(Relaxed);
            totals.cancelled += worker.cancelled.load(Relaxed);
            for (sum, counter) in totals.endless.iter_mut().zip(&worker.endless) {
                *sum = sum.wrapping_add(counter.load(Relaxed));
            }
            for (sum, counter) in totals.moved.iter_mut().zip(&worker.moved) {
                *sum += counter.load(Relaxed);
            }
        }
        totals
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.codes.iter().sum()
    }

    /// The status codes that were answered, with their counts; code 0 stands for
    /// numbers that are no status code.
    pub fn by_code(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let code = |place| if place == 0 { 0 } else { CODE_MIN - 1 + place };
        (0u16..).map(code).zip(self.codes.iter().copied()).filter(|&(_, n)| n > 0)
    }

    /// Connections that have moved, by kind.
    pub fn by_kind(&self) -> impl Iterator<Item = (MovedKind, u64)> + '_ {
        MovedKind::ALL.into_iter().zip(self.moved)
    }

    /// The place of a status code, of which 0 stands for all that are none.
    pub(super) fn code_mut(&mut self, code: u16) -> &mut u64 {
        &mut self.codes[place(code)]
    }

    /// The place of a reason.
    pub(super) fn closed_mut(&mut self, reason: CloseReason) -> &mut u64 {
        &mut self.closed[reason as usize]
    }

    /// Connections closed, by reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (CloseReason, u64)> + '_ {
        CloseReason::ALL.into_iter().zip(self.closed.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_counters_add_up() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        for (worker, code) in [(0, 200), (1, 200), (1, 100), (0, 599), (0, 99), (1, 600)] {
            workers[worker].request(code);
        }
        workers[0].closed(CloseReason::Client);
        workers[1].closed(CloseReason::BadRequest);
        workers[1].raced();
        workers[0].cut();
        workers[0].in_flight_add(Family::H1);
        workers[1].in_flight_add(Family::H1);
        workers[1].in_flight_sub(Family::H1);

        let totals = Totals::sum(&workers);
        let codes: Vec<_> = totals.by_code().collect();
        assert_eq!(codes, [(0, 2), (100, 1), (200, 2), (599, 1)]);
        assert_eq!(totals.requests(), 6);
        assert_eq!((totals.raced, totals.cut, totals.in_flight), (1, 1, [1, 0]));
        let closed: Vec<_> = totals.by_reason().filter(|r| r.1 > 0).collect();
        assert_eq!(closed, [(CloseReason::Client, 1), (CloseReason::BadRequest, 1)]);
    }

    #[test]
    fn a_request_that_ends_on_another_worker_does_not_wrap_the_gauge() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        workers[0].in_flight_add(Family::H1);
        workers[0].in_flight_add(Family::H1);
        workers[1].in_flight_sub(Family::H1);
        assert_eq!(Totals::sum(&workers).in_flight, [1, 0]);
    }

    #[test]
    fn reasons_are_in_the_order_of_their_places() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
