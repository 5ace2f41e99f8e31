//! What the admin interface shows: read from where it is counted, when asked.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc;

use crate::admin::{Commands, Progress, Refusal, Status, View};
use crate::drain::{Census, Phase, Scope};
use crate::lifecycle::State;
use crate::telemetry::connections::StateCounts;
use crate::telemetry::{
    ConnectionCounts, ConnectionState, Counters, MetricsView, Sink, Totals, Tunnels, metrics,
};

/// The generation of a process that took nothing over from another.
pub(super) const FIRST_GENERATION: u32 = 1;

/// The state of the whole process, as far as anybody may ask.
pub(super) struct Overview {
    pub(super) scope: Scope<ConnectionState>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) access: Sink,
    pub(super) tunnels: Tunnels,
    pub(super) state: RefCell<State>,
    pub(super) shutdown_start: Cell<Option<SystemTime>>,
    pub(super) errors: RefCell<[u64; Phase::ALL.len()]>,
}

impl Overview {
    /// Connections by state.
    pub(super) fn states(&self) -> StateCounts {
        counts(&self.scope.census())
    }

    /// The same, as it is shown.
    pub(super) fn connections(&self) -> ConnectionCounts {
        ConnectionCounts::from(self.states())
    }

    /// What the workers have counted.
    pub(super) fn totals(&self) -> Totals {
        Totals::sum(&self.counters)
    }

    /// The phase.
    pub(super) fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    /// Counts an error of a phase.
    pub(super) fn count_error(&self, phase: Phase) {
        let mut errors = self.errors.borrow_mut();
        if let Some(at) = Phase::ALL.iter().position(|known| *known == phase) {
            errors[at] += 1;
        }
    }
}

fn counts(census: &Census<ConnectionState>) -> StateCounts {
    ConnectionState::ALL.map(|state| census.of(state))
}

impl View for Overview {
    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> bool {
        self.phase() == Phase::Serving
    }

    fn status(&self) -> Status {
        let state = self.state.borrow();
        let left = state.hard_deadline().and_then(|deadline| deadline.left(Instant::now()));
        let totals = self.totals();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            generation: FIRST_GENERATION,
            phase: state.phase.to_string(),
            deadline_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            connections: self.connections(),
            requests: totals.requests(),
            raced: totals.raced,
            cut: totals.cut,
            endless: totals.endless.iter().sum(),
            told: totals.told,
            tunnels: self.tunnels.oldest(),
        }
    }

    fn metrics(&self) -> String {
        let state = self.state.borrow();
        metrics::render(&MetricsView {
            phase: state.phase,
            connections: self.states(),
            totals: self.totals(),
            shutdown_start: self.shutdown_start.get(),
            shutdown_duration: state.stop.map(|stop| stop.began.elapsed()),
            shutdown_errors: *self.errors.borrow(),
            access_log_dropped: self.access.dropped(),
            generation: FIRST_GENERATION,
            moved: Default::default(),
        })
    }
}

impl Commands for Overview {
    fn upgrade(&self, _: Option<PathBuf>) -> Result<mpsc::Receiver<Progress>, Refusal> {
        Err(Refusal("this version cannot be replaced".to_owned()))
    }
}
