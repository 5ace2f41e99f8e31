//! Request ids: those of clients that may pass, and our own.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// What may pass as somebody else's request id: 1 to 128 of `[A-Za-z0-9._-]`.
pub(super) fn is_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(octet))
}

/// Ids that no two requests share: a random half that each worker draws at its
/// start, and a count.
#[derive(Debug)]
pub struct RequestIds {
    worker: u64,
    count: Cell<u64>,
}

impl RequestIds {
    /// A sequence of its own.
    pub fn new() -> Self {
        let draw = || RandomState::new().hash_one(std::process::id());
        RequestIds { worker: draw(), count: Cell::new(draw() >> 16) }
    }

    /// The next one.
    #[inline]
    pub(super) fn next(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.get();
        self.count.set(count + 1);
        let mut text = [0; 32];
        for (at, octet) in
            self.worker.to_be_bytes().into_iter().chain(count.to_be_bytes()).enumerate()
        {
            text[2 * at] = DIGITS[usize::from(octet >> 4)];
            text[2 * at + 1] = DIGITS[usize::from(octet & 15)];
        }
        text
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        RequestIds::new()
    }
}
