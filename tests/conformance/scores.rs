//! The scores of ours and of others beside each other, kept in `scores.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::corpus::Case;
use crate::judge::Verdict;
use crate::run::Verdicts;

/// How the cases of a theme came out.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ok: usize,
    unsafe_: usize,
    strict: usize,
    hang: usize,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Ok => self.ok += 1,
            Verdict::Unsafe(_) => self.unsafe_ += 1,
            Verdict::Strict(_) => self.strict += 1,
            Verdict::Hang(_) => self.hang += 1,
        }
    }

    fn cell(self) -> String {
        let named = [(self.unsafe_, "unsafe"), (self.strict, "strict"), (self.hang, "hang")];
        let wrong = named.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}"));
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() {
            self.ok.to_string()
        } else {
            format!("{} ({})", self.ok, wrong.join(", "))
        }
    }
}

/// The lines of a table: a row for each theme, a column for each subject.
pub(crate) fn table<S>(cases: &[Case<S>], columns: &[(String, &Verdicts)]) -> String {
    let mut rows: BTreeMap<&str, (usize, Vec<Tally>)> = BTreeMap::new();
    for case in cases {
        for theme in [case.theme.as_str(), "~"] {
            let empty = || (0, vec![Tally::default(); columns.len()]);
            let (count, tallies) = rows.entry(theme).or_insert_with(empty);
            *count += 1;
            for (tally, (_, verdicts)) in tallies.iter_mut().zip(columns) {
                tally.count(&verdicts[&case.name]);
            }
        }
    }
    let heads: Vec<&str> = columns.iter().map(|(label, _)| label.as_str()).collect();
    let rule = "| --- ".repeat(heads.len());
    let mut lines = vec![format!("| theme | cases | {} |", heads.join(" | "))];
    lines.push(format!("| --- | --- {rule}|"));
    for (theme, (count, tallies)) in rows {
        let cells: Vec<String> = tallies.iter().map(|tally| tally.cell()).collect();
        let theme = if theme == "~" { "all" } else { theme };
        lines.push(format!("| {theme} | {count} | {} |", cells.join(" | ")));
    }
    lines.join("\n")
}

/// One writer at a time.
static FILE: Mutex<()> = Mutex::new(());

/// Holds the table of a section against the file, where our own column is a promise,
/// or writes it there when `TESTS_CONFORMANCE_WRITE` says so.
///
/// # Panics
/// When our column differs.
pub(crate) fn keep(section: &str, table: &str) {
    println!("{section}\n\n{table}\n");
    let _one = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = std::fs::read_to_string(path()).expect("scores.md");
    if std::env::var_os("TESTS_CONFORMANCE_WRITE").is_some() {
        std::fs::write(path(), with_section(&text, section, table)).expect("scores.md");
        return;
    }
    let kept = section_of(&text, section).unwrap_or_default();
    assert_eq!(
        ours(&kept),
        ours(table),
        "our column of `{section}` in scores.md; write it with TESTS_CONFORMANCE_WRITE=1"
    );
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/scores.md")
}

/// Theme, number of cases, and our score, row by row.
fn ours(table: &str) -> Vec<String> {
    let rows = table.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').take(4).collect::<Vec<_>>().join("|")).collect()
}

fn section_of(text: &str, section: &str) -> Option<String> {
    let (_, behind) = text.split_once(&format!("## {section}\n"))?;
    Some(behind.split("\n## ").next().unwrap_or_default().to_owned())
}

fn with_section(text: &str, section: &str, table: &str) -> String {
    let new = format!("## {section}\n\n{table}\n");
    match section_of(text, section) {
        None => format!("{}\n\n{new}", text.trim_end()),
        Some(old) => {
            let old = format!("## {section}\n{old}");
            let more = text.split_once(&old).is_some_and(|(_, behind)| !behind.trim().is_empty());
            text.replace(&old, if more { &new } else { new.trim_end() }).trim_end().to_owned()
                + "\n"
        }
    }
}

#[test]
fn a_section_is_replaced_and_the_others_stay() {
    let text = "# Scores\n";
    let both = with_section(&with_section(text, "A", "| a |"), "B", "| b |");
    assert_eq!(both, "# Scores\n\n## A\n\n| a |\n\n## B\n\n| b |\n");
    assert_eq!(with_section(&both, "A", "| c |"), "# Scores\n\n## A\n\n| c |\n\n## B\n\n| b |\n");
    assert_eq!(with_section(&both, "B", "| c |"), "# Scores\n\n## A\n\n| a |\n\n## B\n\n| c |\n");
}
