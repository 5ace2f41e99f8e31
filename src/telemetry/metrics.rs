//! The metrics text: Prometheus exposition format 0.0.4, written by hand.
//!
//! Owns the names, help texts and labels of the metrics. Promises that a label
//! set with a bound is always shown whole, with 0 for what never happened, so
//! that a rate over it exists from the first scrape. Does not gather: it writes
//! down a [`MetricsView`].

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use super::clock::unix_millis;
use super::connections::{ConnectionCounts, StateCounts};
use super::counters::{Family, Totals};
use crate::drain::Phase;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything the metrics text says, at one moment.
#[derive(Clone, Debug)]
pub struct MetricsView {
    /// Where the process stands.
    pub phase: Phase,
    /// Open connections by state.
    pub connections: StateCounts,
    /// What the workers counted.
    pub totals: Totals,
    /// When the shutdown began, if it did.
    pub shutdown_start: Option<SystemTime>,
    /// How long the shutdown has taken so far, if it began.
    pub shutdown_duration: Option<Duration>,
    /// Errors of the shutdown, in the order of [`Phase::ALL`].
    pub shutdown_errors: [u64; Phase::ALL.len()],
    /// Lines the access log lost.
    pub access_log_dropped: u64,
    /// The how-manieth process this is since the first was started.
    pub generation: u32,
    /// Processes that this one has replaced and that are still there: their generations,
    /// and how many connections they have.
    pub elders: Vec<(u32, u64)>,
}

/// Writes the text.
pub fn render(view: &MetricsView) -> String {
    let mut text = Exposition { out: String::with_capacity(8 << 10) };
    state(view, &mut text);
    requests(view, &mut text);
    shutdown(view, &mut text);
    text.out
}

fn state(view: &MetricsView, text: &mut Exposition) {
    text.family("ebbtide_phase", "gauge", "1 for the phase the process is in.");
    for phase in Phase::ALL {
        let here = u8::from(phase == view.phase);
        text.sample("ebbtide_phase", &[("phase", phase.name())], here);
    }
    let name = "ebbtide_connections";
    text.family(name, "gauge", "Open downstream connections.");
    for (protocol, state, count) in ConnectionCounts::from(view.connections).rows() {
        text.sample(name, &[("protocol", protocol), ("state", state)], count);
    }
    let name = "ebbtide_generation";
    text.family(name, "gauge", "Which process this is, counted across upgrades.");
    text.sample(name, &[], view.generation);
    let name = "ebbtide_elders";
    text.family(name, "gauge", "Processes that this one has replaced and that still drain.");
    text.sample(name, &[], view.elders.len());
    let name = "ebbtide_elder_connections";
    text.family(name, "gauge", "Open downstream connections of those, by generation.");
    for (generation, count) in &view.elders {
        let generation = itoa::Buffer::new().format(*generation).to_owned();
        text.sample(name, &[("generation", &generation)], count);
    }
}

fn requests(view: &MetricsView, text: &mut Exposition) {
    let totals = &view.totals;
    let name = "ebbtide_requests_in_flight";
    text.family(name, "gauge", "Requests whose response is not finished.");
    for family in Family::ALL {
        text.sample(name, &[("protocol", family.name())], totals.in_flight[family as usize]);
    }

    let name = "ebbtide_endless_responses";
    text.family(name, "gauge", "Endless responses under way.");
    for family in Family::ALL {
        text.sample(name, &[("protocol", family.name())], totals.endless[family as usize]);
    }

    let name = "ebbtide_requests_total";
    text.family(name, "counter", "Requests answered, by status code.");
    for (code, count) in totals.by_code() {
        text.sample(name, &[("code", itoa::Buffer::new().format(code))], count);
    }
    let name = "ebbtide_connections_closed_total";
    text.family(name, "counter", "Downstream connections closed, by reason.");
    for (reason, count) in totals.by_reason() {
        text.sample(name, &[("reason", reason.name())], count);
    }
    let name = "ebbtide_raced_requests_total";
    text.family(name, "counter", "Requests that arrived on an idle connection after our FIN.");
    text.sample(name, &[], totals.raced);
    let name = "ebbtide_cut_requests_total";
    text.family(name, "counter", "Requests ended by the hard deadline.");
    text.sample(name, &[], totals.cut);
    let name = "ebbtide_cancelled_requests_total";
    text.family(name, "counter", "Requests ended by a drain because their routes say so.");
    text.sample(name, &[], totals.cancelled);
    let name = "ebbtide_told_responses_total";
    text.family(name, "counter", "Endless responses ended by a drain where they may end.");
    text.sample(name, &[], totals.told);
    let name = "ebbtide_moved_connections_total";
    text.family(name, "counter", "Connections moved to a successor, by kind.");
    for (kind, count) in totals.by_kind() {
        text.sample(name, &[("kind", kind.name())], count);
    }
    let name = "ebbtide_access_log_dropped_total";
    text.family(name, "counter", "Access log lines that could not be written.");
    text.sample(name, &[], view.access_log_dropped);
}

fn shutdown(view: &MetricsView, text: &mut Exposition) {
    let name = "ebbtide_shutdown_start_time_seconds";
    text.family(name, "gauge", "When the shutdown began, in Unix time; 0 before.");
    let start = view.shutdown_start.map_or(0, unix_millis);
    text.sample(name, &[], Seconds(Duration::from_millis(start)));
    let name = "ebbtide_shutdown_duration_seconds";
    text.family(name, "gauge", "How long the shutdown has taken so far; 0 before.");
    text.sample(name, &[], Seconds(view.shutdown_duration.unwrap_or_default()));
    let name = "ebbtide_shutdown_errors_total";
    text.family(name, "counter", "Errors of the shutdown, by phase.");
    for (phase, count) in Phase::ALL.into_iter().zip(view.shutdown_errors) {
        text.sample(name, &[("phase", phase.name())], count);
    }
}

/// Seconds with milliseconds.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

struct Exposition {
    out: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One line. No label value here needs escaping: all are ours.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::telemetry::{CloseReason, ConnectionState, Counters};

    fn view() -> MetricsView {
        let counters = Arc::new(Counters::default());
        counters.request(200);
        counters.request(200);
        counters.request(503);
        counters.closed(CloseReason::BadRequest);
        counters.raced();
        counters.in_flight_add(Family::H1);
        counters.endless_add(Family::H2);
        counters.told();
        let mut connections = StateCounts::default();
        connections[ConnectionState::H1Idle.index()] = 4;
        let mut shutdown_errors = [0; Phase::ALL.len()];
        shutdown_errors[Phase::Draining as usize] = 2;
        MetricsView {
            phase: Phase::Draining,
            connections,
            totals: Totals::sum(&[counters]),
            shutdown_start: Some(UNIX_EPOCH + Duration::from_millis(1_795_309_323_456)),
            shutdown_duration: Some(Duration::from_millis(1_042)),
            shutdown_errors,
            access_log_dropped: 9,
            generation: 3,
            elders: vec![(1, 0), (2, 7)],
        }
    }

    #[test]
    fn the_text_has_every_metric_of_the_first_set() {
        let text = render(&view());
        for line in [
            "ebbtide_phase{phase=\"draining\"} 1",
            "ebbtide_phase{phase=\"serving\"} 0",
            "ebbtide_connections{protocol=\"h1\",state=\"idle\"} 4",
            "ebbtide_connections{protocol=\"h2\",state=\"active\"} 0",
            "ebbtide_connections{protocol=\"tunnel\",state=\"websocket\"} 0",
            "ebbtide_requests_in_flight{protocol=\"h1\"} 1",
            "ebbtide_requests_total{code=\"200\"} 2",
            "ebbtide_requests_total{code=\"503\"} 1",
            "ebbtide_connections_closed_total{reason=\"bad_request\"} 1",
            "ebbtide_connections_closed_total{reason=\"drain\"} 0",
            "ebbtide_raced_requests_total 1",
            "ebbtide_cut_requests_total 0",
            "ebbtide_cancelled_requests_total 0",
            "ebbtide_told_responses_total 1",
            "ebbtide_endless_responses{protocol=\"h2\"} 1",
            "ebbtide_moved_connections_total{kind=\"h1_idle\"} 0",
            "ebbtide_shutdown_start_time_seconds 1795309323.456",
            "ebbtide_shutdown_duration_seconds 1.042",
            "ebbtide_shutdown_errors_total{phase=\"draining\"} 2",
            "ebbtide_shutdown_errors_total{phase=\"cutting\"} 0",
            "ebbtide_access_log_dropped_total 9",
            "ebbtide_generation 3",
            "ebbtide_elders 2",
            "ebbtide_elder_connections{generation=\"1\"} 0",
            "ebbtide_elder_connections{generation=\"2\"} 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("\nebbtide_phase{").count(), Phase::ALL.len());
    }

    #[test]
    fn every_sample_belongs_to_the_family_announced_above_it() {
        let text = render(&view());
        let (mut family, mut seen) = ("", Vec::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(!seen.contains(&family), "{family} announced twice");
                seen.push(family);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, family);
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            }
        }
        assert_eq!(seen.len(), 18);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn before_a_shutdown_its_times_are_zero() {
        let view = MetricsView { shutdown_start: None, shutdown_duration: None, ..view() };
        let text = render(&view);
        assert!(text.contains("\nebbtide_shutdown_start_time_seconds 0.000\n"));
        assert!(text.contains("\nebbtide_shutdown_duration_seconds 0.000\n"));
    }
}
