//! The request bodies: no two of them alike, and known to both ends.

use std::time::Duration;

use bytes::Bytes;

use super::kind::Sends;
use crate::demo::app::Checksum;

/// The time between two pieces of a body that is sent slowly.
pub(super) const PIECE: Duration = Duration::from_millis(50);

/// Octets that fill each piece.
const FILLING: usize = 4000;

impl Sends {
    /// How many pieces there are.
    pub(super) fn pieces(self) -> u64 {
        match self {
            Sends::Nothing => 0,
            Sends::Small => 1,
            Sends::Slowly(time) => (time.as_millis() / PIECE.as_millis()).max(1) as u64,
        }
    }

    /// A piece of the body of request `id`.
    pub(super) fn piece(self, id: u64, number: u64) -> Bytes {
        match self {
            Sends::Nothing => Bytes::new(),
            Sends::Small => Bytes::from(format!("order {id}\n")),
            Sends::Slowly(_) => Bytes::from(format!("{id} {number} {:.<FILLING$}\n", "")),
        }
    }

    /// How many octets the whole body has, and their checksum.
    pub(super) fn sum(self, id: u64) -> (usize, Checksum) {
        let mut checksum = Checksum::default();
        let mut octets = 0;
        for number in 0..self.pieces() {
            let piece = self.piece(id, number);
            checksum.add(&piece);
            octets += piece.len();
        }
        (octets, checksum)
    }
}
