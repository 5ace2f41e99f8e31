//! How a stop ended: the clients' account, and the proxy's own.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::clients::Tally;
use super::view::Stop;

/// Both accounts.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) stop: Stop,
    /// What the clients counted in all, and before the stop began.
    pub(super) tally: Tally,
    pub(super) before: Tally,
    /// Requests that the app executed more than once.
    pub(super) repeated: u64,
    /// From the signal to the end of the proxy.
    pub(super) took: Duration,
    pub(super) status: ExitStatus,
    /// The proxy had outlived all bounds, and was ended.
    pub(super) is_overdue: bool,
    /// Somebody had no time.
    pub(super) was_interrupted: bool,
    pub(super) report: Option<Report>,
}

impl Outcome {
    /// Whether the stop was as it should be.
    pub(super) fn is_good(&self) -> bool {
        self.stop == Stop::Drain
            && self.tally.total().lost() == 0
            && self.repeated == 0
            && self.status.success()
    }
}

/// The part of the drain report that a person is shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Report {
    pub(super) reason: String,
    pub(super) requests_served: u64,
    pub(super) closed: BTreeMap<String, u64>,
    pub(super) raced: u64,
    pub(super) cut: Vec<Cut>,
    pub(super) cut_total: u64,
    pub(super) total_ms: u64,
}

/// A request that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Cut {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) age_ms: u64,
}

impl Report {
    /// The report that an event is.
    pub(super) fn of(event: &Value) -> Option<Report> {
        Report::deserialize(event).ok()
    }
}
