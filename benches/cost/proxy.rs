//! The process that is measured: started as a user would, stopped by SIGTERM.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, host};

/// A minute, because it may start under callgrind.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How often a stopping process is looked at; the resolution of its stop time.
const STOP_RESOLUTION: Duration = Duration::from_micros(200);

/// Lines of its output shown when it does not start.
const SHOWN_LINES: usize = 20;

/// How to start ebbtide.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) upstream: SocketAddr,
    pub(crate) access_log: &'a str,
    /// A program to run it under, with its arguments.
    pub(crate) under: Vec<OsString>,
    pub(crate) settings: &'a [&'a str],
}

impl<'a> Launch<'a> {
    /// The plain start: no access log, all defaults.
    pub(crate) fn plain(binary: &'a Path, upstream: SocketAddr) -> Self {
        Self { binary, upstream, access_log: "off", under: Vec::new(), settings: &[] }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Result<(Process, SocketAddr), Error> {
        let (process, stderr) = Process::start_with_stderr(&mut self.command())?;
        let (report, ready) = sync_channel(1);
        thread::spawn(move || read_events(stderr, &report));
        let addr = wait_until_ready(&ready)?;
        Ok((process, addr))
    }

    fn command(&self) -> Command {
        let mut words = self.under.clone();
        words.push(self.binary.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["run", "--listen", "127.0.0.1:0", "--workers", "1"]);
        command.args(["--upstream", &self.upstream.to_string(), "--access-log", self.access_log]);
        for setting in self.settings {
            command.args(["--set", setting]);
        }
        command
    }
}

/// A running proxy; killed if a measurement gives up on it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on the proxy's core, its standard output thrown away.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = host::starting_on(host::PROXY_CORE, || command.spawn())?
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// The same, with its standard error to read.
    pub(crate) fn start_with_stderr(command: &mut Command) -> Result<(Self, ChildStderr), Error> {
        let mut process = Self::start(command.stderr(Stdio::piped()))?;
        let stderr = process.child.stderr.take().ok_or("its standard error is not piped")?;
        Ok((process, stderr))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` and waits for the end; how it ended and how long it took.
    pub(crate) fn stop_by(mut self, signal: Signal) -> Result<(ExitStatus, Duration), Error> {
        let sent = Instant::now();
        kill_process(Pid::from_child(&self.child), signal)?;
        while sent.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, sent.elapsed()));
            }
            thread::sleep(STOP_RESOLUTION);
        }
        Err(format!("it did not end within {STOP_LIMIT:?}").into())
    }

    /// Stops it by SIGTERM; it must end with status 0. How long it took.
    pub(crate) fn stop(self) -> Result<Duration, Error> {
        let (status, time) = self.stop_by(Signal::TERM)?;
        if status.success() { Ok(time) } else { Err(format!("it ended with {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Does nothing to a process that has been waited for.
        if self.child.kill().is_ok() {
            // The status of a killed process says nothing.
            drop(self.child.wait());
        }
    }
}

type Report = Result<SocketAddr, String>;

fn wait_until_ready(ready: &Receiver<Report>) -> Result<SocketAddr, Error> {
    let report = ready
        .recv_timeout(START_LIMIT)
        .map_err(|_| format!("it was not ready within {START_LIMIT:?}"))?;
    Ok(report?)
}

/// Reports the HTTP listener's address at `ready`, or the last lines if that
/// never comes; then reads on, so that the proxy never waits for a full pipe.
fn read_events(stderr: ChildStderr, report: &SyncSender<Report>) {
    let mut listening = None;
    let mut reported = false;
    let mut shown = VecDeque::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        match parse_event(&line) {
            Some(Event::Listening(addr)) => listening = Some(addr),
            Some(Event::Ready) if !reported => {
                let addr = listening.ok_or_else(|| "ready, but not listening".to_string());
                reported = report.send(addr).is_ok();
            }
            _ => {}
        }
        shown.push_back(line);
        if shown.len() > SHOWN_LINES {
            shown.pop_front();
        }
    }
    if !reported {
        let shown = Vec::from(shown).join("\n");
        // Nobody listens any more if the start has taken too long.
        drop(report.send(Err(format!("it ended without being ready:\n{shown}"))));
    }
}

enum Event {
    Listening(SocketAddr),
    Ready,
}

/// The events that matter here; lines of another kind are not ebbtide's.
fn parse_event(line: &str) -> Option<Event> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    match event["event"].as_str()? {
        "listening" if event["proto"] == "http" => {
            Some(Event::Listening(event["addr"].as_str()?.parse().ok()?))
        }
        "ready" => Some(Event::Ready),
        _ => None,
    }
}
