//! CPU time for a unit of work, beside other proxies on the same machine.
//!
//! The same proxy differs by 15 to 20 % from one second to the next, so figures
//! of different runs cannot be compared. All proxies run at once and are loaded
//! in turn, for somewhat less than a second each, in random order; ratios are
//! formed within a round. Three rounds show a factor, not a per cent; fifty are good for about 5 %.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::json;

use crate::field::{Entry, Field};
use crate::figures::{Summary, shuffled};
use crate::program::{Make, Variant};
use crate::running::Running;
use crate::section::Section;
use crate::support::proxy::Doors;
use crate::support::{Error, host};

/// Does a window of work; how many units that were.
pub(crate) type Work = Box<dyn FnMut() -> Result<u64, Error>>;

/// One row of this kind.
pub(crate) struct Steady<'a> {
    pub(crate) title: &'a str,
    pub(crate) method: String,
    pub(crate) entries: Vec<Entry<'a>>,
    pub(crate) upstream: SocketAddr,
    pub(crate) unit: Unit,
    /// Connects to a proxy, and does some work unmeasured.
    pub(crate) warm_up: &'a dyn Fn(&Doors) -> Result<Work, Error>,
    /// What is aimed at beside nginx: the largest ratio.
    pub(crate) aim: Option<f64>,
}

/// What CPU time is divided by, and in which words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Request,
    Message,
    Octet,
}

impl Unit {
    fn header(self) -> [&'static str; 4] {
        match self {
            Self::Request => ["proxy", "CPU µs per request", "ebbtide / it", "requests/s"],
            Self::Message => ["proxy", "CPU µs per message", "ebbtide / it", "messages/s"],
            Self::Octet => ["proxy", "CPU s per GB", "ebbtide / it", "GB/s"],
        }
    }

    /// CPU seconds for one unit, as shown.
    fn cost(self, seconds: f64) -> f64 {
        seconds * if self == Self::Octet { 1e9 } else { 1e6 }
    }

    /// Units per second, as shown.
    fn rate(self, units: f64) -> f64 {
        units / if self == Self::Octet { 1e9 } else { 1.0 }
    }
}

/// One proxy of the row.
struct Candidate<'a> {
    entry: Entry<'a>,
    running: Running,
    work: Work,
    /// One figure for each round.
    costs: Vec<f64>,
    rates: Vec<f64>,
}

impl Candidate<'_> {
    fn measure_window(&mut self, unit: Unit) -> Result<(), Error> {
        let pid = self.running.process.id();
        let (started, before) = (Instant::now(), host::cpu_time(pid)?);
        let name = self.entry.name();
        let units = (self.work)().map_err(|error| format!("{name}: {error}"))? as f64;
        let (spent, elapsed) = (host::cpu_time(pid)? - before, started.elapsed());
        self.costs.push(unit.cost(spent.as_secs_f64() / units));
        self.rates.push(unit.rate(units / elapsed.as_secs_f64()));
        Ok(())
    }
}

/// Measures so many rounds.
pub(crate) fn measure(field: &Field, row: Steady<'_>, rounds: usize) -> Result<Section, Error> {
    let mut candidates = Vec::new();
    for (number, &entry) in row.entries.iter().enumerate() {
        let running = field.start(number, entry, row.upstream)?;
        let work =
            (row.warm_up)(&running.doors).map_err(|error| format!("{}: {error}", entry.name()))?;
        candidates.push(Candidate { entry, running, work, costs: Vec::new(), rates: Vec::new() });
    }
    for round in 1..=rounds {
        eprintln!("compare: {}: round {round} of {rounds}", row.title);
        for index in shuffled(candidates.len()) {
            candidates[index].measure_window(row.unit)?;
        }
    }
    check_logs(&candidates)?;
    Ok(report(&row, &candidates))
}

/// Who has to write a log, and did not, had less to do.
fn check_logs(candidates: &[Candidate<'_>]) -> Result<(), Error> {
    for candidate in candidates.iter().filter(|it| it.entry.variant == Variant::Logged) {
        if candidate.running.logged()? == 0 {
            return Err(format!("{} wrote no access log", candidate.entry.name()).into());
        }
    }
    Ok(())
}

fn report(row: &Steady<'_>, candidates: &[Candidate<'_>]) -> Section {
    let mut section = Section::new(row.title, row.method.clone(), &row.unit.header());
    let own = &candidates[0];
    for candidate in candidates {
        let (cost, rate) = (Summary::of(&candidate.costs), Summary::of(&candidate.rates));
        let ratio = Summary::of_ratios(&own.costs, &candidate.costs);
        let is_own = candidate.entry.program.make == Make::Ebbtide;
        let shown = if is_own { "–".to_owned() } else { ratio.as_ratio() };
        let name = candidate.entry.name();
        let raw = json!({
            "costs": candidate.costs, "rates": candidate.rates,
            "cost": cost.json(), "rate": rate.json(), "ratio": ratio.json(),
        });
        let rate = if row.unit == Unit::Octet {
            format!("{:.2}", rate.median)
        } else {
            format!("{:.0}", rate.median)
        };
        section.add(&name, [cost.to_string(), shown, rate], raw);
        let is_nginx = candidate.entry.program.make == Make::Nginx;
        // nginx as it comes: what it can be tuned to is shown, and not aimed at.
        let counts = is_nginx && candidate.entry.variant != Variant::Unbuffered;
        if let Some(most) = row.aim.filter(|_| counts) {
            let pairs = ratio.count;
            section.aim(format!("CPU beside {name}, median of {pairs} pairs"), ratio.median, most);
        }
    }
    section
}
