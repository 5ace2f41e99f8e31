//! What all clients of a proxy have seen, and the tables of it.

use std::process::ExitStatus;
use std::time::Duration;

use ebbtide::demo::clients::{Counts, Kind, Tally, Way};
use serde_json::{Value, json};

use super::load;
use crate::field::Entry;
use crate::figures::Summary;
use crate::program::Make;
use crate::section::{Section, Table};

/// The sum over all stops of a proxy.
#[derive(Default)]
pub(super) struct Account {
    kinds: [Counts; Kind::COUNT],
    /// Requests that the app executed more than once.
    pub(super) repeated: u64,
    /// Milliseconds from a signal to the exit.
    exits: Vec<f64>,
    /// How processes ended that did not end well.
    failures: Vec<String>,
}

impl Account {
    pub(super) fn add(&mut self, tally: &Tally) {
        for (sum, kind) in self.kinds.iter_mut().zip(Kind::ALL) {
            *sum += tally.of(kind);
        }
    }

    /// A process has ended, so long after it was asked.
    pub(super) fn ended(&mut self, status: ExitStatus, took: Duration) {
        self.exits.push(took.as_secs_f64() * 1e3);
        self.left(status);
    }

    /// A process has ended, nobody looked when.
    pub(super) fn left(&mut self, status: ExitStatus) {
        if !status.success() {
            self.failures.push(status.to_string());
        }
    }

    pub(super) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for &counts in &self.kinds {
            total += counts;
        }
        total
    }

    pub(super) fn json(&self) -> Value {
        let kinds: Vec<_> = Kind::ALL.iter().zip(&self.kinds).map(kind_json).collect();
        json!({
            "kinds": kinds, "executed_twice": self.repeated,
            "exit_ms": self.exits, "bad_exits": self.failures,
        })
    }
}

fn kind_json((kind, counts): (&Kind, &Counts)) -> Value {
    let lost: serde_json::Map<_, _> = Way::ALL
        .iter()
        .map(|&way| (way.name().to_owned(), json!(counts.lost[way as usize])))
        .collect();
    json!({
        "kind": kind.name(), "asked": counts.asked, "served": counts.served,
        "told": counts.told, "refused": counts.refused, "raced": counts.raced,
        "lost": lost, "lost_but_executed": counts.executed,
    })
}

const HEADER: [&str; 9] = [
    "proxy",
    "served",
    "lost",
    "of these reset",
    "lost but executed",
    "raced",
    "refused",
    "told",
    "ms to the exit",
];

/// Both tables: by proxy, and by kind of client.
pub(super) fn report(title: String, method: &str, accounts: &[(Entry<'_>, Account)]) -> Section {
    let method = format!(
        "{} clients over HTTP/1.1 and HTTP/2: short and slow GET and POST, mostly idle ones, \
         one connection for each request, and answers, downloads and uploads of a second. {method} \
         *lost*: no whole and right answer, by whatever way. *raced*: sent on a kept connection \
         that the proxy closed at that moment, and not seen by the app; HTTP has no message \
         against it but to wait, and clients send such a request again. *told*: connections \
         whose end cost nobody a request.",
        load::clients()
    );
    let mut section = Section::new(title, method, &HEADER);
    for (entry, account) in accounts {
        let total = account.total();
        let reset = total.lost[Way::Fresh as usize] + total.lost[Way::Reset as usize];
        let exits = Summary::of(&account.exits);
        let exits =
            if exits.count == 0 { "–".to_owned() } else { format!("{:.0}", exits.median) };
        let counts = [total.served, total.lost(), reset, total.executed, total.raced];
        let counts = counts.into_iter().chain([total.refused, total.told]);
        let cells = counts.map(|count| count.to_string()).chain([exits]);
        section.add(&entry.name(), cells, account.json());
        if entry.program.make == Make::Ebbtide {
            section.faults = faults(account);
        }
    }
    section.tables.push(by_kind(accounts));
    section
}

/// What must not be in an account of ours.
pub(super) fn faults(account: &Account) -> Vec<String> {
    let mut faults: Vec<_> =
        account.failures.iter().map(|status| format!("it ended with {status}")).collect();
    for (kind, counts) in Kind::ALL.iter().zip(&account.kinds) {
        for way in Way::ALL.into_iter().filter(|&way| counts.lost[way as usize] > 0) {
            let (lost, kind) = (counts.lost[way as usize], kind.name());
            faults.push(format!("{kind}: {lost} lost: {}", way.name()));
        }
        if counts.under_way() > 0 {
            faults.push(format!("{}: {} without an end", kind.name(), counts.under_way()));
        }
    }
    if account.repeated > 0 {
        faults.push(format!("the app executed {} requests more than once", account.repeated));
    }
    faults
}

/// Lost, those of them by a reset, raced, and refused.
fn by_kind(accounts: &[(Entry<'_>, Account)]) -> Table {
    let names = accounts.iter().map(|(entry, _)| entry.name());
    let heading = "lost, reset, raced, refused of".to_owned();
    let mut table = Table::new(std::iter::once(heading).chain(names));
    for kind in Kind::ALL {
        let cell = |account: &Account| {
            let counts = account.kinds[kind as usize];
            let reset = counts.lost[Way::Reset as usize] + counts.lost[Way::Fresh as usize];
            let Counts { raced, refused, asked, .. } = counts;
            format!("{}, {reset}, {raced}, {refused} of {asked}", counts.lost())
        };
        let cells = accounts.iter().map(|(_, account)| cell(account));
        table.add(std::iter::once(kind.name().to_owned()).chain(cells));
    }
    table
}
