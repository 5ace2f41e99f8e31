//! The real binary as a child: started on port 0, watched through what it
//! writes, signalled, and waited for.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use super::client::Client;
use super::origin::Origin;
use super::wire::Place;
use super::{PATIENCE, admin, pause, within};

/// Where the access log goes.
#[derive(Debug)]
pub(crate) enum Stdout {
    /// To the test.
    Collected,
    /// Into a pipe that nobody reads.
    Unread,
    /// Into a file.
    File(PathBuf),
}

/// A child that is not started yet.
#[derive(Debug)]
pub(crate) struct Launch {
    binary: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    listen: bool,
    stdout: Stdout,
    stdin: Option<OwnedFd>,
    shell: Vec<String>,
    under: Vec<String>,
    without: CapabilitySet,
}

impl Launch {
    /// `ebbtide run` before these upstreams, on one TCP listener of its own.
    pub(crate) fn before(upstream: &Origin) -> Launch {
        Launch::before_addr(&upstream.place().to_string())
    }

    /// `ebbtide run` before an address.
    pub(crate) fn before_addr(upstream: &str) -> Launch {
        Launch::with(&["run", "--upstream", upstream], true)
    }

    /// `ebbtide run` as a file says, which names the listeners too.
    pub(crate) fn configured(file: &Path) -> Launch {
        Launch::with(&["run", "--config", &file.display().to_string()], false)
    }

    fn with(args: &[&str], listen: bool) -> Launch {
        Launch {
            binary: env!("CARGO_BIN_EXE_ebbtide").into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: Vec::new(),
            listen,
            stdout: Stdout::Collected,
            stdin: None,
            shell: Vec::new(),
            under: Vec::new(),
            without: CapabilitySet::empty(),
        }
    }

    /// Another file than the one that was built.
    pub(crate) fn binary(mut self, path: &Path) -> Launch {
        self.binary = path.to_owned();
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// Sets a configuration key.
    pub(crate) fn set(self, key: &str, value: &str) -> Launch {
        self.arg("--set").arg(format!("{key}={value}"))
    }

    /// Sets a key of the stop plan.
    pub(crate) fn stop(self, key: &str, value: &str) -> Launch {
        self.set(&format!("drain.stop.{key}"), value)
    }

    /// Listens here instead of on a TCP port of its own.
    pub(crate) fn listen(mut self, address: &str) -> Launch {
        self.listen = false;
        self.arg("--listen").arg(address)
    }

    /// With an admin listener on TCP.
    pub(crate) fn admin(self) -> Launch {
        self.arg("--admin").arg("127.0.0.1:0")
    }

    /// With one more variable in its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Launch {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where the access log goes.
    pub(crate) fn stdout(mut self, stdout: Stdout) -> Launch {
        self.stdout = stdout;
        self
    }

    /// With this in the place of stdin.
    pub(crate) fn stdin(mut self, fd: OwnedFd) -> Launch {
        self.stdin = Some(fd);
        self
    }

    /// With at most `n` descriptors.
    pub(crate) fn descriptors(self, n: u32) -> Launch {
        self.shell(format!("ulimit -n {n}"))
    }

    /// By a shell that does this first.
    pub(crate) fn shell(mut self, command: impl Into<String>) -> Launch {
        self.shell.push(command.into());
        self
    }

    /// By a program that is given the command as its last arguments.
    pub(crate) fn under(mut self, words: &[&str]) -> Launch {
        self.under = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Without a capability that the test itself may have.
    pub(crate) fn without(mut self, capability: CapabilitySet) -> Launch {
        self.without = capability;
        self
    }

    /// Starts the child and waits until it is ready.
    pub(crate) fn start(self) -> Proxy {
        let proxy = self.spawn();
        proxy.wait_event("ready");
        proxy
    }

    /// Starts the child.
    pub(crate) fn spawn(mut self) -> Proxy {
        if self.listen {
            self = self.listen("127.0.0.1:0");
        }
        let (command, unread) = self.command();
        let child =
            if self.without.is_empty() { spawn(command) } else { self.spawn_without(command) };
        Proxy::watch(child, unread)
    }

    fn command(&mut self) -> (Command, Option<PipeReader>) {
        let mut words = std::mem::take(&mut self.under);
        if !self.shell.is_empty() {
            let script = format!("{}; exec \"$0\" \"$@\"", self.shell.join("; "));
            words.extend(["sh".to_owned(), "-c".to_owned(), script]);
        }
        words.push(self.binary.display().to_string());
        let mut command = Command::new(&words[0]);
        let stdin = self.stdin.take().map_or_else(Stdio::null, Stdio::from);
        command.args(&words[1..]).args(&self.args).stdin(stdin).stderr(Stdio::piped());
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("EBBTIDE_")) {
            command.env_remove(name);
        }
        command.envs(self.env.drain(..));
        let mut unread = None;
        match &self.stdout {
            Stdout::Collected => {
                command.stdout(Stdio::piped());
            }
            Stdout::Unread => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                command.stdout(writer);
                unread = Some(reader);
            }
            Stdout::File(path) => {
                let file = OpenOptions::new().append(true).open(path);
                command.stdout(file.expect("the file for the access log"));
            }
        }
        (command, unread)
    }

    /// Capability sets belong to threads: a thread that is about to end gives one up
    /// and starts the child.
    fn spawn_without(&self, command: Command) -> Child {
        let gone = self.without;
        let thread = std::thread::spawn(move || {
            remove_capability_from_bounding_set(gone).expect("a capability can be given up");
            spawn(command)
        });
        thread.join().expect("the thread that starts the child")
    }
}

fn spawn(mut command: Command) -> Child {
    command.spawn().expect("the binary starts")
}

/// Whether this process may give up capabilities for its children.
pub(crate) fn is_privileged() -> bool {
    let sets = rustix::thread::capabilities(None).expect("our capabilities");
    sets.effective.contains(CapabilitySet::SETPCAP | CapabilitySet::NET_ADMIN)
}

/// The event with the moment at which it was read.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When the test read it.
    pub(crate) at: Instant,
    /// The line.
    pub(crate) fields: Value,
}

impl Event {
    /// Whether it is named so.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.fields["event"] == name
    }

    /// A field that is text.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.fields))
    }

    /// A field that is a number.
    pub(crate) fn number(&self, field: &str) -> u64 {
        let value = &self.fields[field];
        value.as_u64().unwrap_or_else(|| panic!("no {field} in {}", self.fields))
    }
}

/// How the child ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    /// What it said.
    pub(crate) status: ExitStatus,
    /// When.
    pub(crate) at: Instant,
}

impl Exit {
    /// The exit status; a signal is -1.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    noise: Vec<String>,
    access: Vec<String>,
    stderr_ended: bool,
    stdout_ended: bool,
    exit: Option<Exit>,
    deaf: bool,
    at_gate: bool,
}

#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Heard>,
    news: Condvar,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.lock());
        self.news.notify_all();
    }

    /// Holds the reader of stderr up for as long as the test wants it stuck.
    fn gate(&self) {
        let mut heard = self.lock();
        while heard.deaf {
            heard.at_gate = true;
            self.news.notify_all();
            heard = self.news.wait(heard).unwrap_or_else(PoisonError::into_inner);
        }
        heard.at_gate = false;
    }

    fn wait<T>(&self, bound: Duration, what: &str, mut look: impl FnMut(&Heard) -> Option<T>) -> T {
        let end = Instant::now() + bound;
        let mut heard = self.lock();
        loop {
            if let Some(found) = look(&heard) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(heard);
                panic!("not within {bound:?}: {what}");
            }
            let woken = self.news.wait_timeout(heard, left);
            heard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The running proxy. Killed on drop, its stderr printed when the test fails.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Its process id.
    pub(crate) pid: u32,
    /// The number of the pipe into which it, and whoever has it from it, speaks.
    pub(crate) pipe: u64,
    pidfd: OwnedFd,
    ear: Arc<Ear>,
    _unread: Option<PipeReader>,
}

impl Proxy {
    fn watch(mut child: Child, unread: Option<PipeReader>) -> Proxy {
        let pid = child.id();
        let id = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        let pidfd = pidfd_open(id, PidfdFlags::empty()).expect("a pidfd");
        let ear = Arc::new(Ear::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let pipe = rustix::fs::fstat(&stderr).expect("a pipe").st_ino;
        let listener = Arc::clone(&ear);
        std::thread::spawn(move || hear_events(stderr, &listener));
        match child.stdout.take() {
            None => ear.tell(|heard| heard.stdout_ended = true),
            Some(stdout) => {
                let listener = Arc::clone(&ear);
                std::thread::spawn(move || hear_access(stdout, &listener));
            }
        }
        let waiter = Arc::clone(&ear);
        std::thread::spawn(move || {
            let status = child.wait().expect("the child's end");
            let exit = Exit { status, at: Instant::now() };
            waiter.tell(|heard| heard.exit = Some(exit));
        });
        Proxy { pid, pipe, pidfd, ear, _unread: unread }
    }

    /// Where the `n`th listener of this protocol is.
    pub(crate) fn place_of(&self, proto: &str, n: usize) -> Place {
        let what = format!("listener {n} of {proto}");
        self.ear.wait(PATIENCE, &what, |heard| {
            let mut all =
                heard.events.iter().filter(|e| e.is("listening") && e.fields["proto"] == proto);
            let event = all.nth(n)?;
            Some(Place::parse(event.text("addr")))
        })
    }

    /// Where clients connect.
    pub(crate) fn place(&self) -> Place {
        self.place_of("http", 0)
    }

    /// Where the admin listener is.
    pub(crate) fn admin(&self) -> Place {
        self.place_of("admin", 0)
    }

    /// A new client of it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.place())
    }

    /// A client that is served once and then idle, with everything of it in rest.
    pub(crate) fn idle_client(&self) -> Client {
        let mut client = self.client();
        client.get("/warm");
        let response = client.response();
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(!response.says_close(), "a connection that stays");
        client
    }

    /// The first event of this name.
    pub(crate) fn wait_event(&self, name: &str) -> Event {
        self.wait_event_where(name, |event| event.is(name))
    }

    /// The first event that fits.
    pub(crate) fn wait_event_where(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let what = format!("event {what}");
        self.ear.wait(PATIENCE, &what, |heard| {
            let found = heard.events.iter().find(|event| fits(event)).cloned();
            assert!(
                found.is_some() || !heard.stderr_ended,
                "the process ended without {what}: {:?}",
                heard.exit
            );
            found
        })
    }

    /// The entry into a phase.
    pub(crate) fn wait_phase(&self, phase: &str) -> Event {
        self.wait_event_where(&format!("phase to {phase}"), |event| {
            event.is("phase") && event.fields["to_phase"] == phase
        })
    }

    /// Every event of this name so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Event> {
        self.ear.lock().events.iter().filter(|event| event.is(name)).cloned().collect()
    }

    /// The access log so far, parsed.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let lines = self.ear.lock().access.clone();
        lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Waits for a line of the access log.
    pub(crate) fn wait_access(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let what = format!("access log line {what}");
        self.ear.wait(PATIENCE, &what, |heard| heard.access.iter().find(|line| fits(line)).cloned())
    }

    /// Sends a signal; the moment just before.
    pub(crate) fn signal(&self, signal: Signal) -> Instant {
        let before = Instant::now();
        pidfd_send_signal(&self.pidfd, signal).expect("the process takes a signal");
        before
    }

    /// Sends a signal to a process that may have ended meanwhile.
    pub(crate) fn try_signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Stops the process in its tracks for as long as `while_frozen` takes and sends
    /// SIGTERM at its end: whatever the test does meanwhile has happened in the kernel
    /// before the process hears of the signal. It goes on `thaw` later. The moment just
    /// before the signal.
    pub(crate) fn terminate_frozen(&self, thaw: Duration, while_frozen: impl FnOnce()) -> Instant {
        self.freeze();
        while_frozen();
        let at = self.terminate();
        pause(thaw);
        self.signal(Signal::CONT);
        at
    }

    /// Stops the process in its tracks, with all its threads.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        within(PATIENCE, "the process to stand still", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
            let mut stats =
                tasks.map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
            let stands = |stat: Option<String>| {
                stat.is_some_and(|stat| {
                    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim().starts_with('T'))
                })
            };
            stats.all(stands).then_some(())
        });
    }

    /// Sends SIGTERM; the moment just before.
    pub(crate) fn terminate(&self) -> Instant {
        self.signal(Signal::TERM)
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&self) -> bool {
        self.ear.lock().exit.is_none()
    }

    /// The end of the process.
    pub(crate) fn wait_exit(&self) -> Exit {
        self.ear.wait(PATIENCE * 2, "the end of the process", |heard| {
            heard.exit.filter(|_| heard.stderr_ended && heard.stdout_ended)
        })
    }

    /// Reads stderr no more, and fills the pipe: whoever writes there is stuck.
    pub(crate) fn clog_stderr(&self) {
        self.ear.tell(|heard| heard.deaf = true);
        let mut pipe = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(format!("/proc/{}/fd/2", self.pid))
            .expect("the child's stderr");
        let mut line = [b' '; 512];
        line[511] = b'\n';
        within(PATIENCE, "a full pipe that nobody reads", || {
            let unread = self.ear.lock().at_gate;
            while pipe.write_all(&line).is_ok() {}
            unread.then_some(())
        });
    }

    /// Reads stderr again.
    pub(crate) fn unclog_stderr(&self) {
        self.ear.tell(|heard| heard.deaf = false);
    }

    /// The end of the process, whatever has become of its output.
    pub(crate) fn wait_gone(&self) -> Exit {
        self.ear.wait(PATIENCE, "the process to be gone", |heard| heard.exit)
    }

    /// The end of the process, which has to say that all work ended by itself.
    #[track_caller]
    pub(crate) fn wait_clean_exit(&self) -> Exit {
        let exit = self.wait_exit();
        assert_eq!(exit.code(), 0, "all work ended by itself");
        exit
    }

    /// The drain report, which has to be the last line on stderr.
    #[track_caller]
    pub(crate) fn drain_report(&self) -> Value {
        self.wait_exit();
        let last = self.ear.lock().events.last().cloned().expect("some event");
        assert!(last.is("drain_report"), "the last line is the report, not {}", last.fields);
        last.fields
    }

    /// What the report counts under this name.
    #[track_caller]
    pub(crate) fn reported(&self, name: &str) -> u64 {
        let report = self.drain_report();
        count(&report, name).unwrap_or_else(|| panic!("no {name} in {report}"))
    }

    /// Lets it open no descriptor beyond the first `n`; whatever it has stays open.
    /// What it was allowed before.
    pub(crate) fn limit_descriptors(&self, n: Option<u64>) -> Option<u64> {
        let id = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let limit = Rlimit { current: n, maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(id, Resource::Nofile, limit).expect("the child's limit").current
    }

    /// Octets of memory in use.
    pub(crate) fn rss(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        kib.expect("VmRSS") * 1024
    }

    /// Time on a processor so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).expect("the child's /proc")
    }

    /// How many of its threads have a name that begins so.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads");
        let names =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|comm| comm.starts_with(name)).count()
    }

    /// The phases that were entered so far, in order.
    pub(crate) fn phases(&self) -> Vec<String> {
        self.events("phase").iter().map(|event| event.text("to_phase").to_owned()).collect()
    }

    /// Waits until `/status` counts `n` at a path.
    pub(crate) fn wait_count(&self, path: &[&str], n: u64) {
        let place = self.admin();
        within(PATIENCE, &format!("{path:?} to be {n}"), || {
            (admin::count(&place, path) == n).then_some(())
        });
    }

    /// Waits until so many connections are in this state.
    pub(crate) fn wait_connections(&self, state: &str, n: u64) {
        self.wait_count(&["connections", "h1", state], n);
    }

    /// Everything it said, for a message.
    pub(crate) fn said(&self) -> String {
        let heard = self.ear.lock();
        let events = heard.events.iter().map(|event| event.fields.to_string());
        let lines: Vec<String> = events.chain(heard.noise.iter().cloned()).collect();
        format!("exit: {:?}\n{}", heard.exit, lines.join("\n"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- ebbtide {} said:\n{}\n---", self.pid, self.said());
        }
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A count in the drain report: a number, or the length of a list.
pub(crate) fn count(report: &Value, name: &str) -> Option<u64> {
    match report.get(name)? {
        Value::Array(list) => Some(list.len() as u64),
        number => number.as_u64(),
    }
}

fn hear_events(stderr: impl Read, ear: &Ear) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        ear.gate();
        let at = Instant::now();
        ear.tell(|heard| match serde_json::from_str::<Value>(&line) {
            Ok(fields) if fields.is_object() => heard.events.push(Event { at, fields }),
            _ => heard.noise.push(line),
        });
    }
    ear.tell(|heard| heard.stderr_ended = true);
}

fn hear_access(stdout: impl Read, ear: &Ear) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        ear.tell(|heard| heard.access.push(line));
    }
    ear.tell(|heard| heard.stdout_ended = true);
}
