//! `ebbtide demo`: what it shows, how it ends, and that it leaves nothing behind; and its
//! own clients and app around a proxy of ours.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ebbtide::demo::app::App;
use ebbtide::demo::clients::{Clients, Counts, Kind, Mix, Tally, Way};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, pause, within};

/// Clients of each kind.
const EACH: usize = 3;

/// So many of each kind, none of whose requests takes longer than a second.
fn mix() -> Mix {
    let mut mix = Kind::ALL.iter().fold(Mix::none(), |mix, kind| mix.with(*kind, EACH));
    mix.long = Duration::from_secs(1);
    mix
}

struct Scene {
    app: App,
    proxy: Proxy,
    clients: Clients,
}

impl Scene {
    /// All kinds of clients at work, each of which has been served.
    fn set() -> Scene {
        let app = App::start().unwrap();
        let launch = Launch::before_addr(&app.addr().to_string());
        let proxy = launch.arg("--access-log").arg("off").start();
        let Place::Tcp(addr) = proxy.place() else { panic!("a TCP listener") };
        let clients = Clients::start(addr, app.ledger(), mix()).unwrap();
        within(PATIENCE, "every kind to be served", || {
            let tally = clients.tally();
            Kind::ALL.iter().all(|kind| tally.of(*kind).served > 0).then_some(())
        });
        Scene { app, proxy, clients }
    }
}

fn each(tally: &Tally, check: impl Fn(Kind, Counts)) {
    for kind in Kind::ALL {
        let counts = tally.of(kind);
        assert_eq!(counts.under_way(), 0, "{kind:?}: {counts:?}");
        check(kind, counts);
    }
}

#[test]
fn demo_clients_lose_nothing_in_a_stop_and_are_refused_after_it() {
    let Scene { app, proxy, clients } = Scene::set();
    proxy.terminate();
    proxy.wait_clean_exit();
    within(PATIENCE, "everybody to be refused", || {
        let tally = clients.tally();
        Kind::ALL.iter().all(|kind| tally.of(*kind).refused > 0).then_some(())
    });
    let tally = clients.finish();
    each(&tally, |kind, counts| assert_eq!(counts.lost(), 0, "{kind:?}: {counts:?}"));
    assert_eq!(app.ledger().repeated(), 0);
}

#[test]
fn demo_clients_see_what_is_lost_when_the_proxy_is_killed() {
    let Scene { app: _app, proxy, clients } = Scene::set();
    let takes_long = [Kind::Long, Kind::Upload, Kind::Download];
    within(PATIENCE, "everything that takes long to be under way", || {
        let tally = clients.tally();
        takes_long.iter().all(|kind| tally.of(*kind).under_way() == EACH as u64).then_some(())
    });
    proxy.signal(Signal::KILL);
    proxy.wait_gone();
    let tally = clients.finish();
    let lost = |kind: Kind, way: Way| tally.of(kind).lost[way as usize];
    for kind in takes_long.into_iter().chain([Kind::H2]) {
        assert!(tally.of(kind).lost() > 0, "{kind:?}: {:?}", tally.of(kind));
    }
    assert!(lost(Kind::Download, Way::Truncated) > 0);
    assert!(tally.of(Kind::Long).executed > 0);
    each(&tally, |kind, counts| assert!(counts.executed <= counts.lost(), "{kind:?}"));
}

/// A running `ebbtide demo`; killed when it is dropped.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Demo {
    /// Starts it with plain lines.
    fn start(args: &[&str]) -> Demo {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
        command.arg("demo").args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        // What is meant for a proxy of somebody's is not meant for the demo's.
        command.env("EBBTIDE_UPSTREAM__ENDPOINTS", "nobody.test:1");
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (teller, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _nobody_listens = teller.send(line);
            }
        });
        Demo { child, lines, said: Vec::new() }
    }

    /// Waits until it says this.
    fn wait(&mut self, text: &str) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            let found = line.contains(text);
            self.said.push(line);
            if found {
                return;
            }
        }
        panic!("no {text:?} in {:#?}", self.said);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end; its exit status, and all that it said.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE * 2) {
            self.said.push(line);
        }
        let status = within(PATIENCE, "the end of the demo", || self.child.try_wait().unwrap());
        (status.code(), std::mem::take(&mut self.said))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

/// The numbers of the table at the end, by name; as many of them in each row.
fn table(said: &[String], columns: usize) -> Vec<(String, Vec<u64>)> {
    let rows = said.iter().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (name, numbers) = words.split_at_checked(words.len().checked_sub(columns)?)?;
        let numbers = numbers.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some((name.join(" "), numbers))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), Kind::COUNT + 1, "{said:#?}");
    rows
}

/// The last row, which has to be the sum of the others.
#[track_caller]
fn all(said: &[String], columns: usize) -> Vec<u64> {
    let mut rows = table(said, columns);
    let (name, all) = rows.pop().unwrap();
    assert_eq!(name, "all");
    for (column, sum) in all.iter().enumerate() {
        assert_eq!(rows.iter().map(|(_, row)| row[column]).sum::<u64>(), *sum, "{said:#?}");
    }
    all
}

/// That a single drain lost nothing, by every account.
#[track_caller]
fn assert_whole(status: Option<i32>, said: &[String]) {
    assert_eq!(status, Some(0), "{said:#?}");
    let [asked, served, _told, refused, raced, lost] = all(said, 6)[..] else {
        panic!("six columns");
    };
    assert_eq!((served + refused + raced + lost, lost), (asked, 0));
    assert!(served > 0 && refused > 0, "{said:#?}");
    assert_eq!(said.last().unwrap(), "Nothing was lost.");
    let reported = said.iter().find(|line| line.starts_with("its report   SIGTERM"));
    assert!(reported.is_some_and(|line| line.ends_with(" 0 cut")), "{said:#?}");
}

#[test]
fn demo_loses_nothing_and_its_totals_add_up() {
    let (status, said) = Demo::start(&["--load-for", "1s"]).end();
    assert_whole(status, &said);
    assert!(!said.concat().contains('\x1b'), "no terminal, no escapes");
    for stage in ["serving", "closing", "draining", "finishing", "stopped"] {
        let stage = format!(" s  {stage}: ");
        assert_eq!(
            said.iter().filter(|line| line.contains(&stage)).count(),
            1,
            "{stage} {said:#?}"
        );
    }
}

#[test]
fn demo_compares_a_drain_with_what_is_lost_without() {
    let (status, said) = Demo::start(&["--compare", "--plain", "--load-for", "2"]).end();
    assert_eq!(status, Some(0), "{said:#?}");
    let [_, _, lost_without, executed, served, _, lost_with] = all(&said, 7)[..] else {
        panic!("seven columns");
    };
    assert!(lost_without > 0 && executed > 0 && executed <= lost_without, "{said:#?}");
    assert!(served > 0);
    assert_eq!(lost_with, 0, "{said:#?}");
    for (name, row) in table(&said, 7) {
        let takes_long = ["long answers", "downloads", "uploads", "HTTP/2"].contains(&&*name);
        assert!(!takes_long || row[2] > 0, "{name}: {said:#?}");
    }
}

#[test]
fn demo_that_is_interrupted_drains_at_once() {
    let mut demo = Demo::start(&["--load-for", "1m"]);
    demo.wait(" served,");
    let began = Instant::now();
    demo.signal(Signal::INT);
    let (status, said) = demo.end();
    assert_whole(status, &said);
    assert!(began.elapsed() < Duration::from_secs(30), "at once: {:?}", began.elapsed());
}

#[test]
fn demo_that_is_interrupted_twice_cuts_and_says_what() {
    let mut demo = Demo::start(&["--load-for", "1m"]);
    demo.wait("  2.");
    demo.signal(Signal::INT);
    demo.wait(" draining: ");
    // Less than a second after the first it would be the same one.
    pause(ms(1200));
    demo.signal(Signal::INT);
    let (status, said) = demo.end();
    assert_eq!(status, Some(1), "{said:#?}");
    assert!(all(&said, 6)[5] > 0, "{said:#?}");
    for text in [" cutting: ", " cut: ", "The proxy ended with exit status 3."] {
        assert!(said.iter().any(|line| line.contains(text)), "{text}: {said:#?}");
    }
}

#[test]
fn demo_that_is_killed_leaves_no_proxy_behind() {
    let mut demo = Demo::start(&["--load-for", "1m"]);
    demo.wait(" served,");
    let pid = demo.pid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let proxy = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    let proxy = pidfd_open(proxy, PidfdFlags::empty()).unwrap();
    demo.signal(Signal::KILL);
    let mut waited = [PollFd::new(&proxy, PollFlags::IN)];
    let bound = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    assert_eq!(poll(&mut waited, Some(&bound)).unwrap(), 1, "the proxy goes on alone");
}

/// Runs the demo on a terminal of this size, which is interrupted at the first sight of
/// some text; what was written there.
fn on_a_terminal(rows: u16, columns: u16, at: &str) -> (ExitStatus, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).unwrap();
    let path = ptsname(&ours, Vec::new()).unwrap();
    let theirs: OwnedFd = open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
    command.args(["demo", "--load-for", "1m"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut child = command.stdin(Stdio::null()).stdout(theirs).spawn().unwrap();
    // Our copy of their end is gone with the command: the end of the demo is that of
    // the terminal.
    drop(command);
    let mut terminal = File::from(ours);
    let mut written = Vec::new();
    let mut was_interrupted = false;
    let mut octets = [0; 65_536];
    while let Ok(count) = terminal.read(&mut octets) {
        if count == 0 {
            break;
        }
        written.extend_from_slice(&octets[..count]);
        if !was_interrupted && String::from_utf8_lossy(&written).contains(at) {
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            was_interrupted = true;
        }
    }
    let status = within(PATIENCE, "the end of the demo", || child.try_wait().unwrap());
    (status, String::from_utf8_lossy(&written).into_owned())
}

#[test]
fn demo_on_a_terminal_redraws_in_place_and_gives_the_cursor_back() {
    let (status, written) = on_a_terminal(24, 80, "(Ctrl-C: now)");
    assert!(status.success(), "{written}");
    let (hide, show) = ("\x1b[?25l", "\x1b[?25h");
    assert!(written.find(hide) < written.find("ebbtide demo"), "hidden before anything is drawn");
    assert!(written.rfind(hide) < written.rfind(show), "given back");
    let frames: Vec<_> = written.split("\x1b[J").collect();
    assert!(frames.len() > 10, "{written}");
    for frame in &frames[1..frames.len() - 2] {
        assert!(frame.contains("\r\x1b[23A"), "over the last one: {frame:?}");
        assert_eq!(frame.matches('\n').count(), 23, "{frame:?}");
    }
    let last = frames.last().unwrap();
    assert!(last.contains("Nothing was lost."), "{last}");
}

#[test]
fn demo_on_a_terminal_that_is_too_small_writes_lines() {
    let (status, written) = on_a_terminal(8, 80, " serving: ");
    assert!(status.success(), "{written}");
    assert!(!written.contains('\x1b'), "{written}");
}

#[test]
fn demo_says_what_it_does_not_understand() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
    let output = command.args(["demo", "--load-for", "soon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "--load-for: found \"soon\"; allowed: a duration from 1s to 1m\n");
}
