//! What became of the requests, counted by kind of client.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use super::kind::Kind;

/// How a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Way {
    /// The connection was made, and reset before its first request came through to the
    /// app: the proxy accepted it, or let the kernel accept it, and never served it.
    Fresh,
    /// Reset, without an octet of an answer; in HTTP/2 the connection or the stream.
    Reset,
    /// Closed in order, without an octet of an answer.
    Closed,
    /// The answer ended in the middle, and the client could see that.
    Truncated,
    /// The answer ended as if it were whole, but it is not the one that the app gave:
    /// a silent truncation, or another request's answer.
    Wrong,
    /// Another status than 200, such as 502, 503 or 504.
    Status,
    /// No end of the answer within the client's patience.
    Stalled,
}

impl Way {
    /// How many ways there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All ways, in the order in which they are shown.
    pub const ALL: [Way; 7] = [
        Way::Fresh,
        Way::Reset,
        Way::Closed,
        Way::Truncated,
        Way::Wrong,
        Way::Status,
        Way::Stalled,
    ];

    /// What happened, to stand behind a number.
    pub const fn name(self) -> &'static str {
        match self {
            Way::Fresh => "reset before anything was served",
            Way::Reset => "reset",
            Way::Closed => "closed without an answer",
            Way::Truncated => "truncated",
            Way::Wrong => "wrong or silently truncated",
            Way::Status => "error status",
            Way::Stalled => "never answered",
        }
    }
}

/// What became of requests and connections. With no request under way, `asked` is the
/// sum of `served`, `refused`, `raced` and all `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests begun.
    pub asked: u64,
    /// Requests with the whole, right answer.
    pub served: u64,
    /// Connections whose end was known before it cost a request: after
    /// `Connection: close` or GOAWAY, or with a FIN that was seen between two requests.
    pub told: u64,
    /// Requests that certainly nobody has taken: connecting was refused (counted once
    /// until it succeeds again), or the HTTP/2 stream was (above the last id of GOAWAY,
    /// or REFUSED_STREAM). Whoever has another endpoint sends them there.
    pub refused: u64,
    /// Requests on a connection that had served before and that the proxy closed at
    /// the same moment: no octet of an answer, and they did not come through to the
    /// app. The client has sent another in its place, on a new connection.
    pub raced: u64,
    /// Requests lost, by [`Way`].
    pub lost: [u64; Way::COUNT],
    /// How many of the lost the app executed all the same; known at the end.
    pub executed: u64,
}

impl Counts {
    /// All requests lost.
    pub fn lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Requests under way.
    pub fn under_way(&self) -> u64 {
        self.asked.saturating_sub(self.served + self.refused + self.raced + self.lost())
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.asked += other.asked;
        self.served += other.served;
        self.told += other.told;
        self.refused += other.refused;
        self.raced += other.raced;
        self.executed += other.executed;
        for (sum, more) in self.lost.iter_mut().zip(other.lost) {
            *sum += more;
        }
    }
}

/// What all clients have counted at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally([Counts; Kind::COUNT]);

impl Tally {
    /// The counts of one kind.
    pub fn of(&self, kind: Kind) -> Counts {
        self.0[kind as usize]
    }

    /// The counts of all kinds together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.0 {
            total += counts;
        }
        total
    }
}

/// The counters themselves; reading them costs the clients nothing.
#[derive(Debug, Default)]
pub(super) struct Counters([Row; Kind::COUNT]);

/// The counters of one kind.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) asked: AtomicU64,
    pub(super) served: AtomicU64,
    pub(super) told: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) raced: AtomicU64,
    pub(super) lost: [AtomicU64; Way::COUNT],
    pub(super) executed: AtomicU64,
}

impl Counters {
    pub(super) fn row(&self, kind: Kind) -> &Row {
        &self.0[kind as usize]
    }

    /// What is counted so far.
    pub(super) fn read(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally(Kind::ALL.map(|kind| {
            let row = self.row(kind);
            // What is begun last of all, so that ends never outnumber beginnings.
            let mut counts = Counts {
                asked: 0,
                served: read(&row.served),
                told: read(&row.told),
                refused: read(&row.refused),
                raced: read(&row.raced),
                lost: Way::ALL.map(|way| read(&row.lost[way as usize])),
                executed: read(&row.executed),
            };
            counts.asked = read(&row.asked);
            counts
        }))
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_stands_at_its_place() {
        for (place, way) in Way::ALL.into_iter().enumerate() {
            assert_eq!(way as usize, place);
        }
    }

    #[test]
    fn a_total_is_the_sum_over_the_kinds() {
        let counters = Counters::default();
        for kind in [Kind::Get, Kind::H2] {
            count(&counters.row(kind).asked);
            count(&counters.row(kind).lost[Way::Status as usize]);
        }
        count(&counters.row(Kind::H2).asked);
        let tally = counters.read();
        assert_eq!((tally.total().asked, tally.total().lost()), (3, 2));
        assert_eq!((tally.of(Kind::H2).under_way(), tally.of(Kind::Get).under_way()), (1, 0));
        assert_eq!(tally.of(Kind::Post), Counts::default());
    }
}
