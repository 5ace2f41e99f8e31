//! What the app can be asked for, and what the whole answer to it is.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::DEMO_WORK_MAX;

/// The header field with which a client numbers its request, and the app its answer.
pub const ID: &str = "demo-id";

/// The time between two pieces of a stream.
pub(super) const PIECE: Duration = Duration::from_millis(100);

/// Octets that fill each piece of a stream.
const FILLING: usize = 1000;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// `/fast`: a small answer at once.
    Fast,
    /// `/slow/MS`: a small answer after this time.
    Slow(Duration),
    /// `/stream/MS`: an answer in pieces that takes this time.
    Stream(Duration),
    /// `/upload`: an answer with the count of octets received and their checksum.
    Upload,
}

impl Work {
    /// The work that a target asks for; its time is bounded.
    pub fn of_target(target: &str) -> Option<Work> {
        let time = |text: &str| {
            let time = Duration::from_millis(text.parse().ok()?);
            (time <= DEMO_WORK_MAX).then_some(time)
        };
        match target {
            "/fast" => Some(Work::Fast),
            "/upload" => Some(Work::Upload),
            _ => match target.strip_prefix("/slow/") {
                Some(text) => time(text).map(Work::Slow),
                None => time(target.strip_prefix("/stream/")?).map(Work::Stream),
            },
        }
    }

    /// The whole body of the answer to request `id`, which sent this body.
    pub fn body(self, id: u64, sent: Checksum) -> Bytes {
        match self {
            Work::Fast | Work::Slow(_) => Bytes::from(format!("{id} done, {sent}\n")),
            Work::Upload => Bytes::from(format!("{id} received, {sent}\n")),
            Work::Stream(_) => {
                let pieces = (0..=self.pieces()).map(|number| self.piece(id, number));
                Bytes::from(pieces.collect::<Vec<_>>().concat())
            }
        }
    }

    /// How many pieces of a stream come before its end.
    pub(super) fn pieces(self) -> u64 {
        match self {
            Work::Stream(time) => (time.as_millis() / PIECE.as_millis()) as u64,
            _ => 0,
        }
    }

    /// A piece of a stream; the last one names itself.
    pub(super) fn piece(self, id: u64, number: u64) -> Bytes {
        if number == self.pieces() {
            return Bytes::from(format!("{id} end\n"));
        }
        Bytes::from(format!("{id} {number} {:.<FILLING$}\n", ""))
    }
}

/// The target that asks for it.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Fast => f.write_str("/fast"),
            Work::Slow(time) => write!(f, "/slow/{}", time.as_millis()),
            Work::Stream(time) => write!(f, "/stream/{}", time.as_millis()),
            Work::Upload => f.write_str("/upload"),
        }
    }
}

/// How many octets there were, and which (FNV-1a): a piece that is missing, doubled or
/// moved changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    octets: u64,
    hash: u64,
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum { octets: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Checksum {
    /// Goes on with these octets.
    pub fn add(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        for octet in octets {
            self.hash = (self.hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets, checksum {:016x}", self.octets, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_asks_for_the_work_that_it_names() {
        let seconds = Duration::from_secs;
        for work in [Work::Fast, Work::Upload, Work::Slow(seconds(0)), Work::Stream(DEMO_WORK_MAX)]
        {
            assert_eq!(Work::of_target(&work.to_string()), Some(work));
        }
        for target in ["/", "/slow", "/slow/", "/slow/x", "/stream/99999999", "/fast/", "*"] {
            assert_eq!(Work::of_target(target), None, "{target}");
        }
    }

    #[test]
    fn a_stream_is_its_pieces_and_ends_with_its_id() {
        let work = Work::Stream(Duration::from_millis(250));
        let body = work.body(7, Checksum::default());
        assert_eq!(body.len(), 2 * (FILLING + "7 0 \n".len()) + "7 end\n".len());
        assert!(body.starts_with(b"7 0 ...") && body.ends_with(b"7 end\n"));
    }

    #[test]
    fn a_checksum_sees_what_was_moved() {
        let of = |octets: &[u8]| {
            let mut checksum = Checksum::default();
            checksum.add(octets);
            checksum
        };
        assert_eq!(of(b"ab"), of(b"ab"));
        assert_ne!(of(b"ab"), of(b"ba"));
        assert_ne!(of(b"\0"), of(b"\0\0"));
        assert_eq!(of(b"").to_string(), "0 octets, checksum cbf29ce484222325");
    }
}
