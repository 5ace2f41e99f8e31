//! An instant after which something is over.

use std::time::{Duration, Instant};

/// An absolute instant, or never. Made once by whoever decides, then passed
/// down: nobody below makes a new one of a duration of his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline that never comes.
    pub const NEVER: Deadline = Deadline(None);

    /// `after` from `start`; a duration too long for the clock never ends.
    pub fn after(start: Instant, after: Duration) -> Self {
        Deadline(start.checked_add(after))
    }

    /// At this instant.
    pub fn at(instant: Instant) -> Self {
        Deadline(Some(instant))
    }

    /// So much later; never, if that is too far for the clock.
    pub fn plus(self, length: Duration) -> Deadline {
        Deadline(self.0.and_then(|at| at.checked_add(length)))
    }

    /// The earlier of the two.
    pub fn nearer(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.min(b))),
            (a, b) => Deadline(a.or(b)),
        }
    }

    /// The later of the two.
    pub fn later(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.max(b))),
            _ => Deadline::NEVER,
        }
    }

    /// Whether it has come.
    pub fn is_over(self, now: Instant) -> bool {
        self.0.is_some_and(|at| now >= at)
    }

    /// The time left, zero once it is over; `None` if it never comes.
    pub fn left(self, now: Instant) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(now))
    }

    /// The instant; `None` if it never comes.
    pub fn instant(self) -> Option<Instant> {
        self.0
    }
}
