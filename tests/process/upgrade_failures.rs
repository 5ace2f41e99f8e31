//! A successor that is no good costs nothing: the old process serves on, and whoever
//! asked is told why.

mod before_serving;
mod strangers;
mod unseen;

use std::net::TcpListener;
use std::process::Output;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::shelf::Shelf;
use crate::support::ws::Socket;
use crate::support::{PATIENCE, admin, ms, pause, within};
use crate::upgrade::app;

/// A proxy before its app, started from a shelf, with connections that have to survive.
struct Bench {
    origin: Origin,
    shelf: Shelf,
    line: Generations,
    kept: Client,
    held: Client,
    socket: Socket,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|launch, _| launch)
    }

    fn with(change: impl FnOnce(Launch, &Shelf) -> Launch) -> Bench {
        let (shelf, origin) = (Shelf::new(), app());
        let launch = Launch::before(&origin).set("upgrade.timeout", "1s").binary(&shelf.path());
        Bench::over(origin, Generations::start(change(launch, &shelf)), shelf)
    }

    /// Its configuration is a file, which can be edited.
    fn configured(text: &str) -> Bench {
        let (shelf, origin) = (Shelf::new(), app());
        let launch = Launch::configured(&configuration(&shelf, &origin, text));
        Bench::over(origin, Generations::start(launch.binary(&shelf.path())), shelf)
    }

    fn over(origin: Origin, line: Generations, shelf: Shelf) -> Bench {
        let kept = line.idle_client();
        let mut held = line.client();
        held.get("/hold/1");
        origin.wait_started("/hold/1");
        let mut socket = Socket::open(line.client(), "/ws");
        socket.echo("before");
        Bench { origin, shelf, line, kept, held, socket }
    }

    /// Asks for an upgrade, which fails and says these words, and leaves everything as
    /// it was.
    #[track_caller]
    fn fails(&mut self, words: &[&str]) {
        self.fails_with(&[], words);
    }

    #[track_caller]
    fn fails_with(&mut self, arguments: &[&str], words: &[&str]) {
        let before = self.line.events("upgrade_failed").len();
        let begun = Instant::now();
        let output = self.line.command(arguments);
        let took = begun.elapsed();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_says(&said, words);
        assert!(took < ms(8_000), "it took {took:?}: {said}");
        let failed = self.line.wait_nth("upgrade_failed", before);
        assert_says(failed.text("error"), words);
        self.is_as_before();
    }

    /// By a signal the same is written down.
    #[track_caller]
    fn fails_by_signal(&mut self, words: &[&str]) {
        let before = self.line.events("upgrade_failed").len();
        self.line.newest().signal(Signal::USR2);
        let failed = self.line.wait_nth("upgrade_failed", before);
        assert_says(failed.text("error"), words);
        self.is_as_before();
    }

    /// The first process serves everybody it served, and whoever comes; nobody else is
    /// there.
    #[track_caller]
    fn is_as_before(&mut self) {
        let status = self.line.status();
        assert_eq!(status["pid"], self.line.pid, "{status}");
        assert_eq!(status["generation"], 1, "{status}");
        assert_eq!(status["phase"], "serving", "{status}");
        self.serves();
        let first = self.line.newest();
        within(PATIENCE, "no child", || first.children().is_empty().then_some(()));
        self.line.wait_alive(1);
    }

    /// Whoever was connected is served, and whoever comes.
    #[track_caller]
    fn serves(&mut self) {
        for client in [&mut self.kept, &mut self.line.client()] {
            client.get("/after");
            let response = client.response();
            assert_eq!(response.status, 200);
            assert!(!response.says_close(), "{}", self.line.said());
        }
        self.socket.echo("after");
        assert_eq!(self.held.ended(), None);
    }

    /// With a program that is right, the next upgrade is like any other; then everything
    /// ends well.
    #[track_caller]
    fn goes_on(mut self) {
        self.shelf.put_right();
        let output = self.line.command(&[]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let newest = self.line.newest();
        assert_eq!(newest.generation, 2);
        assert_ne!(newest.pid, self.line.pid);
        self.serves();
        self.origin.release("/hold/1");
        assert_eq!(self.held.response().text(), "held");
        assert_eq!(self.line.proxy_exit(), 0);
        drop(self.socket);
        assert_eq!(self.line.stop().code, Some(0));
    }
}

fn configuration(shelf: &Shelf, origin: &Origin, text: &str) -> std::path::PathBuf {
    let base =
        format!("listen = [\"127.0.0.1:0\"]\nupstream.endpoints = [\"{}\"]\n", origin.place());
    shelf.write("ebbtide.toml", &(base + text))
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn binary_that_is_not_there() {
    let mut bench = Bench::new();
    bench.shelf.clear();
    bench.fails(&["ebbtide", "No such file"]);
    bench.fails_by_signal(&["No such file"]);
    bench.goes_on();
}

#[test]
fn binary_that_is_not_executable() {
    let mut bench = Bench::new();
    bench.shelf.put_script("#!/bin/sh\nexit 0\n", 0o644);
    bench.fails(&["Permission denied"]);
    bench.goes_on();
}

#[test]
fn binary_that_no_kernel_can_run() {
    let mut bench = Bench::new();
    bench.shelf.put_script("\u{7f}ELF, or so it says\n", 0o755);
    bench.fails(&["Exec format error"]);
    bench.goes_on();
}

#[test]
fn binary_that_is_another_program() {
    let mut bench = Bench::new();
    for (program, words) in
        [("/bin/true", "status 0"), ("/bin/false", "status 1"), ("/bin/cat", "status 1")]
    {
        bench.shelf.put_link(program);
        bench.fails_by_signal(&[words]);
    }
    bench.shelf.put_link("/bin/true");
    bench.fails(&["status 0"]);
    bench.goes_on();
}

#[test]
fn successor_that_hangs() {
    let mut bench = Bench::new();
    bench.shelf.put_script("#!/bin/sh\nexec sleep 600\n", 0o755);
    bench.fails(&["1s"]);
    bench.goes_on();
}

#[test]
fn successor_that_leaves_somebody_with_its_channel() {
    let mut bench = Bench::new();
    // Whoever it has started keeps the channel open, and is nobody's business later.
    bench.shelf.put_script("#!/bin/sh\nsleep 4 2>/dev/null &\nexit 7\n", 0o755);
    bench.fails(&[]);
    bench.goes_on();
}

#[test]
fn successor_that_crashes_before_it_is_ready() {
    let mut bench = Bench::new();
    bench.shelf.put_script("#!/bin/sh\nkill -SEGV $$\n", 0o755);
    bench.fails(&["SIGSEGV"]);
    bench.shelf.put_script("#!/bin/sh\nkill -KILL $$\n", 0o755);
    bench.fails_by_signal(&["SIGKILL"]);
    bench.goes_on();
}

/// The real program, which is killed at about the time at which it is welcomed. It does
/// not come to serve: one of its workers does not answer.
#[test]
fn successor_that_is_killed_while_it_starts() {
    let mut bench = Bench::new();
    let binary = env!("CARGO_BIN_EXE_ebbtide");
    let delays = ["0.001", "0.002", "0.004", "0.006", "0.01", "0.02", "0.05", "0.3"];
    for (n, delay) in delays.into_iter().enumerate() {
        // The launcher is killed with all that it has started.
        let script = format!(
            "#!/bin/sh\nEBBTIDE_SABOTAGE=worker-turns setsid {binary} \"$@\" &\nsleep {delay}\n\
             kill -KILL -$!\nkill -KILL $$\n"
        );
        bench.shelf.put_script(&script, 0o755);
        bench.line.newest().signal(Signal::USR2);
        bench.line.wait_nth("upgrade_failed", n);
        assert!(bench.line.events("upgrade_ready").is_empty());
        bench.is_as_before();
    }
    bench.goes_on();
}

/// That it starts is not enough: each worker has to answer a request of its own.
#[test]
fn successor_of_which_a_worker_does_not_answer() {
    let mut bench = Bench::with(|launch, _| launch.set("upgrade.timeout", "30s"));
    let binary = env!("CARGO_BIN_EXE_ebbtide");
    let script = format!("#!/bin/sh\nEBBTIDE_SABOTAGE=worker-turns exec {binary} \"$@\"\n");
    bench.shelf.put_script(&script, 0o755);
    bench.fails(&["a worker has not answered a request of our own"]);
    assert!(bench.line.events("upgrade_ready").is_empty());
    bench.goes_on();
}

#[test]
fn configuration_that_is_wrong() {
    let mut bench = Bench::configured("[upgrade]\ntimeout = \"5s\"\n");
    configuration(&bench.shelf, &bench.origin, "[timeouts]\nheads = \"5s\"\n");
    bench.fails(&["heads", "ebbtide.toml"]);
    bench.fails_by_signal(&["heads"]);
    configuration(&bench.shelf, &bench.origin, "");
    bench.goes_on();
}

#[test]
fn listener_that_cannot_be_bound() {
    let mut bench = Bench::configured("[upgrade]\ntimeout = \"5s\"\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let (place, new) = (bench.origin.place(), bench.shelf.file("new.sock"));
    let text = format!(
        "listen = [\"127.0.0.1:0\", \"unix:{}\", \"{addr}\"]\n\
         upstream.endpoints = [\"{place}\"]\n",
        new.display()
    );
    bench.shelf.write("ebbtide.toml", &text);
    bench.fails(&[&addr.to_string(), "in use"]);
    assert!(!new.exists(), "what it had bound is gone with it");
    drop(taken);
    bench.goes_on();
}

/// One port is at one address or at all: the old process has to go before the other can be.
#[test]
fn listener_whose_port_the_elder_has_at_another_address() {
    let mut bench = Bench::configured("[upgrade]\ntimeout = \"5s\"\n");
    let old = bench.line.place();
    let (place, port) = (bench.origin.place(), old.port());
    let text = format!("listen = [\":{port}\"]\nupstream.endpoints = [\"{place}\"]\n");
    bench.shelf.write("ebbtide.toml", &text);
    let new = format!("0.0.0.0:{port}");
    bench.fails(&[&new, "in use", &format!("listens on {old}"), "start anew"]);
    configuration(&bench.shelf, &bench.origin, "");
    bench.goes_on();
}

#[test]
fn binary_that_is_named_is_used_and_not_remembered() {
    let mut bench = Bench::new();
    bench.fails_with(&["--binary", "/bin/false"], &["status 1"]);
    let nowhere = bench.shelf.file("nowhere").display().to_string();
    bench.fails_with(&["--binary", &nowhere], &["No such file", "nowhere"]);
    bench.shelf.put_link("/bin/false");
    let output = bench.line.command(&["--binary", env!("CARGO_BIN_EXE_ebbtide")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(bench.line.newest().generation, 2);
}

#[test]
fn command_without_anybody_who_answers() {
    let shelf = Shelf::new();
    let nobody = format!("unix:{}", shelf.file("nobody.sock").display());
    let run = |args: &[&str]| {
        std::process::Command::new(shelf.path()).arg("upgrade").args(args).output().unwrap()
    };
    let output = run(&["--admin", &nobody]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("nobody.sock"), "{}", said(&output));
    assert_eq!(run(&["--admin", &nobody, "--nothing"]).status.code(), Some(2));
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().start();
    let output = run(&["--admin", &proxy.admin().to_string()]);
    assert_ne!(output.status.code(), Some(0), "over TCP: {}", said(&output));
    assert!(!said(&output).is_empty());
    assert!(proxy.runs());
}

#[test]
fn upgrade_during_a_stop_is_refused() {
    let Bench { origin, line, mut held, shelf: _shelf, .. } = Bench::new();
    line.terminate();
    line.wait_phase("draining");
    let output = line.command(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("stop"), "{}", said(&output));
    let refused = admin::ask(line.admin_place(), "POST", "/upgrade", "localhost");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_says(&refused.text(), &["stop"]);
    line.signal(Signal::USR2);
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    line.wait_clean_exit();
    assert!(line.events("upgrade_started").is_empty(), "{}", line.said());
}

/// One at a time: whoever comes second is told so, and the first goes on.
#[test]
fn second_upgrade_at_once_is_refused() {
    let mut bench = Bench::new();
    bench.shelf.put_script("#!/bin/sh\nexec sleep 600\n", 0o755);
    let first = bench.line.commanded(&[]).spawn().unwrap();
    bench.line.wait_event("upgrade_started");
    let second = bench.line.command(&[]);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert_says(&said(&second), &["upgrade"]);
    let refused = admin::ask(bench.line.admin_place(), "POST", "/upgrade", "localhost");
    assert_eq!(refused.status, 409, "{}", refused.text());
    bench.line.signal(Signal::USR2);
    bench.line.wait_event("upgrade_refused");
    let first = first.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    assert_says(&said(&first), &["1s"]);
    assert_eq!(bench.line.events("upgrade_started").len(), 1);
    bench.is_as_before();
    bench.goes_on();
}

/// It says that it is ready, and is dead a moment later: everybody who is not its own
/// already is served by the elder again.
#[test]
fn successor_that_dies_at_once_gives_the_traffic_back() {
    let Bench { origin, line, mut held, shelf, .. } = Bench::new();
    for round in 0..5_usize {
        line.newest().signal(Signal::USR2);
        let serving = line.wait_nth("upgrade_serving", round);
        let pid = u32::try_from(serving.number("successor")).unwrap();
        let successor = line.member(pid, 2).expect("it has only just begun");
        pause(ms(20 * round as u64));
        successor.try_signal(Signal::KILL);
        // Whoever comes in between waits in the queue of a listener that is open.
        let mut between = line.client();
        between.get("/between");
        let lost = line.wait_nth("upgrade_lost", round);
        assert_eq!(lost.fields["taken_back"], true, "{}", lost.fields);
        let status = line.status();
        assert_eq!((&status["pid"], &status["phase"]), (&line.pid.into(), &"serving".into()));
        if let Err(broken) = between.try_response() {
            // It was the dead one that had accepted it.
            assert!(broken.head.is_none(), "{broken:?}");
        }
        for _ in 0..10 {
            let mut client = line.client();
            client.get("/after");
            assert!(!client.response().says_close());
        }
        assert_eq!(held.ended(), None, "what the elder was doing goes on");
        line.wait_alive(1);
    }
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    shelf.put_right();
    line.upgrade();
    assert_eq!(line.newest().generation, 2);
    assert_eq!(line.proxy_exit(), 0);
    let mut client = line.client();
    client.get("/newest");
    assert_eq!(client.response().text(), "GET /newest 0");
    drop(client);
    assert_eq!(line.stop().code, Some(0));
}
