//! The real binary and its successors: who of them is there, who is asked, and how each
//! of them ended.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::admin;
use super::kernel::sockets_of;
use super::process::{Event, Launch, Proxy};
use super::wire::Place;
use super::{PATIENCE, within};

/// One process of the line.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its process id.
    pub(crate) pid: u32,
    /// Its generation, as it says.
    pub(crate) generation: u64,
    pidfd: OwnedFd,
    /// Its end is told to us, and to nobody else here.
    adopted: bool,
}

/// How a process ended; 128 and the signal's number if it was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// When.
    pub(crate) at: Instant,
    /// Its exit status, where it is known.
    pub(crate) code: Option<i32>,
}

impl Member {
    fn new(pid: u32, generation: u64, adopted: bool) -> Option<Member> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).ok()?;
        Some(Member { pid, generation, pidfd, adopted })
    }

    /// Sends a signal; the moment just before.
    pub(crate) fn signal(&self, signal: Signal) -> Instant {
        let before = Instant::now();
        pidfd_send_signal(&self.pidfd, signal).expect("the process takes a signal");
        before
    }

    /// Sends a signal to a process that may have ended meanwhile.
    pub(crate) fn try_signal(&self, signal: Signal) {
        let _ended = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Stops it in its tracks, until it gets SIGCONT, unless it ends meanwhile.
    pub(crate) fn freeze(&self) {
        self.try_signal(Signal::STOP);
        let stands = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
            Some(stat.rsplit_once(')')?.1.trim().starts_with('T'))
        };
        within(PATIENCE, "the process to stand still", || {
            (stands() == Some(true) || self.is_gone()).then_some(())
        });
    }

    /// The sockets that it has open.
    pub(crate) fn sockets(&self) -> BTreeSet<u64> {
        sockets_of(self.pid)
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    fn ends_within(&self, bound: Duration) -> bool {
        let bound = Timespec::try_from(bound).expect("a bound");
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&bound)) {
                Err(rustix::io::Errno::INTR) => {}
                ready => return ready.expect("a process can be waited for") > 0,
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come within `bound`.
    #[track_caller]
    pub(crate) fn wait_gone(&self, bound: Duration) -> Gone {
        assert!(
            self.ends_within(bound),
            "generation {} ({}) has not ended within {bound:?}",
            self.generation,
            self.pid
        );
        let at = Instant::now();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = self.adopted.then(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options));
        let status = status.and_then(Result::ok).flatten();
        let code = status.and_then(|status| {
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        });
        Gone { at, code }
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("its descriptors").count()
    }

    /// Octets of memory of its own.
    pub(crate) fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid));
        let text = text.expect("its memory");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("Pss_Anon") * 1024
    }

    /// Its children, dead ones that nobody has asked for too.
    pub(crate) fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads");
        let lists = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists
            .flat_map(|text| {
                text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// The first process and all that come after it; all of them are killed on drop. What
/// is said of [`Proxy`] but signals and ends is said of all of them together.
#[derive(Debug)]
pub(crate) struct Generations {
    proxy: Proxy,
    admin: Place,
    binary: PathBuf,
    _directory: TempDir,
}

impl Deref for Generations {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl Generations {
    /// Starts the first, with an admin socket of its own.
    pub(crate) fn start(launch: Launch) -> Generations {
        let directory = tempfile::tempdir().expect("a directory");
        let admin = Place::Unix(directory.path().join("admin.sock"));
        Generations::start_with(launch.arg("--admin").arg(admin.to_string()), directory)
    }

    /// Starts the first, with an admin listener on TCP, where nobody can ask for an
    /// upgrade.
    pub(crate) fn start_with_metrics(launch: Launch) -> Generations {
        Generations::start_with(launch.admin(), tempfile::tempdir().expect("a directory"))
    }

    /// Starts the first, which says itself where its admin interface is.
    pub(crate) fn start_at(launch: Launch) -> Generations {
        Generations::start_with(launch, tempfile::tempdir().expect("a directory"))
    }

    fn start_with(launch: Launch, directory: TempDir) -> Generations {
        // Whose parent has ended becomes our child, so that its exit status is known.
        set_child_subreaper(Some(rustix::process::getpid())).expect("we adopt orphans");
        let proxy = launch.start();
        let admin = proxy.admin();
        let binary = env!("CARGO_BIN_EXE_ebbtide").into();
        Generations { proxy, admin, binary, _directory: directory }
    }

    /// Where the admin interface is.
    pub(crate) fn admin_place(&self) -> &Place {
        &self.admin
    }

    /// What the admin interface answers, or what came instead.
    pub(crate) fn ask(&self, path: &str) -> Result<String, String> {
        admin::try_get(&self.admin, path)
    }

    /// What `/status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        admin::status(&self.admin)
    }

    /// The same, if somebody answers.
    pub(crate) fn try_status(&self) -> Option<Value> {
        admin::try_status(&self.admin)
    }

    /// The value of a metric; 0 where it has not been counted yet.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        admin::metric(&self.admin, name)
    }

    /// Whoever answers for all of them now.
    pub(crate) fn newest(&self) -> Member {
        within(PATIENCE, "somebody who answers for all", || {
            let status = self.try_status()?;
            let pid = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
            self.member(pid, status["generation"].as_u64()?)
        })
    }

    /// A process of the line by its number.
    pub(crate) fn member(&self, pid: u32, generation: u64) -> Option<Member> {
        Member::new(pid, generation, pid != self.proxy.pid)
    }

    /// The event of this name that has so many of it before.
    #[track_caller]
    pub(crate) fn wait_nth(&self, name: &str, n: usize) -> Event {
        within(PATIENCE, &format!("event {name}, number {n}"), || {
            self.events(name).into_iter().nth(n)
        })
    }

    /// Replaces the binary by a signal, and waits until the successor serves: who was
    /// there, and when the other had said that it serves.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> (Member, Event) {
        let elder = self.newest();
        let served = self.events("upgrade_serving").len();
        let failed = self.events("upgrade_failed").len();
        elder.signal(Signal::USR2);
        let serving = within(PATIENCE, "a successor that serves", || {
            let failures = self.events("upgrade_failed");
            assert!(failures.len() == failed, "{:?}", failures.last().map(|it| &it.fields));
            self.events("upgrade_serving").into_iter().nth(served)
        });
        (elder, serving)
    }

    /// `ebbtide upgrade` with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        self.commanded(args).output().expect("the command runs")
    }

    /// `ebbtide upgrade` with these arguments, not started yet.
    pub(crate) fn commanded(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("upgrade").arg("--admin").arg(self.admin.to_string()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Every process that speaks into the pipe of the first: all generations, and
    /// whoever helps them.
    pub(crate) fn alive(&self) -> BTreeSet<u32> {
        speakers(self.proxy.pipe)
    }

    /// Waits until so many are there, helpers counted.
    #[track_caller]
    pub(crate) fn wait_alive(&self, n: usize) {
        within(PATIENCE, &format!("{n} processes"), || (self.alive().len() == n).then_some(()));
    }

    /// The drain report of a generation.
    pub(crate) fn report_of(&self, generation: u64) -> Value {
        let what = format!("the report of generation {generation}");
        let event = self.wait_event_where(&what, |event| {
            event.is("drain_report") && event.fields["generation"] == generation
        });
        event.fields
    }

    /// The exit status of one who has ended. If somebody else was told it, because its own
    /// elder is still there, the one that it has written down.
    #[track_caller]
    pub(crate) fn exit_of(&self, member: &Member, gone: &Gone) -> i32 {
        if member.pid == self.proxy.pid {
            return self.proxy_exit();
        }
        let written = || self.report_of(member.generation)["exit_status"].as_i64();
        gone.code.or_else(|| i32::try_from(written()?).ok()).expect("an exit status")
    }

    /// The exit status of the first, when it has left for its successor.
    #[track_caller]
    pub(crate) fn proxy_exit(&self) -> i32 {
        self.proxy.wait_gone().code()
    }

    /// Stops whoever serves, and waits until nobody is left; how the last one ended.
    pub(crate) fn stop(&self) -> Gone {
        let newest = self.newest();
        newest.signal(Signal::TERM);
        let gone = newest.wait_gone(PATIENCE * 2);
        self.wait_alive(0);
        Gone { at: gone.at, code: Some(self.exit_of(&newest, &gone)) }
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // Whoever is being started while others are killed is found by the next look.
        for _ in 0..100 {
            let alive = self.alive();
            if alive.is_empty() {
                return;
            }
            for pid in alive {
                let Some(member) = self.member(pid, 0) else { continue };
                // The number may have passed to somebody else before it was held.
                if speaks_into(pid, self.proxy.pipe) {
                    member.try_signal(Signal::KILL);
                    member.wait_gone(PATIENCE);
                }
            }
        }
    }
}

/// All numbers in a value together: counts by kind, or one count.
pub(crate) fn sum(value: &Value) -> u64 {
    match value {
        Value::Array(all) => all.iter().map(sum).sum(),
        Value::Object(all) => all.values().map(sum).sum(),
        number => number.as_u64().unwrap_or(0),
    }
}

fn speaks_into(pid: u32, pipe: u64) -> bool {
    std::fs::read_link(format!("/proc/{pid}/fd/2"))
        .is_ok_and(|link| link == Path::new(&format!("pipe:[{pipe}]")))
}

fn speakers(pipe: u64) -> BTreeSet<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| speaks_into(pid, pipe)).collect()
}
