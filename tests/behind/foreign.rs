//! A server of other make: a child in a directory of its own, waited for, and ended with
//! its own children.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, pause, within};

/// A running server. Ended on drop, what it said printed when the test fails.
#[derive(Debug)]
pub(crate) struct Foreign {
    name: &'static str,
    child: Mutex<Child>,
    ends_by: Signal,
    directory: TempDir,
}

impl Foreign {
    /// A command for a program that `tests/run` installs.
    pub(crate) fn command(program: &str) -> Command {
        assert!(Path::new(program).exists(), "{program} is missing; tests/run installs it");
        Command::new(program)
    }

    /// Starts it in this directory and waits until it accepts at this place. With the
    /// signal it ends at once and takes its children along.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        ends_by: Signal,
        directory: TempDir,
        place: &Place,
    ) -> Foreign {
        let said = File::create(directory.path().join("said")).expect("a file");
        let errors = said.try_clone().expect("the same file");
        command.current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(said).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let foreign = Foreign { name, child: Mutex::new(child), ends_by, directory };
        let Place::Tcp(address) = place else { panic!("{place} is no TCP address") };
        within(PATIENCE, &format!("{name} to accept"), || {
            let ended = foreign.lock().try_wait().expect("the child's state");
            assert!(ended.is_none(), "{name} ended: {}", foreign.said());
            TcpStream::connect_timeout(address, ms(500)).ok().map(drop)
        });
        foreign
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// What it wrote so far.
    pub(crate) fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.path().join(name));
        ["said", "log"].map(|name| read(name).unwrap_or_default()).concat()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the last that {} said:\n{}\n---", self.name, last.join("\n"));
        }
        let mut child = self.lock();
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let _ = id.map(|id| kill_process(id, self.ends_by));
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            pause(ms(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
