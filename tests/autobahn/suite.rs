//! The client of the suite, run to its end.

use std::path::Path;

use crate::support::pypi;
use crate::verdict::{Verdicts, parse};

/// Runs the cases that fit these patterns against a server; who issued its certificate,
/// if it has one. The client bounds each case, and all.
pub(crate) fn run(url: &str, trusted: Option<&Path>, patterns: &[&str]) -> Verdicts {
    let mut command = pypi::program("autobahn/client.py");
    command.arg(url).arg("--cases").args(patterns);
    if let Some(trusted) = trusted {
        command.arg("--ca").arg(trusted);
    }
    let done = command.output().expect("the client starts");
    let complaints = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "the client of {url} failed:\n{complaints}");
    parse(&String::from_utf8_lossy(&done.stdout))
}
