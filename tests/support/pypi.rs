//! Python programs that need projects from PyPI, which `tests/run` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's Python, which is the one that the projects were installed for.
const PYTHON: &str = "/usr/bin/python3";

/// A file below `tests/`.
pub(crate) fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file)
}

/// A program below `tests/` that finds those projects.
#[track_caller]
pub(crate) fn program(file: &str) -> Command {
    let mut command = python();
    command.arg(source(file));
    command
}

/// A program that one of those projects is.
#[track_caller]
pub(crate) fn module(name: &str) -> Command {
    let mut command = python();
    command.args(["-m", name]);
    command
}

#[track_caller]
fn python() -> Command {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/pypi");
    let complete = installed.join("complete");
    assert!(complete.exists(), "{} is missing; tests/run installs it", complete.display());
    let mut command = Command::new(PYTHON);
    command.env("PYTHONPATH", installed).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
