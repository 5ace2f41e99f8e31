//! The tests: every case against ours or who is named, and against others.

use std::sync::LazyLock;

use serde_json::Value;

use crate::corpus::{Case, Expect, load};
use crate::exceptions::without_exceptions;
use crate::frames::Frames;
use crate::raw::Raw;
use crate::recorder::Recorder;
use crate::run::{Patience, Playable, Verdicts, Whom, deviations, run};
use crate::scores;
use crate::subject::{Elsewhere, Kind};
use crate::support::process::Launch;

/// The cases of one protocol, and what they have shown of ours.
struct Shown<S> {
    cases: Vec<Case<S>>,
    verdicts: Verdicts,
}

impl<S: Playable> Shown<S> {
    fn of(directory: &str) -> Shown<S> {
        let cases = load(directory);
        let verdicts = run(&Whom::named(), &cases);
        Shown { cases, verdicts }
    }

    #[track_caller]
    fn assert_right(&self) {
        let elsewhere = Elsewhere::named().is_some();
        let verdicts = if elsewhere { &self.verdicts } else { &without_exceptions(&self.verdicts) };
        let wrong = deviations(&self.cases, verdicts);
        let count = self.cases.len();
        assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// Puts the same cases to the others, and keeps the scores.
    #[track_caller]
    fn compare(&self, section: &str) {
        if Elsewhere::named().is_some() {
            println!("no scores: the environment names another server");
            return;
        }
        let peers = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Ebbtide);
        let peers: Vec<(String, Verdicts)> =
            peers.map(|kind| (kind.label(), run(&Whom::Kind(kind), &self.cases))).collect();
        let mut columns = vec![(Kind::Ebbtide.label(), &self.verdicts)];
        columns.extend(peers.iter().map(|(label, verdicts)| (label.clone(), verdicts)));
        for (label, verdicts) in &columns {
            println!("{label}:\n{}\n", deviations(&self.cases, verdicts).join("\n"));
        }
        scores::keep(section, &scores::table(&self.cases, &columns));
    }
}

static RAW: LazyLock<Shown<Raw>> = LazyLock::new(|| Shown::of("requests"));
static FRAMES: LazyLock<Shown<Frames>> = LazyLock::new(|| Shown::of("h2"));

#[test]
fn every_raw_request_is_refused_or_arrives_one_way_only() {
    RAW.assert_right();
}

#[test]
fn every_http2_request_is_refused_or_arrives_one_way_only() {
    FRAMES.assert_right();
}

#[test]
fn every_refusal_of_a_raw_request_has_its_reason_in_the_log() {
    let origin = Recorder::new();
    let proxy = Launch::before_addr(&origin.place().to_string()).start();
    let wrong = RAW.cases.iter().map(|case| (&case.promise, &case.script));
    let wrong = wrong.filter(|(p, _)| p.expect(true) == Expect::Reject && !p.unfinished);
    let mut sent = 0;
    for (promise, script) in wrong {
        let patience = Patience::of(promise, &Whom::Kind(Kind::Ebbtide));
        script.exchange(&proxy.place(), "/fence", patience);
        sent += 1;
    }
    proxy.terminate();
    proxy.wait_exit();
    let log = proxy.access_log();
    // Neither the origin's 200 nor its 444.
    let (told, untold): (Vec<&Value>, Vec<&Value>) = log
        .iter()
        .filter(|line| line["status"] != 200 && line["status"] != 444)
        .partition(|line| line["error"].as_str().is_some_and(|error| !error.is_empty()));
    assert!(untold.is_empty(), "without a reason: {untold:?}");
    assert!(told.len() * 20 > sent * 19, "{} of {sent} refusals are in the log", told.len());
}

#[test]
fn the_scores_of_raw_requests_are_those_that_are_written_down() {
    RAW.compare("Raw HTTP/1 requests");
}

#[test]
fn the_scores_of_http2_requests_are_those_that_are_written_down() {
    FRAMES.compare("HTTP/2 requests");
}
