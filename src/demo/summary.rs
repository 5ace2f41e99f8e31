//! What is left to read when it is over: the clients' account beside the proxy's.

use std::time::Duration;

use super::clients::{Counts, Kind, Tally, Way};
use super::outcome::{Outcome, Report};
use super::proxy::ended;
use super::text::{Line, Style};
use super::view::{Stop, seconds};
use crate::limits::DEMO_STOP_MAX;

/// Cut requests that are named; the drain report has them all.
const CUTS_SHOWN: usize = 5;

/// What the columns mean.
const LEGEND: [(&str, &str); 5] = [
    ("served", "the whole, right answer came"),
    ("told", "its connection ended with notice (close, GOAWAY), or while unused"),
    ("refused", "not taken: nobody listened, or GOAWAY said so; another server has it"),
    ("raced", "sent just as a kept connection closed: not executed, and sent again"),
    ("lost", "anything else: no answer, a part of one, a wrong one, an error"),
];

/// One stop.
pub(super) fn one(outcome: &Outcome) -> Vec<Line> {
    let heading = columns(&["asked", "served", "told", "refused", "raced", "lost"]);
    let mut lines = vec![Line::of(Style::Dim, format!("{:<18}{heading}", "the clients saw"))];
    lines.extend(rows(&outcome.tally).map(|(name, counts)| {
        let Counts { asked, served, told, refused, raced, .. } = counts;
        let numbers = columns(&[asked, served, told, refused, raced].map(|n| n.to_string()));
        Line::of(Style::Plain, format!("  {name:<16}{numbers}")).with_lost(&counts)
    }));
    lines.extend(LEGEND.map(|(word, meaning)| {
        Line::of(Style::Plain, format!("  {word:<9}")).with(Style::Dim, meaning)
    }));
    lines.push(Line::default());
    lines.extend(account(outcome));
    let (style, verdict) = verdict(outcome);
    lines.push(Line::of(style, verdict));
    lines
}

/// The same load twice: one proxy was ended, the other drained.
pub(super) fn two(naive: &Outcome, drain: &Outcome) -> Vec<Line> {
    let above = format!("{:<18}{:>32}{:>26}", "", "without a drain", "with a drain");
    let [left, right] = [&["served", "raced", "lost", "done"][..], &["served", "raced", "lost"]];
    let below = format!("{:<18}{}  {}", "the clients saw", columns(left), columns(right));
    let mut lines = vec![Line::of(Style::Bold, above), Line::of(Style::Dim, below)];
    for ((name, naive), (_, drain)) in rows(&naive.tally).zip(rows(&drain.tally)) {
        let before = |it: &Counts| columns(&[it.served.to_string(), it.raced.to_string()]);
        lines.push(
            Line::of(Style::Plain, format!("  {name:<16}{}", before(&naive)))
                .with_lost(&naive)
                .with(Style::Plain, columns(&[naive.executed.to_string()]) + "  " + &before(&drain))
                .with_lost(&drain),
        );
    }
    let done = "lost, but executed by the app: to ask again would do it twice";
    lines.push(Line::of(Style::Plain, "  done     ").with(Style::Dim, done));
    lines.push(Line::default());
    lines.extend(account(drain));
    for (name, outcome) in [("Without a drain", naive), ("With a drain", drain)] {
        let (style, verdict) = verdict(outcome);
        lines.push(Line::of(Style::Bold, format!("{name:<15}: ")).with(style, verdict));
    }
    lines
}

impl Line {
    fn with_lost(self, counts: &Counts) -> Line {
        let lost = counts.lost();
        let style = if lost == 0 { Style::Good } else { Style::Bad };
        self.with(style, columns(&[lost.to_string()]))
    }
}

fn columns<T: AsRef<str>>(cells: &[T]) -> String {
    cells.iter().map(|cell| format!("{:>8}", cell.as_ref())).collect()
}

fn rows(tally: &Tally) -> impl Iterator<Item = (&'static str, Counts)> {
    let kinds = Kind::ALL.map(|kind| (kind.name(), tally.of(kind)));
    kinds.into_iter().chain([("all", tally.total())])
}

/// What both sides say.
fn account(outcome: &Outcome) -> Vec<Line> {
    let total = outcome.tally.total();
    let after = total.served - outcome.before.total().served;
    let clients = format!("{} served, {after} of them after the signal", requests(total.served));
    let mut lines = vec![item("the clients", &clients)];
    let took = seconds(outcome.took);
    lines.push(item(
        "the proxy",
        &format!("ended {took} after the signal, with {}", ended(outcome.status)),
    ));
    if let Some(report) = &outcome.report {
        lines.extend(reported(report));
    }
    lines
}

/// What the drain report says.
fn reported(report: &Report) -> Vec<Line> {
    let Report { reason, requests_served, raced, cut_total, total_ms, .. } = report;
    let counts = format!(
        "{reason}; gone after {}; {requests_served} answered, {raced} raced, {cut_total} cut",
        seconds(Duration::from_millis(*total_ms)),
    );
    let closed: Vec<_> = report
        .closed
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    let closed = format!("connections closed, by reason: {}", closed.join(", "));
    let mut lines = vec![item("its report", &counts), item("", &closed)];
    for cut in report.cut.iter().take(CUTS_SHOWN) {
        let age = seconds(Duration::from_millis(cut.age_ms));
        lines.push(item("", &format!("cut: {} {} after {age}", cut.method, cut.target)));
    }
    lines
}

fn item(name: &str, text: &str) -> Line {
    Line::of(Style::Dim, format!("{name:<13}")).with(Style::Plain, text)
}

/// The one sentence.
fn verdict(outcome: &Outcome) -> (Style, String) {
    let total = outcome.tally.total();
    let mut said = if total.lost() > 0 {
        let ways = Way::ALL.map(|way| (total.lost[way as usize], way.name()));
        let ways = ways.iter().filter(|(count, _)| *count > 0);
        let ways: Vec<_> = ways.map(|(count, name)| format!("{count} {name}")).collect();
        let executed = match total.executed {
            0 => String::new(),
            executed => format!("; the app executed {executed} of them"),
        };
        format!("{} lost: {}{executed}.", requests(total.lost()), ways.join(", "))
    } else {
        "Nothing was lost.".to_owned()
    };
    if outcome.repeated > 0 {
        said += &format!(" {} executed more than once.", requests(outcome.repeated));
    }
    for doubt in outcome.doubts() {
        said += &format!(" But {doubt}.");
    }
    if outcome.is_overdue {
        said += &format!(" The proxy did not end within {DEMO_STOP_MAX:?} and was killed.");
    } else if outcome.stop == Stop::Drain && !outcome.status.success() {
        said += &format!(" The proxy ended with {}.", ended(outcome.status));
    }
    (if outcome.is_good() { Style::Good } else { Style::Bad }, said)
}

pub(super) fn requests(count: u64) -> String {
    match count {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;
    use crate::demo::clients::tests::tally;
    use crate::demo::outcome::Cut;
    use crate::demo::text::Look;

    const LOOK: Look = Look { width: 999, height: 999, colour: false, unicode: false };

    fn outcome(lost: u64) -> Outcome {
        let cut = Cut { method: "GET".into(), target: "/slow/4000".into(), age_ms: 2100 };
        Outcome {
            stop: Stop::Drain,
            tally: tally(Kind::Get, 7, lost, 0),
            before: tally(Kind::Get, 2, 0, 0),
            repeated: 0,
            took: Duration::from_millis(3900),
            status: ExitStatus::from_raw(0),
            is_overdue: false,
            was_interrupted: false,
            report: Some(Report {
                reason: "SIGTERM".into(),
                requests_served: 7,
                closed: BTreeMap::from([("cut".to_owned(), 0), ("drain".to_owned(), 4)]),
                raced: 0,
                cut: vec![cut],
                cut_total: 1,
                total_ms: 3890,
            }),
        }
    }

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| line.show(&LOOK) + "\n").collect()
    }

    fn said(outcome: &Outcome) -> String {
        text(&one(outcome)).lines().last().unwrap().to_owned()
    }

    #[test]
    fn both_accounts_stand_side_by_side() {
        let text = text(&one(&outcome(0)));
        assert!(text.starts_with(
            "the clients saw      asked  served    told refused   raced    lost\n  GET, keep-alive"
        ));
        assert!(text.ends_with(
            "the clients  7 requests served, 5 of them after the signal\n\
             the proxy    ended 3.9 s after the signal, with exit status 0\n\
             its report   SIGTERM; gone after 3.9 s; 7 answered, 0 raced, 1 cut\n             \
             connections closed, by reason: 4 drain\n             \
             cut: GET /slow/4000 after 2.1 s\n\
             Nothing was lost.\n"
        ));
    }

    #[test]
    fn the_last_sentence_names_everything_that_went_wrong() {
        assert_eq!(
            said(&outcome(3)),
            "3 requests lost: 3 error status; the app executed 1 of them."
        );
        let overdue = Outcome { is_overdue: true, repeated: 1, ..outcome(0) };
        assert_eq!(
            said(&overdue),
            "Nothing was lost. 1 request executed more than once. \
             The proxy did not end within 20s and was killed."
        );
        let failed = Outcome { status: ExitStatus::from_raw(3 << 8), ..outcome(0) };
        assert_eq!(said(&failed), "Nothing was lost. The proxy ended with exit status 3.");
        let unknown = Outcome { tally: tally(Kind::Get, 7, 0, 1), ..outcome(0) };
        assert_eq!(said(&unknown), "Nothing was lost. But what became of 1 request is not known.");
        let silent = Outcome { report: None, ..outcome(0) };
        assert_eq!(said(&silent), "Nothing was lost. But the proxy gave no report.");
        assert!(outcome(0).is_good());
        for wrong in [outcome(1), overdue, failed, unknown, silent] {
            assert!(!wrong.is_good());
        }
    }

    #[test]
    fn two_stops_are_compared_within_eighty_columns() {
        let naive = Outcome { stop: Stop::Naive, ..outcome(5) };
        let text = text(&two(&naive, &outcome(0)));
        let table: Vec<_> = text.lines().take(13).collect();
        assert!(table.iter().all(|line| line.len() < 80), "{table:#?}");
        let ends = [
            "Without a drain: 5 requests lost: 5 error status; the app executed 1 of them.",
            "With a drain   : Nothing was lost.",
        ];
        assert!(text.ends_with(&format!("{}\n", ends.join("\n"))), "{text}");
    }
}
