//! Clients of other make, each at work until nobody listens any more: Python's `h2`,
//! Go's net/http, curl, and nghttp2's h2load and nghttp. `tests/run` installs them.
//!
//! Each has its own idea of what a failure is, and some send a lost request again
//! without a word. What is counted here as lost is only, and all of, what had been
//! written to the connection and was not answered there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::wire::Place;

/// What says where a peer that is missing comes from.
const INSTALLER: &str = "tests/run installs the clients that these tests need";

/// How late connections of Python's client see what the server says, in milliseconds;
/// with a `p` they answer a PING at once. Those must stay well below `goaway_grace`.
const PYTHON_DELAYS: &str = "0,0,5,150,20p,50p";

/// The most descriptions of losses that are kept.
const DETAILS_MAX: usize = 20;

/// What a client counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Right answers.
    pub(crate) ok: u64,
    /// Requests that were never sent, because nobody listened any more.
    pub(crate) refused: u64,
    /// Requests that were sent and not answered rightly, or only when sent again, and
    /// connections that ended without a word.
    pub(crate) lost: u64,
    /// What was lost, in the client's words.
    pub(crate) details: Vec<String>,
}

impl Counts {
    fn lose(&mut self, detail: impl Into<String>) {
        self.lost += 1;
        if self.details.len() < DETAILS_MAX {
            self.details.push(detail.into());
        }
    }

    fn add(&mut self, more: Counts) {
        self.ok += more.ok;
        self.refused += more.refused;
        self.lost += more.lost;
        self.details.extend(more.details);
        self.details.truncate(DETAILS_MAX);
    }
}

/// Where a client sends its requests, and whom it trusts.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The listener.
    pub(crate) place: Place,
    /// The certificate, for TLS.
    pub(crate) trusted: Option<PathBuf>,
    /// What random choices begin from.
    pub(crate) seed: u64,
}

impl Target {
    fn url(&self, host: &str) -> String {
        let scheme = if self.trusted.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.place.port())
    }
}

/// A kind of client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// What it is called, and how the targets of most of its requests begin.
    pub(crate) name: &'static str,
    run: fn(&Target) -> Counts,
}

/// Python's `h2`: connections of different delay, uploads, thinking time.
pub(crate) const PYTHON: Kind = Kind { name: "python", run: python };
/// Go's net/http over HTTP/2; only over TLS.
pub(crate) const GO_H2: Kind = Kind { name: "go-h2", run: |target| go(target, false) };
/// Go's net/http over HTTP/1.1.
pub(crate) const GO_H1: Kind = Kind { name: "go-h1", run: |target| go(target, true) };
/// curl with sixteen requests at once over HTTP/2; only over TLS.
pub(crate) const CURL_H2: Kind = Kind { name: "curl-h2", run: curl_h2 };
/// curl with a connection for each request, HTTP/2 from its first octet; only clear text.
pub(crate) const CURL_PRIOR: Kind = Kind { name: "curl-prior", run: curl_prior };
/// curl with sixteen connections of HTTP/1.1.
pub(crate) const CURL_H1: Kind = Kind { name: "curl-h1", run: curl_h1 };
/// nghttp2's h2load.
pub(crate) const H2LOAD: Kind = Kind { name: "h2load", run: h2load };
/// nghttp with a hundred streams at once on each connection.
pub(crate) const NGHTTP: Kind = Kind { name: "nghttp", run: nghttp };

/// A client at work.
#[derive(Debug)]
pub(crate) struct Peer {
    name: &'static str,
    thread: JoinHandle<Counts>,
}

impl Peer {
    /// Sends a client to work.
    pub(crate) fn start(kind: Kind, target: &Target) -> Peer {
        let target = target.clone();
        let thread = std::thread::spawn(move || (kind.run)(&target));
        Peer { name: kind.name, thread }
    }

    /// Its name, and what it counted until nobody listened any more.
    pub(crate) fn wait(self) -> (&'static str, Counts) {
        let counts = self.thread.join();
        (self.name, counts.unwrap_or_else(|_| panic!("the client {} failed", self.name)))
    }
}

/// A program that `tests/run` installs.
#[track_caller]
fn installed(path: &str) -> PathBuf {
    assert!(Path::new(path).exists(), "{path} is missing; {INSTALLER}");
    path.into()
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file)
}

/// Go's client, built by `tests/run`, and not before its source was last changed.
#[track_caller]
fn go_client() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/go-client");
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let newest = ["go/main.go", "go/go.mod"].map(|file| changed(&source(file))).into_iter().max();
    let fresh = changed(&built).is_some_and(|at| newest.flatten().is_some_and(|new| at >= new));
    assert!(fresh, "{} is missing or older than its source; {INSTALLER}", built.display());
    built
}

fn output(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output();
    done.unwrap_or_else(|error| panic!("{name}: {error}; {INSTALLER}"))
}

fn stdout(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn stderr(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// A client of ours: one line of JSON, in which everything but `ok`, `told` and a
/// refused connect is a loss.
fn own(command: &mut Command) -> Counts {
    let done = output(command);
    let said = stdout(&done);
    let line: Value = serde_json::from_str(said.trim())
        .unwrap_or_else(|_| panic!("no counts: {said}{}", stderr(&done)));
    let count = |name: &str| line[name].as_u64().unwrap_or(0);
    let details = line["details"].as_array().into_iter().flatten();
    Counts {
        ok: count("ok"),
        refused: count("refused_connect"),
        lost: ["lost", "refused_stream", "untold", "resent"].map(count).iter().sum(),
        details: details.map(ToString::to_string).collect(),
    }
}

fn python(target: &Target) -> Counts {
    let mut command = python_script("h2_client.py", target);
    command.args(["--delays", PYTHON_DELAYS]).arg("--seed").arg(target.seed.to_string());
    own(&mut command)
}

/// Python's `h2` with WebSockets on one connection, each with messages under way.
#[derive(Debug)]
pub(crate) struct Tunnels {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Tunnels {
    /// Opens `count` of them, and waits until all are there and talk.
    ///
    /// # Panics
    /// If that does not come true.
    pub(crate) fn open(target: &Target, count: usize) -> Tunnels {
        let mut command = python_script("h2_ws.py", target);
        command.arg("--count").arg(count.to_string()).arg("--seed").arg(target.seed.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a client");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let mut tunnels = Tunnels { child, said };
        assert_eq!(tunnels.line().as_deref(), Some("open"));
        tunnels
    }

    /// What it saw, when it has ended.
    ///
    /// # Panics
    /// If it failed.
    pub(crate) fn outcome(mut self) -> Value {
        let line = self.line().expect("an outcome");
        assert!(self.child.wait().expect("a status").success());
        serde_json::from_str(&line).expect("JSON")
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.said.read_line(&mut line).ok().filter(|&n| n > 0)?;
        Some(line.trim_end().to_owned())
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        let _over = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A client in Python that speaks HTTP/2.
fn python_script(name: &str, target: &Target) -> Command {
    installed("/usr/lib/python3/dist-packages/h2/__init__.py");
    let mut command = Command::new(installed("/usr/bin/python3"));
    command.arg(source(name)).arg("--url").arg(target.url("127.0.0.1"));
    if let Some(trusted) = &target.trusted {
        command.arg("--ca").arg(trusted);
    }
    command
}

fn go(target: &Target, http1: bool) -> Counts {
    let mut command = Command::new(go_client());
    command.arg("-url").arg(target.url("127.0.0.1")).arg("-seed").arg(target.seed.to_string());
    command.arg(format!("-http1={http1}"));
    if let Some(trusted) = &target.trusted {
        command.arg("-ca").arg(trusted);
    }
    own(&mut command)
}

/// Runs of a client that ends by itself, one after the other, until one is refused.
fn until_refused(mut run: impl FnMut() -> Counts) -> Counts {
    let mut all = Counts::default();
    while all.refused == 0 {
        let more = run();
        assert!(more.ok + more.refused + more.lost > 0, "a client that does nothing");
        all.add(more);
        if all.lost > 0 {
            break;
        }
    }
    all
}

fn curl_h2(target: &Target) -> Counts {
    until_refused(|| curl(target, &["--http2", "-Z", "--parallel-max", "16"], "curl-h2", 300))
}

fn curl_h1(target: &Target) -> Counts {
    until_refused(|| curl(target, &["--http1.1", "-Z", "--parallel-max", "16"], "curl-h1", 300))
}

/// One request for each connection: curl 7.88 with prior knowledge fails by itself
/// when it uses a connection again (its issue 10634).
fn curl_prior(target: &Target) -> Counts {
    until_refused(|| curl(target, &["--http2-prior-knowledge"], "curl-prior", 1))
}

/// One run of curl. It sends a lost request again without a word, and then its only
/// trace is that something of it had been written.
fn curl(target: &Target, options: &[&str], name: &str, requests: u32) -> Counts {
    let port = target.place.port();
    let mut command = Command::new(installed("/usr/bin/curl"));
    command.args(options).args(["-q", "-sS", "--max-time", "60"]);
    command.args(["--noproxy", "*", "--resolve"]).arg(format!("localhost:{port}:127.0.0.1"));
    if let Some(trusted) = &target.trusted {
        command.arg("--cacert").arg(trusted);
    }
    // As long as its answer, so that a cut one is seen: "GET /NAME/XXXXX 0".
    let path = format!("/{name}/[{}-{}]", 10_000, 10_000 + requests - 1);
    let length = format!("GET /{name}/10000 0").len().to_string();
    command.args(["-o", "/dev/null", "-w"]);
    command.arg("%{exitcode} %{http_code} %{size_download} %{size_request} %{url} %{errormsg}\\n");
    let done = output(command.arg(target.url("localhost") + &path));
    let mut counts = Counts::default();
    for line in stdout(&done).lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["0", "200", size, ..] if size == length => counts.ok += 1,
            ["7", "000", _, "0", ..] => counts.refused += 1,
            _ => counts.lose(line),
        }
    }
    let all = counts.ok + counts.refused + counts.lost;
    assert_eq!(all, u64::from(requests), "curl: {}", stderr(&done));
    counts
}

/// One run of h2load, which does not come back from a GOAWAY. Its own sum of failures
/// is that of all requests it did not get to, so its log is read instead: it has a line
/// for each request that was begun, with the time at which its HEADERS were sent, and
/// with time 0 for one that was begun but held back because of a GOAWAY just read.
fn h2load(target: &Target) -> Counts {
    let scratch = TempDir::new().expect("a directory");
    let log = scratch.path().join("log");
    let mut command = Command::new(installed("/usr/bin/h2load"));
    command.args(["-c", "4", "-m", "8", "-n", "1000000", "--log-file"]).arg(&log);
    let done = output(command.arg(target.url("127.0.0.1") + "/h2load/x"));
    let mut counts = Counts::default();
    for line in std::fs::read_to_string(&log).unwrap_or_default().lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [_, "200", _] => counts.ok += 1,
            ["0", "-1", _] => counts.refused += 1,
            _ => counts.lose(format!("h2load: {line}")),
        }
    }
    let said = stdout(&done);
    let ended = said.lines().find(|line| line.starts_with("status codes:"));
    assert!(ended.is_some(), "h2load: {said}{}", stderr(&done));
    counts
}

/// nghttp again and again, a hundred streams at once on one connection.
fn nghttp(target: &Target) -> Counts {
    until_refused(|| nghttp_once(target))
}

/// One run of nghttp. It prints every frame: each HEADERS it sent has to be answered
/// by a 200 and the end of the stream.
fn nghttp_once(target: &Target) -> Counts {
    let mut command = Command::new(installed("/usr/bin/nghttp"));
    command.args(["-v", "--no-dep", "--timeout=60", "-m", "100"]);
    let done = output(command.arg(target.url("127.0.0.1") + "/nghttp/stream"));
    let said = stdout(&done);
    let mut streams: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
    for line in said.lines() {
        if line.contains("send HEADERS frame") {
            streams.entry(stream_of(line)).or_default();
        } else if line.ends_with(":status: 200") {
            streams.entry(stream_of(line)).or_default().0 = true;
        } else if ends_stream(line) {
            streams.entry(stream_of(line)).or_default().1 = true;
        }
    }
    let mut counts = Counts::default();
    if streams.is_empty() && stderr(&done).contains("Could not connect") {
        counts.refused = 1;
        return counts;
    }
    for (stream, how) in &streams {
        if *how == (true, true) {
            counts.ok += 1;
        } else {
            counts.lose(format!("nghttp: stream {stream}, status and end {how:?}"));
        }
    }
    if streams.is_empty() {
        counts.lose(format!("nghttp: connected, but: {said}{}", stderr(&done)));
    }
    counts
}

/// The number in `stream_id=N`.
fn stream_of(line: &str) -> u64 {
    let number = line.split("stream_id=").nth(1).unwrap_or_default();
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().unwrap_or_else(|_| panic!("no stream: {line}"))
}

/// Whether it is a frame with END_STREAM that was received.
fn ends_stream(line: &str) -> bool {
    let framed = ["recv DATA frame", "recv HEADERS frame"].iter().any(|it| line.contains(it));
    let flags = line.split("flags=0x").nth(1).and_then(|rest| rest.get(..2));
    framed && flags.is_some_and(|hex| u8::from_str_radix(hex, 16).is_ok_and(|it| it & 1 == 1))
}
