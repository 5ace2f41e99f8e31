//! Puma and gunicorn, each with an app that writes down what it executes. Their
//! keep-alive is what they have by default: 20 s and 2 s.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::foreign::Foreign;
use crate::ground::{Ground, Role};

/// What starts an app server on a ground, with the file in which the app writes.
pub(crate) type Kind = fn(&Ground, &Path) -> Foreign;

/// An app server at work.
#[derive(Debug)]
pub(crate) struct App {
    _server: Foreign,
    record: PathBuf,
    _directory: TempDir,
}

impl App {
    /// Starts one.
    pub(crate) fn start(kind: Kind, ground: &Ground) -> App {
        let directory = tempfile::tempdir().expect("a directory");
        let record = directory.path().join("executed");
        App { _server: kind(ground, &record), record, _directory: directory }
    }

    /// What it executed so far: a line `METHOD ID` for each request.
    pub(crate) fn executed(&self) -> String {
        std::fs::read_to_string(&self.record).expect("the record")
    }
}

/// How many requests an app server works on at once.
const THREADS: &str = "16";

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file)
}

/// Puma, one process.
pub(crate) fn puma(ground: &Ground, record: &Path) -> Foreign {
    let place = ground.place(Role::App);
    let mut command = Foreign::command("/usr/bin/puma");
    command.arg("--bind").arg(format!("tcp://{place}"));
    command.args(["--environment", "production", "--threads"]).arg(format!("{THREADS}:{THREADS}"));
    command.arg(source("puma/config.ru")).env("EXECUTED", record);
    let directory = tempfile::tempdir().expect("a directory");
    Foreign::start("Puma", command, Signal::KILL, directory, &place)
}

/// gunicorn, one worker of threads.
pub(crate) fn gunicorn(ground: &Ground, record: &Path) -> Foreign {
    let place = ground.place(Role::App);
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Foreign::command("/usr/bin/gunicorn");
    command.arg("--bind").arg(place.to_string());
    command.args(["--worker-class", "gthread", "--threads", THREADS]);
    command.arg("--worker-tmp-dir").arg(directory.path());
    command.arg("--chdir").arg(source("gunicorn")).arg("app:app");
    command.env("EXECUTED", record).env("PYTHONDONTWRITEBYTECODE", "1");
    Foreign::start("gunicorn", command, Signal::QUIT, directory, &place)
}
