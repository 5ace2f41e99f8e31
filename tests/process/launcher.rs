//! The process between an elder and its successor: what it passes on, and when it leaves.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use ebbtide::handoff::{Channel, Launched, launch};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::runtime::{Builder, Runtime};

use crate::support::{PATIENCE, within};

const BINARY: &str = env!("CARGO_BIN_EXE_ebbtide");

/// A launcher, its successor's number once it runs, and our end of the channel.
struct Case {
    runtime: Runtime,
    launched: Launched,
    _channel: Channel,
}

impl Case {
    /// What they print is nobody's business here.
    fn new(args: &[&str]) -> Case {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let entered = runtime.enter();
        let (channel, theirs) = Channel::pair().unwrap();
        let quiet = ["-c", "exec \"$0\" \"$@\" >/dev/null 2>&1", BINARY];
        let args: Vec<OsString> = quiet.iter().chain(args).map(OsString::from).collect();
        let launched = launch(Path::new("/bin/sh"), &args, theirs).unwrap();
        drop(entered);
        Case { runtime, launched, _channel: channel }
    }

    /// One whose successor stays.
    fn of_server() -> Case {
        Case::new(&["run", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1"])
    }

    /// The successor, once it runs.
    fn successor(&self) -> Successor {
        let launcher = self.launched.pid();
        let number = within(PATIENCE, "the successor to run", || {
            let all = std::fs::read_dir("/proc").unwrap();
            let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            pids.into_iter().find(|pid| parent(*pid) == Some(launcher) && named(*pid))
        });
        Successor { number, pidfd: pidfd_open(pid(number), PidfdFlags::empty()).unwrap() }
    }

    fn ended(&mut self) -> String {
        let ended = async { tokio::time::timeout(PATIENCE, self.launched.ended()).await };
        self.runtime.block_on(ended).expect("the launcher ends in time")
    }
}

/// A process that does not outlive its test.
struct Successor {
    number: u32,
    pidfd: OwnedFd,
}

impl Successor {
    fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _gone = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

/// The parent of a process that runs.
fn parent(number: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    fields.next().filter(|state| *state != "Z")?;
    fields.next()?.parse().ok()
}

/// Whether it is our program already, and not what the launcher was when it forked.
fn named(number: u32) -> bool {
    let environ = std::fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
    let mut variables = environ.split(|octet| *octet == 0);
    let comm = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
    comm.trim() == "ebbtide"
        && environ.len() > 1
        && !variables.any(|one| one.starts_with(b"EBBTIDE_HANDOFF_LAUNCH="))
}

fn is_gone(number: u32) {
    within(PATIENCE, "the process to be gone", || parent(number).is_none().then_some(()));
}

#[test]
fn the_status_of_the_successor_is_that_of_the_launcher() {
    assert_eq!(Case::new(&["--version"]).ended(), "exited with status 0");
    assert_eq!(Case::new(&["nonsense"]).ended(), "exited with status 2");
    let nobody = ["status", "--admin", "unix:/nonexistent/ebbtide.sock"];
    assert_eq!(Case::new(&nobody).ended(), "exited with status 1");
}

#[test]
fn a_signal_ends_the_successor_and_not_the_launcher() {
    let mut case = Case::of_server();
    let successor = case.successor();
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR2] {
        kill_process(pid(case.launched.pid()), signal).unwrap();
    }
    assert_eq!(parent(successor.number), Some(case.launched.pid()));
    successor.signal(Signal::ABORT);
    assert_eq!(case.ended(), "was killed by SIGABRT");
}

/// The signals of a kind, as bits: 1 is the first.
fn signals(of: u32, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

#[test]
fn a_successor_is_born_deaf_to_what_is_sent_to_all_until_it_listens() {
    let bits = [Signal::HUP, Signal::USR1, Signal::USR2];
    let bits = bits.iter().fold(0, |bits, signal| bits | 1 << (signal.as_raw() - 1));
    let case = Case::of_server();
    let (launcher, successor) = (case.launched.pid(), case.successor());
    assert_eq!(signals(launcher, "SigIgn") & bits, bits);
    within(PATIENCE, "the launcher to have started it", || {
        (signals(launcher, "SigBlk") == 0).then_some(())
    });
    within(PATIENCE, "the successor to listen", || {
        (signals(successor.number, "SigCgt") & bits == bits).then_some(())
    });
    // While a thread is started, all are blocked for a moment.
    within(PATIENCE, "the successor to let them through", || {
        (signals(successor.number, "SigBlk") & bits == 0).then_some(())
    });
}

#[test]
fn a_successor_that_is_not_wanted_is_killed() {
    let case = Case::of_server();
    let (launcher, successor) = (case.launched.pid(), case.successor());
    case.runtime.block_on(case.launched.abort());
    is_gone(successor.number);
    assert_eq!(parent(launcher), None);
}

#[test]
fn a_successor_that_serves_is_nobodys_child() {
    for commits in [true, false] {
        let case = Case::of_server();
        let (launcher, successor) = (case.launched.pid(), case.successor());
        if commits {
            case.runtime.block_on(case.launched.commit());
        } else {
            // As if the elder had been killed.
            drop(case.launched);
        }
        is_gone(launcher);
        let foster = parent(successor.number).expect("the successor goes on");
        assert_ne!(foster, launcher);
    }
}
