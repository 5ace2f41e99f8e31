//! How a stop ended: the clients' account, and the proxy's own.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::clients::Tally;
use super::summary::requests;
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
            && self.doubts().is_empty()
    }

    /// What is missing for the accounts to be believed.
    pub(super) fn doubts(&self) -> Vec<String> {
        let total = self.tally.total();
        let refused = self.before.total().refused;
        let mut doubts = Vec::new();
        if total.under_way() > 0 {
            doubts.push(format!("what became of {} is not known", requests(total.under_way())));
        }
        if total.served == 0 && !self.was_interrupted {
            doubts.push("nobody was served at all".to_owned());
        }
        if refused > 0 {
            doubts.push(format!("{} refused before the signal", requests(refused)));
        }
        if self.stop == Stop::Drain && self.report.is_none() {
            doubts.push("the proxy gave no report".to_owned());
        }
        doubts
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
