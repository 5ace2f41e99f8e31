//! The process that is measured: started as a user would, stopped by SIGTERM.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::identity::Identity;
use super::{Error, host};

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
    pub(crate) listen: SocketAddr,
    pub(crate) tls_listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    /// What stands before the upstream's address, if it is not spoken to in HTTP/1.1.
    pub(crate) scheme: &'a str,
    pub(crate) access_log: &'a str,
    /// A program to run it under, with its arguments.
    pub(crate) under: Vec<OsString>,
    pub(crate) settings: &'a [&'a str],
    /// With a TLS listener besides the other.
    pub(crate) identity: Option<&'a Identity>,
}

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    /// For HTTP/1.1 in clear text.
    pub(crate) h1: SocketAddr,
    /// For HTTP/2 in clear text.
    pub(crate) h2: SocketAddr,
    /// For both over TLS.
    pub(crate) tls: Option<SocketAddr>,
}

impl<'a> Launch<'a> {
    /// The plain start: any ports, no access log, all defaults.
    pub(crate) fn plain(binary: &'a Path, upstream: SocketAddr) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            binary,
            listen: any,
            tls_listen: any,
            upstream,
            scheme: "",
            access_log: "off",
            under: Vec::new(),
            settings: &[],
            identity: None,
        }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Result<(Process, Doors), Error> {
        let (process, stderr) = Process::start_with_stderr(&mut self.command())?;
        let (report, ready) = sync_channel(1);
        thread::spawn(move || read_events(stderr, &report));
        let doors = wait_until_ready(&ready)?;
        Ok((process, doors))
    }

    /// The command line.
    pub(crate) fn command(&self) -> Command {
        let mut words = self.under.clone();
        words.push(self.binary.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["run", "--workers", "1"]);
        command.args(["--listen", &self.listen.to_string()]);
        command.args(["--upstream", &format!("{}{}", self.scheme, self.upstream)]);
        command.args(["--access-log", self.access_log]);
        for setting in self.settings {
            command.args(["--set", setting]);
        }
        if let Some(identity) = self.identity {
            command.args(["--tls-listen", &self.tls_listen.to_string()]);
            command.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
        }
        command
    }
}

/// A running proxy; killed with all that it started if a measurement gives up on it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on the proxy's core.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let command = command.stdin(Stdio::null());
        let child = host::starting_on(host::PROXY_CORE, || command.spawn())?
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// The same, with its standard error to read and its standard output thrown away.
    pub(crate) fn start_with_stderr(command: &mut Command) -> Result<(Self, ChildStderr), Error> {
        let mut process = Self::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = process.child.stderr.take().ok_or("its standard error is not piped")?;
        Ok((process, stderr))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        Ok(self.child.try_wait()?)
    }

    /// Sends `signal`.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Sends `signal` and waits for the end; how it ended and how long it took.
    pub(crate) fn stop_by(mut self, signal: Signal) -> Result<(ExitStatus, Duration), Error> {
        let sent = Instant::now();
        self.signal(signal)?;
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
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Workers outlive a master that is killed.
        let workers = host::family(self.id()).unwrap_or_default();
        // Nothing is left to be done about what cannot be killed, and the status of a
        // killed process says nothing.
        drop(self.child.kill());
        drop(self.child.wait());
        for worker in workers.into_iter().filter(|&pid| pid != self.id()) {
            let pid = i32::try_from(worker).ok().and_then(Pid::from_raw);
            // It may have ended by itself.
            pid.and_then(|pid| kill_process(pid, Signal::KILL).ok());
        }
    }
}

type Report = Result<Doors, String>;

fn wait_until_ready(ready: &Receiver<Report>) -> Result<Doors, Error> {
    let report = ready
        .recv_timeout(START_LIMIT)
        .map_err(|_| format!("it was not ready within {START_LIMIT:?}"))?;
    Ok(report?)
}

/// Reports where it listens at `ready`, or the last lines if that
/// never comes; then reads on, so that the proxy never waits for a full pipe.
fn read_events(stderr: ChildStderr, report: &SyncSender<Report>) {
    let (mut http, mut tls) = (None, None);
    let mut reported = false;
    let mut shown = VecDeque::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        match parse_event(&line) {
            Some(Event::Http(addr)) => http = Some(addr),
            Some(Event::Https(addr)) => tls = Some(addr),
            Some(Event::Ready) if !reported => {
                let doors = http.map(|addr| Doors { h1: addr, h2: addr, tls });
                let doors = doors.ok_or_else(|| "ready, but not listening".to_string());
                reported = report.send(doors).is_ok();
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
    Http(SocketAddr),
    Https(SocketAddr),
    Ready,
}

/// The events that matter here; lines of another kind are not ebbtide's.
fn parse_event(line: &str) -> Option<Event> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let addr = || event["addr"].as_str()?.parse().ok();
    match (event["event"].as_str()?, event["proto"].as_str()) {
        ("listening", Some("http")) => addr().map(Event::Http),
        ("listening", Some("https")) => addr().map(Event::Https),
        ("ready", _) => Some(Event::Ready),
        _ => None,
    }
}
