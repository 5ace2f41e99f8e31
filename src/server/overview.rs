//! What the admin interface shows: read from where it is counted, when asked.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::upgrade::ledger::Ledger;
use crate::admin::{Status, View};
use crate::drain::{Census, Phase, Plan, Scope};
use crate::handoff::{Gauge, State as Elder, Tally};
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
    /// Those of the workers.
    pub(super) counters: Vec<Arc<Counters>>,
    /// Those of the control thread.
    pub(super) counted_here: Arc<Counters>,
    pub(super) access: Sink,
    pub(super) tunnels: Tunnels,
    pub(super) state: RefCell<State>,
    /// Which process this is, counted across upgrades.
    pub(super) generation: u32,
    /// What the other generations have counted.
    pub(super) ledger: RefCell<Ledger>,
    /// How the elders are.
    pub(super) elders: RefCell<Vec<Elder>>,
    /// Why this process cannot be replaced, if something else is the reason than its phase.
    pub(super) succession: Cell<Option<&'static str>>,
    /// Why it can start no successor here, whatever its phase.
    pub(super) no_successor: Option<String>,
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

    /// What this process has counted.
    pub(super) fn own_totals(&self) -> Totals {
        Totals::sum(self.counters.iter().chain([&self.counted_here]))
    }

    /// The same, with what the other generations have counted.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.own_totals();
        totals.add(&self.ledger.borrow().sum());
        totals
    }

    /// Whether this process can be replaced now; else why not. `starts`: it would have to
    /// start its successor.
    pub(super) fn may_be_replaced(&self, starts: bool) -> Result<(), String> {
        if let Some(why) = self.succession.get() {
            return Err(why.to_owned());
        }
        if let Some(why) = self.no_successor.as_ref().filter(|_| starts) {
            return Err(why.clone());
        }
        match self.phase() {
            Phase::Serving => Ok(()),
            Phase::Starting => Err("this process is starting".to_owned()),
            phase => Err(format!("this process is being stopped ({phase})")),
        }
    }

    /// How this process is, for its successor.
    pub(super) fn elder_state(&self) -> Elder {
        let state = self.state.borrow();
        let left = state.hard_deadline().and_then(|deadline| deadline.left(Instant::now()));
        let totals = self.own_totals();
        let connections = self.states();
        Elder {
            generation: self.generation,
            pid: std::process::id(),
            phase: state.phase.to_string(),
            deadline_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            connections: counted(&connections, ConnectionState::name),
            waiting: counted(&connections, |state| waits_for(state).to_owned()),
            moved: moved(&totals),
            counted: totals.tally(),
        }
    }

    /// The plan of the drain under way, if there is one.
    pub(super) fn plan(&self) -> Option<Plan> {
        self.state.borrow().stop.map(|stop| stop.by)
    }

    /// The generations that are still there, and how many connections each of them has.
    pub(super) fn elders_left(&self) -> Vec<(u32, u64)> {
        let elders = self.elders.borrow();
        elders.iter().map(|elder| (elder.generation, elder.connections.values().sum())).collect()
    }

    /// Whether another process has the listeners.
    pub(super) fn is_outgoing(&self) -> bool {
        self.state.borrow().is_outgoing()
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

/// How many there are of each name.
fn counted(connections: &StateCounts, name: impl Fn(ConnectionState) -> String) -> Gauge {
    let mut gauge = Gauge::new();
    for (state, count) in ConnectionState::ALL.into_iter().zip(connections) {
        if *count > 0 {
            *gauge.entry(name(state)).or_default() += *count as u64;
        }
    }
    gauge
}

/// What this process has handed over, by kind.
fn moved(totals: &Totals) -> Tally {
    let kinds = totals.by_kind().filter(|(_, count)| *count > 0);
    kinds.map(|(kind, count)| (kind.name().to_owned(), count)).collect()
}

/// Why a connection is still with an elder.
fn waits_for(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::H1Fresh => "a first request",
        ConnectionState::H1Reading => "the rest of a request head",
        ConnectionState::H1Active => "the end of a response",
        ConnectionState::H1Idle => "one more request",
        ConnectionState::H1Closing => "the client's end of a connection",
        ConnectionState::H2Active => "the end of HTTP/2 streams",
        ConnectionState::H2Idle => "the end of an HTTP/2 connection",
        ConnectionState::H2Closing => "the client's end of an HTTP/2 connection",
        ConnectionState::TunnelWebSocket => "the end of a WebSocket",
        ConnectionState::TunnelOpaque => "the end of a tunnel",
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
            generation: self.generation,
            phase: state.phase.to_string(),
            deadline_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            connections: self.connections(),
            requests: totals.requests(),
            raced: totals.raced,
            cut: totals.cut,
            endless: totals.endless.iter().sum(),
            told: totals.told,
            moved: moved(&self.own_totals()),
            elders: self.elders.borrow().iter().cloned().map(Into::into).collect(),
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
            generation: self.generation,
            elders: self.elders_left(),
        })
    }
}
