//! The pages name what the code says: causes, events, metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::telemetry::CloseReason;

const FAILURES: &str = include_str!("failures.md");
const SIGNS: &str = include_str!("signs.md");

/// The sources without their unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            found.push((path, code));
        }
    }
    found
}

/// What stands in quotes right behind `before`, with white space between.
fn quoted_after(code: &str, before: &str) -> BTreeSet<String> {
    let behind = code.split(before).skip(1);
    let word = |text: &str| {
        let (word, _) = text.trim_start().strip_prefix('"')?.split_once('"')?;
        let plain =
            !word.is_empty() && word.bytes().all(|it| it == b'_' || it.is_ascii_lowercase());
        plain.then(|| word.to_owned())
    };
    behind.filter_map(word).collect()
}

fn assert_names(page: &str, words: &BTreeSet<String>) {
    let missing: Vec<_> = words.iter().filter(|it| !page.contains(&format!("`{it}`"))).collect();
    assert!(missing.is_empty(), "not in the manual: {missing:?}");
}

#[test]
fn every_failure_has_its_line() {
    let failure = include_str!("../proxy/failure.rs");
    let (_, word) = failure.split_once("pub fn word(").unwrap();
    let (word, _) = word.split_once("pub fn detail(").unwrap();
    let words = quoted_after(word, "=>");
    assert!(words.len() > 20, "{words:?}");
    assert_names(FAILURES, &words);
}

#[test]
fn every_event_has_its_line() {
    let mut events = BTreeSet::new();
    for (_, code) in sources() {
        for level in ["Error", "Warn", "Info"] {
            events.extend(quoted_after(&code, &format!("(Level::{level},")));
        }
    }
    assert!(events.len() > 20, "{events:?}");
    assert_names(SIGNS, &events);
}

#[test]
fn every_metric_and_every_reason_has_its_place() {
    let metrics = include_str!("../telemetry/metrics.rs");
    let (code, _) = metrics.split_once("#[cfg(test)]").unwrap();
    let names: BTreeSet<_> =
        code.split('"').filter(|it| it.starts_with("ebbtide_") && !it.contains(' ')).collect();
    assert_eq!(names.len(), 18, "{names:?}");
    for name in names {
        assert!(SIGNS.contains(&format!("`{name}")), "{name} is not in the manual");
    }
    let reasons = CloseReason::ALL.map(|reason| reason.name().to_owned());
    assert_names(SIGNS, &BTreeSet::from(reasons));
}

#[test]
fn the_access_log_has_the_fields_that_the_manual_names() {
    let access = include_str!("../telemetry/access.rs");
    let (_, json) = access.split_once("fn json(").unwrap();
    let (json, _) = json.split_once("fn combined(").unwrap();
    let fields: BTreeSet<_> = json
        .split("\\\":")
        .filter_map(|it| Some(it.rsplit_once("\\\"")?.1.to_owned()))
        .filter(|it| it.bytes().all(|it| it == b'_' || it.is_ascii_lowercase()))
        .collect();
    assert!(fields.len() > 15, "{fields:?}");
    assert_names(SIGNS, &fields);
}
