//! Python programs that need projects from PyPI, which `tests/run` installs: children that
//! say what they see in lines of JSON.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::wire::Place;
use super::{PATIENCE, within};

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

/// A child, and the lines that it has said. Killed on drop.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Program {
    /// Starts one.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Program {
        // A proxy for all that would stand between the test's own.
        command.env_remove("http_proxy").env_remove("https_proxy");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let said = serde_json::from_str(&line).expect("a line of JSON");
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            }
        });
        Program { child, stdin, lines }
    }

    /// Writes a line to it.
    pub(crate) fn tell(&mut self, line: impl Display) {
        let mut stdin = self.stdin.as_ref().expect("its input has not ended");
        writeln!(stdin, "{line}").expect("it listens");
    }

    /// What it has said so far.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it listens, if its first line is a port.
    pub(crate) fn place(&self) -> Place {
        within(PATIENCE, "a program to listen", || {
            let port = self.lines().first()?.as_u64()?;
            Some(Place::parse(&format!("127.0.0.1:{port}")))
        })
    }

    /// Ends its input, by which it knows that it has to end, and waits for that.
    pub(crate) fn end(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
