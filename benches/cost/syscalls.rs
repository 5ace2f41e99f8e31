//! System calls per request in a steady keep-alive run, counted by strace.
//!
//! strace is attached after a warm-up and detached before the stop, so nothing
//! but requests is counted. Two reads and two writes are the least a proxy can do;
//! the third read is a look at the upstream connection before it is written to.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command};

use rustix::process::Signal;

use crate::Verdict;
use crate::support::load::{Load, Until};
use crate::support::proxy::{Launch, Process};
use crate::support::{Error, backend, host};

const WARM_UP: u64 = 1_000;

/// The kinds of calls, and how many of each a request may take. The fractions
/// leave room for timers and for strace's own arrival.
const KINDS: [Kind; 4] = [
    Kind { name: "read", calls: &["read", "readv", "recvfrom", "recvmsg"], bound: 3.05 },
    Kind { name: "write", calls: &["write", "writev", "sendto", "sendmsg"], bound: 2.05 },
    Kind { name: "wait", calls: &["epoll_wait", "epoll_pwait", "epoll_pwait2"], bound: 2.1 },
    Kind { name: "other", calls: &[], bound: 0.1 },
];

struct Kind {
    name: &'static str,
    /// Empty: everything that no other kind names.
    calls: &'static [&'static str],
    bound: f64,
}

/// One line of strace's summary.
struct Counted {
    call: String,
    count: u64,
}

/// Prints calls per request with one connection and with eight.
pub(crate) fn measure(binary: &Path, requests: u64) -> Result<Verdict, Error> {
    let strace = host::require_program("strace")?;
    let upstream = backend::start()?;
    let bounds = KINDS.map(|kind| format!("{} {}", kind.name, kind.bound)).join(", ");
    println!("system calls per request, {requests} requests (bounds: {bounds})");
    let mut verdict = Verdict::Kept;
    for connections in [1, 8] {
        let counted = count(&strace, binary, upstream, connections, requests)?;
        println!("  {connections} connection(s)");
        for kind in &KINDS {
            verdict = verdict.and(report(kind, &counted, requests as f64));
        }
    }
    Ok(verdict)
}

fn report(kind: &Kind, counted: &[Counted], requests: f64) -> Verdict {
    let calls: Vec<_> = counted.iter().filter(|it| kind_of(&it.call) == kind.name).collect();
    let total: u64 = calls.iter().map(|it| it.count).sum();
    let kept = Verdict::of(total as f64 / requests <= kind.bound);
    let detail: Vec<_> = calls.iter().map(|it| format!("{} {}", it.call, it.count)).collect();
    let total = total as f64 / requests;
    println!("    {:<6} {total:>7.3}  {kept:<8}  {}", kind.name, detail.join(", "));
    kept
}

fn kind_of(call: &str) -> &'static str {
    let named = KINDS.iter().find(|kind| kind.calls.contains(&call));
    named.map_or("other", |kind| kind.name)
}

fn count(
    strace: &Path,
    binary: &Path,
    upstream: SocketAddr,
    connections: usize,
    requests: u64,
) -> Result<Vec<Counted>, Error> {
    let (process, doors) = Launch::plain(binary, upstream).start()?;
    let addr = doors.h1;
    let mut load = Load::connect(addr, connections)?;
    load.run(Until::Requests(WARM_UP))?;
    let tracer = Tracer::attach(strace, process.id())?;
    load.run(Until::Requests(requests))?;
    let counted = tracer.detach()?;
    drop(load);
    process.stop()?;
    Ok(counted)
}

struct Tracer {
    strace: Process,
    /// Held open: strace reports new threads here, and a closed pipe would end it.
    messages: BufReader<ChildStderr>,
    summary: PathBuf,
}

impl Tracer {
    /// Returns when every thread of the process is traced.
    fn attach(strace: &Path, pid: u32) -> Result<Self, Error> {
        let summary = host::scratch("syscalls")?.join("summary");
        let mut command = Command::new(strace);
        command.args(["-f", "-c", "-p", &pid.to_string(), "-o"]).arg(&summary);
        let (strace, stderr) = Process::start_with_stderr(&mut command)?;
        let mut messages = BufReader::new(stderr);
        let mut line = String::new();
        messages.read_line(&mut line)?;
        if !line.contains("attached") {
            return Err(format!("strace could not attach (root may be needed): {line}").into());
        }
        Ok(Self { strace, messages, summary })
    }

    fn detach(self) -> Result<Vec<Counted>, Error> {
        // It ends as if killed by the signal, which is no failure.
        self.strace.stop_by(Signal::INT)?;
        drop(self.messages);
        let summary = fs::read_to_string(self.summary)?;
        Ok(summary.lines().filter_map(parse_line).collect())
    }
}

/// `% time, seconds, usecs/call, calls, [errors], name`; the lines that are not
/// counts have no number in the fourth place, or are the total.
fn parse_line(line: &str) -> Option<Counted> {
    let columns: Vec<_> = line.split_whitespace().collect();
    let count = columns.get(3)?.parse().ok()?;
    let call = columns.last().filter(|&&name| name != "total")?;
    Some(Counted { call: (*call).to_string(), count })
}
