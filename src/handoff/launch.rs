//! Starting a successor, so that it is nobody's child when it serves.
//!
//! The elder starts the new program as a *launcher*, which does nothing but start the
//! program once more: that is the successor. While the launcher waits, the elder hears
//! by it how the successor has ended, as a parent would; when the launcher has been told
//! to leave, the successor belongs to init or the service manager. The elder tells it by
//! one octet on a pipe of its own: `c` commits, `a` aborts, the end of the pipe commits.
//! A program that is no launcher at all is seen by what it does instead.

use std::ffi::OsString;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::channel::Channel;
use super::inherit::{adopt, adopt_socket, passed_on};
use super::message::Message;
use super::unheard;
use super::watch::watch;
use crate::limits::LAUNCHER_END;

/// The variable that names the channel to the elder; of a launcher, and its pipe.
pub const HANDOFF: &str = "EBBTIDE_HANDOFF";
/// The variable that makes a launcher.
pub const LAUNCH: &str = "EBBTIDE_HANDOFF_LAUNCH";

/// What was meant for this process and no other.
const NOT_PASSED_ON: [&str; 5] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID"];

const COMMIT: u8 = b'c';
const ABORT: u8 = b'a';

/// A launcher that waits. When this is dropped it leaves, as when it is told to; nobody
/// waits for its end then.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    ended: AsyncFd<OwnedFd>,
    control: PipeWriter,
}

/// Starts `binary`, which will find the other end of `channel`. Only one thread of the
/// process may start programs, and it needs a runtime around it.
///
/// # Errors
///
/// If it is no program, or cannot be started.
pub fn launch(binary: &Path, args: &[OsString], channel: OwnedFd) -> io::Result<Launched> {
    let (theirs, control) = io::pipe()?;
    let mut command = Command::new(binary);
    command.args(args).env(LAUNCH, "1");
    command.env(HANDOFF, format!("{},{}", channel.as_raw_fd(), theirs.as_raw_fd()));
    for name in NOT_PASSED_ON {
        command.env_remove(name);
    }
    let mut child =
        passed_on(&[channel.as_fd(), theirs.as_fd()], || unheard::waiting(|| command.spawn()))?;
    match end_of(&child) {
        Ok(ended) => Ok(Launched { child, ended, control }),
        Err(error) => {
            let _gone = child.kill();
            let _reaped = child.wait();
            Err(error)
        }
    }
}

/// What is readable when the child has ended.
fn end_of(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::NONBLOCK)?;
    watch(pidfd, Interest::READABLE)
}

impl Launched {
    /// The number of the launcher.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the launcher has ended, which it does by itself only when the
    /// successor has, and says how: "exited with status 2", "was killed by SIGSEGV".
    pub async fn ended(&mut self) -> String {
        match self.end().await {
            Ok(status) => told(status),
            Err(error) => format!("ended, and it is not known how: {error}"),
        }
    }

    async fn end(&mut self) -> io::Result<ExitStatus> {
        let _readable = self.ended.readable().await?;
        self.child.wait()
    }

    /// The successor goes its own way.
    pub async fn commit(self) {
        self.tell(COMMIT).await;
    }

    /// The successor is killed.
    pub async fn abort(self) {
        self.tell(ABORT).await;
    }

    async fn tell(mut self, octet: u8) {
        // Who has ended does not listen.
        let _unheard = self.control.write_all(&[octet]);
        if tokio::time::timeout(LAUNCHER_END, self.end()).await.is_err() {
            // It was no launcher, or it is stuck.
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// How a launcher has ended, and so its successor.
fn told(status: ExitStatus) -> String {
    let signal = status.signal().or(status.code().filter(|code| *code > 128).map(|c| c - 128));
    match (signal, status.code()) {
        (Some(signal), _) => format!("was killed by {}", name(signal)),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// The program as whoever started this process named it, to start what is there later: a
/// link stays a link. If that is not this program, where it is.
///
/// # Errors
///
/// If nobody knows.
pub fn program() -> io::Result<PathBuf> {
    itself().map_or_else(std::env::current_exe, Ok)
}

/// The path by which this process was started, if the program is still the one there.
fn itself() -> Option<PathBuf> {
    let named = PathBuf::from(std::env::args_os().next()?);
    let running = identity(Path::new("/proc/self/exe"))?;
    let found = if named.components().nth(1).is_some() || named.is_absolute() {
        named
    } else {
        let path = std::env::var_os("PATH")?;
        let here = |dir: &PathBuf| identity(dir) == Some(running);
        std::env::split_paths(&path).map(|dir| dir.join(&named)).find(here)?
    };
    let found = std::path::absolute(found).ok()?;
    (identity(&found) == Some(running)).then_some(found)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether this process is a launcher.
#[must_use]
pub fn is_launcher() -> bool {
    std::env::var_os(LAUNCH).is_some()
}

/// The channel to the elder that started this process, if one did. To be asked before
/// anything else is started.
///
/// # Errors
///
/// If the environment names what is no such channel.
pub fn predecessor() -> io::Result<Option<OwnedFd>> {
    let Some(value) = std::env::var_os(HANDOFF) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| io::Error::other("it is no number"));
    number.and_then(adopt_socket).map(Some).map_err(|error| in_environment(&error))
}

fn in_environment(error: &io::Error) -> io::Error {
    io::Error::other(format!("{HANDOFF} is not for people to set: {error}"))
}

/// What a launcher does; to be called before anything else.
#[must_use]
pub fn launcher() -> ExitCode {
    unheard::ignore();
    match inherited().and_then(|(channel, control)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(start_and_wait(channel, control))
    }) {
        Ok(status) => {
            let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            ExitCode::from(signal.map(|signal| 128 | signal).or(code).unwrap_or(1))
        }
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "ebbtide: cannot start a successor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The channel and the control pipe of a launcher.
fn inherited() -> io::Result<(OwnedFd, OwnedFd)> {
    let value = std::env::var_os(HANDOFF).unwrap_or_default();
    let numbers = value.to_str().and_then(|text| text.split_once(','));
    let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let adopt_both =
        |(channel, control): (RawFd, RawFd)| Ok((adopt_socket(channel)?, adopt(control)?));
    let numbers = numbers.ok_or_else(|| io::Error::other("there are no two numbers"));
    numbers.and_then(adopt_both).map_err(|error| in_environment(&error))
}

/// Starts the successor, and stays until it ends or the elder says so.
async fn start_and_wait(channel: OwnedFd, control: OwnedFd) -> io::Result<ExitStatus> {
    // What a terminal or a service manager sends to all is for the elder to decide on.
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()] {
        signals.push(signal(kind)?);
    }
    let mut child = match successor(&channel) {
        Ok(child) => child,
        Err(error) => {
            let text = format!("the new program cannot be started: {error}");
            let channel = Channel::from_fd(channel)?;
            let _unheard = channel.send(&Message::Failed { error: text }, &[], b"").await;
            return Err(error);
        }
    };
    drop(channel);
    let ended = end_of(&child)?;
    rustix::io::ioctl_fionbio(&control, true)?;
    let control = watch(control, Interest::READABLE)?;
    tokio::select! {
        biased;
        readable = ended.readable() => drop(readable?),
        word = order(&control) => match word? {
            Some(ABORT) => {
                let _gone = pidfd_send_signal(ended.get_ref(), Signal::KILL);
            }
            _ => return Ok(ExitStatus::default()),
        },
    }
    child.wait()
}

/// What the elder says; none if it has gone.
async fn order(control: &AsyncFd<OwnedFd>) -> io::Result<Option<u8>> {
    let mut octet = [0];
    loop {
        let mut ready = control.readable().await?;
        let read =
            |control: &AsyncFd<OwnedFd>| Ok(rustix::io::read(control.get_ref(), &mut octet)?);
        match ready.try_io(read) {
            Ok(Ok(0)) => return Ok(None),
            Ok(Ok(_)) => return Ok(Some(octet[0])),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

/// Starts this very program once more.
fn successor(channel: &OwnedFd) -> io::Result<Child> {
    // By its path, so that the process has its name; the file may have been replaced.
    let program = itself().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut args = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env_remove(LAUNCH).env(HANDOFF, channel.as_raw_fd().to_string());
    passed_on(&[channel.as_fd()], || command.spawn())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> (Launched, Channel) {
        let (channel, theirs) = Channel::pair().unwrap();
        let args = ["-c".into(), script.into()];
        (launch(Path::new("/bin/sh"), &args, theirs).unwrap(), channel)
    }

    async fn within<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), what).await.unwrap()
    }

    #[tokio::test]
    async fn how_a_successor_ended_is_told() {
        for (script, how) in [
            ("exit 2", "exited with status 2"),
            ("exit 0", "exited with status 0"),
            ("kill -SEGV $$", "was killed by SIGSEGV"),
            ("exit 137", "was killed by SIGKILL"),
            ("exit 192", "was killed by signal 64"),
        ] {
            let (mut launched, channel) = shell(script);
            assert_eq!(within(launched.ended()).await, how);
            // The other end was only the child's.
            assert!(within(channel.recv()).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn the_child_finds_what_it_needs_and_no_more() {
        let script = "IFS=, read -r channel control <<X
$EBBTIDE_HANDOFF
X
            [ \"$EBBTIDE_HANDOFF_LAUNCH\" = 1 ] || exit 3
            [ -S /proc/self/fd/$channel ] || exit 4
            [ -p /proc/self/fd/$control ] || exit 5
            [ -z \"$LISTEN_FDS$LISTEN_PID$WATCHDOG_PID\" ] || exit 6
            [ -n \"$PATH\" ] || exit 7";
        let (mut launched, _channel) = shell(script);
        assert_eq!(within(launched.ended()).await, "exited with status 0");
    }

    #[tokio::test]
    async fn what_is_sent_to_all_does_not_end_who_was_just_started() {
        let (mut launched, _channel) =
            shell("for i in HUP USR1 USR2; do kill -$i $$; done; exit 5");
        assert_eq!(within(launched.ended()).await, "exited with status 5");
    }

    #[tokio::test]
    async fn what_is_no_program_is_an_error_at_once() {
        for wrong in ["/no/such/program", "/etc/passwd", "/"] {
            let (channel, theirs) = Channel::pair().unwrap();
            assert!(launch(Path::new(wrong), &[], theirs).is_err());
            assert!(within(channel.recv()).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn the_word_reaches_the_launcher_and_who_does_not_listen_is_killed() {
        let read = "exec 3<&${EBBTIDE_HANDOFF#*,}; read -r -N 1 x <&3 2>/dev/null || x=$(head -c 1 <&3); \
                    [ $x = c ]";
        let (launched, channel) = shell(read);
        let pid = launched.pid();
        within(launched.commit()).await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(within(channel.recv()).await.unwrap().is_none());

        let (launched, channel) = shell("trap '' TERM; exec sleep 1000");
        let pid = launched.pid();
        within(launched.abort()).await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(within(channel.recv()).await.unwrap().is_none());
    }

    #[test]
    fn the_program_is_found_where_it_was_started() {
        let found = program().unwrap();
        assert!(found.is_absolute());
        assert_eq!(identity(&found), identity(Path::new("/proc/self/exe")));
    }
}
