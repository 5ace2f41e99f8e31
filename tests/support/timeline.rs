//! What happened when, as a test saw it: printed when a run fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A shared list of moments, in the order in which they were noted.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    start: Instant,
    moments: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Timeline {
    /// An empty one that begins now.
    pub(crate) fn new() -> Timeline {
        Timeline { start: Instant::now(), moments: Arc::default() }
    }

    /// Writes down that `what` happened now.
    pub(crate) fn note(&self, what: impl Into<String>) -> Instant {
        let now = Instant::now();
        self.note_at(now, what);
        now
    }

    /// Writes down that `what` happened at `when`.
    pub(crate) fn note_at(&self, when: Instant, what: impl Into<String>) {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.push((when, what.into()));
    }

    /// The moments in the order of time, one a line, in milliseconds since the start.
    pub(crate) fn told(&self) -> String {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone();
        moments.sort_by_key(|moment| moment.0);
        moments
            .iter()
            .map(|(when, what)| {
                let at = when.saturating_duration_since(self.start);
                format!("{:>10.3} ms  {what}\n", at.as_secs_f64() * 1e3)
            })
            .collect()
    }
}
