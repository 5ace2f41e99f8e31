//! What the tests share: the real binary as a child ([`process`]), a scripted
//! app server ([`origin`]), raw clients of HTTP/1 ([`client`], with TLS [`tls`])
//! and HTTP/2 ([`h2`]), its successors ([`generations`]), clients of other make ([`peers`], [`grpc`]), and the admin interface
//! ([`admin`]).
//!
//! Everything is threads and blocking sockets with a bound on every wait: what
//! a test says is what happens, in that order.

#![allow(dead_code, reason = "not every test binary uses every part")]

pub(crate) mod admin;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod generations;
pub(crate) mod grpc;
pub(crate) mod h2;
pub(crate) mod identity;
pub(crate) mod kernel;
pub(crate) mod origin;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod pypi;
pub(crate) mod search;
pub(crate) mod shelf;
pub(crate) mod sse;
pub(crate) mod timeline;
pub(crate) mod tls;
pub(crate) mod wire;
pub(crate) mod ws;

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen and usually happens at
/// once. Generous: the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A deliberate silence of a client or an origin: think time, slow writing.
/// Never a way to wait for the proxy.
#[expect(
    clippy::disallowed_methods,
    reason = "threads, not a runtime: a peer that is slow on purpose"
)]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Looks until `state` is there, at most `bound`.
///
/// # Panics
/// With `what` when it did not come in time.
pub(crate) fn within<T>(bound: Duration, what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(start.elapsed() < bound, "not within {bound:?}: {what}");
        pause(Duration::from_millis(1));
    }
}

/// Milliseconds, for reading.
pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The octets that bodies are made of: position-dependent, so that a lost, doubled
/// or moved piece is seen.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(pattern_at).collect()
}

/// The octet at one position of [`pattern`].
pub(crate) fn pattern_at(i: usize) -> u8 {
    b'a' + ((i ^ (i >> 8) ^ (i >> 16)) % 26) as u8
}

/// A small generator (splitmix64): one seed, one run.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator that always gives the same row for `seed`.
    pub(crate) const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) const fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n`.
    pub(crate) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A span between `low` and `high`, each order of magnitude alike, so that the
    /// microseconds around an event are searched as well as the milliseconds.
    pub(crate) fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_secs_f64().max(1e-6).ln(), high.as_secs_f64().ln());
        let at = self.below(1 << 32) as f64 / (1u64 << 32) as f64;
        Duration::from_secs_f64((low + (high - low) * at).exp())
    }
}
