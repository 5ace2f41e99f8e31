//! Talking to the service manager (sd_notify(3)), where there is one.
//!
//! Owns the socket and, in `policy`, what is said when. Promises that nothing is ever
//! waited for, that what matters is tried again for as long as the process lives, and
//! that without `NOTIFY_SOCKET` nothing happens at all. Knows nothing of sockets that are
//! handed over, and decides nothing: it is told what has happened.

mod policy;
mod socket;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

pub use policy::Vitals;

use crate::drain::{Deadline, Phase};
use crate::limits::{NOTICE_RETRY, NOTICES_MAX};
use crate::telemetry::{Event, Events, Level};
use policy::{Notice, Policy};
use socket::NotifySocket;

/// Our side of the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<NotifySocket>,
    policy: Policy,
    watchdog: Option<Duration>,
    /// What matters and could not be sent yet.
    waiting: VecDeque<String>,
    failed: bool,
    events: Events,
}

/// What the environment says of the manager, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    socket: Option<OsString>,
    watchdog_usec: Option<OsString>,
    watchdog_pid: Option<OsString>,
    store: Option<OsString>,
}

impl Environment {
    /// `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID` and `FDSTORE`.
    pub fn read() -> Self {
        Environment {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()),
            watchdog_usec: std::env::var_os("WATCHDOG_USEC"),
            watchdog_pid: std::env::var_os("WATCHDOG_PID"),
            store: std::env::var_os("FDSTORE"),
        }
    }

    /// How many descriptors the manager stores, if it says so.
    pub fn room(&self) -> Option<usize> {
        self.store.as_deref()?.to_str()?.parse().ok()
    }

    /// The time in which the manager wants to hear that we live. It names the process
    /// that it has started; a successor speaks in that one's place.
    fn watchdog(&self, is_successor: bool) -> Option<Duration> {
        let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
        let usec = number(self.watchdog_usec.as_deref()?)?;
        let meant = self.watchdog_pid.as_deref().and_then(number);
        let ours = meant.is_none_or(|pid| pid == u64::from(std::process::id()));
        (usec > 0 && (ours || is_successor)).then(|| Duration::from_micros(usec))
    }
}

impl Notifier {
    /// Silent for ever if there is no manager, and until [`Notifier::is_main`] if this
    /// process is a successor.
    pub fn new(environment: &Environment, is_successor: bool, events: Events) -> Self {
        let watchdog = environment.socket.as_ref().and_then(|_| environment.watchdog(is_successor));
        let mut notifier = Notifier {
            socket: None,
            policy: Policy::new(is_successor, watchdog, Instant::now()),
            watchdog,
            waiting: VecDeque::new(),
            failed: false,
            events,
        };
        if let Some(address) = &environment.socket {
            match NotifySocket::open(address) {
                Ok(socket) => notifier.socket = Some(socket),
                Err(error) => notifier.fails(&error),
            }
        }
        notifier
    }

    /// The time in which the manager wants to hear that every thread turns, if it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// Whether there is a manager at all.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// When [`Notifier::beat`] is to be called.
    pub fn due(&self) -> Deadline {
        if self.socket.is_none() {
            return Deadline::NEVER;
        }
        let retry = if self.waiting.is_empty() {
            Deadline::NEVER
        } else {
            Deadline::after(Instant::now(), NOTICE_RETRY)
        };
        self.policy.due().nearer(retry)
    }

    /// The process enters a phase: `READY=1` with the first serving, `STOPPING=1` where
    /// the service stops and nobody goes on.
    pub fn enters(&mut self, phase: Phase, vitals: Vitals) {
        let notice = self.policy.enters(phase, vitals, Instant::now());
        self.say(notice);
    }

    /// Time has passed, see [`Notifier::due`]. `turns`: every worker has answered of late.
    pub fn beat(&mut self, vitals: Vitals, turns: bool) {
        self.try_again();
        let notice = self.policy.beat(vitals, turns, Instant::now());
        self.say(notice);
    }

    /// To be called when a successor is being started, or has come by itself: the
    /// manager shows the service as reloading until one of the next two.
    pub fn upgrade_begins(&mut self) {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        let notice = self.policy.upgrade_begins(Duration::new(seconds, nanos), Instant::now());
        self.say(notice);
    }

    /// To be called when this process goes on by itself, before or after the successor
    /// has served.
    pub fn upgrade_failed(&mut self, why: &str) {
        let notice = self.policy.upgrade_failed(why, Instant::now());
        self.say(notice);
    }

    /// To be called when the successor has served for `upgrade.commit_after`, or when
    /// this process is about to end while it serves. The successor must no longer be a
    /// child of ours. From then on this process says nothing. `true`: the successor has
    /// to be told by `main` that it is the one now; if `false`, whoever names us will.
    #[must_use]
    pub fn committed(&mut self, successor: u32) -> bool {
        let (tell, notice) = self.policy.committed(successor);
        self.say(notice);
        tell
    }

    /// To be called instead of [`Notifier::committed`] if the successor belongs to another
    /// service: this one ends with this process, which remains its main one.
    pub fn went_elsewhere(&mut self, successor: u32) {
        let notice = self.policy.went_elsewhere(successor, Instant::now());
        self.say(notice);
    }

    /// To be called in a successor when its elder says `main`, or when the elder's
    /// channel has ended without that. `true`: our own successor, which was committed
    /// before, has been named in turn, and has to be told `main` as well.
    #[must_use]
    pub fn is_main(&mut self, vitals: Vitals) -> bool {
        let (tell, notice) = self.policy.is_main(vitals, Instant::now());
        self.say(notice);
        tell
    }

    /// Gives the manager a copy of a listener, which a process that it starts anew gets;
    /// says whether it was sent. Whether there is room for it only the manager knows.
    pub fn store(&mut self, name: &str, fd: BorrowedFd<'_>) -> bool {
        let Some(socket) = self.socket.as_ref().filter(|_| self.policy.speaks()) else {
            return false;
        };
        let sent = socket.send(&format!("FDSTORE=1\nFDNAME={name}"), &[fd]);
        if let Err(error) = &sent {
            self.fails(error);
        }
        sent.is_ok()
    }

    /// Has the manager close what it was given under this name; says whether it listens.
    pub fn forget(&mut self, name: &str) -> bool {
        let speaks = self.socket.is_some() && self.policy.speaks();
        let text = format!(
            "FDSTOREREMOVE=1
FDNAME={name}"
        );
        self.say(speaks.then_some(Notice { text, essential: true }));
        speaks
    }

    /// Before the process ends: tries to say what is still to be said.
    pub async fn flush(&mut self, until: Instant) {
        self.try_again();
        while !self.waiting.is_empty() && Instant::now() < until {
            tokio::time::sleep(NOTICE_RETRY / 10).await;
            self.try_again();
        }
    }

    fn say(&mut self, notice: Option<Notice>) {
        let Some(Notice { text, essential }) = notice else { return };
        let Some(socket) = &self.socket else { return };
        // Nothing overtakes what waits.
        let sent = if self.waiting.is_empty() {
            socket.send(&text, &[])
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        };
        match sent {
            Ok(()) => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.fails(&error),
            Err(_) if essential && self.waiting.len() < NOTICES_MAX => self.waiting.push_back(text),
            Err(_) => {}
        }
    }

    fn try_again(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(text) = self.waiting.front() {
            if let Err(error) = socket.send(text, &[])
                && error.kind() == io::ErrorKind::WouldBlock
            {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn fails(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            let event = Event::new(Level::Warn, "notify_failed");
            let event = event.with("message", "the service manager cannot be told how we are");
            self.events.emit(event.with("error", error.to_string()));
        }
    }
}
