//! Cases that come out otherwise than they should, each with its reason, kept in
//! `exceptions.txt`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::judge::Verdict;
use crate::run::Verdicts;

/// Takes the known exceptions out of verdicts: what is left has to be right.
///
/// # Panics
/// When an exception has no reason, or is none (any more).
pub(crate) fn without_exceptions(verdicts: &Verdicts) -> Verdicts {
    let mut verdicts = verdicts.clone();
    for (name, reason) in read() {
        assert!(reason.len() > 20, "a reason for the exception {name}");
        if let Some(verdict) = verdicts.get_mut(&name) {
            assert_ne!(*verdict, Verdict::Ok, "{name} is no exception any more");
            *verdict = Verdict::Ok;
        }
    }
    verdicts
}

/// The names of the exceptions and their reasons.
pub(crate) fn read() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/exceptions.txt");
    let text = std::fs::read_to_string(path).expect("exceptions.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once(": ").expect("NAME: REASON");
            (name.to_owned(), reason.to_owned())
        })
        .collect()
}
