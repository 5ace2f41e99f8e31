//! What the service manager is told, and when, as a pure function of what happens.
//!
//! | happens | while | said |
//! | --- | --- | --- |
//! | the process serves | main | `READY=1`, `STATUS` |
//! | an upgrade begins | main | `RELOADING=1`, `MONOTONIC_USEC`, `STATUS` |
//! | it has failed, or the successor died soon enough | main | `READY=1`, `STATUS` with the reason |
//! | the successor is to stay, or we are about to exit | main | `MAINPID` of the successor, `READY=1`, and nothing ever again |
//! | the successor is another service's | main | `READY=1`, `STATUS` |
//! | the listeners are about to close | main, and nobody goes on | `STOPPING=1`, `STATUS` |
//! | time passes in a drain | main | `EXTEND_TIMEOUT_USEC`, so that it ends by its own bounds |
//! | time passes | main | `WATCHDOG=1` if every thread turns, `STATUS` if it is another one |
//!
//! A successor is silent until it is main: before, nobody would listen, or the manager
//! would take the word of a process that may not stay.

use std::time::{Duration, Instant};

use crate::drain::{Deadline, Phase};
use crate::limits::{EXTEND_BY, EXTEND_EVERY, STATUS_EVERY};

/// Who the process is for the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A successor that its elder has not named yet.
    Silent,
    /// The main process.
    Main,
    /// It has named its successor.
    Former,
}

/// How the process is, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Connections that are alive.
    pub connections: usize,
    /// Requests in flight.
    pub in_flight: u64,
    /// Until what is left is cut.
    pub left: Option<Duration>,
    /// A successor goes on with the work.
    pub outgoing: bool,
    /// Older processes that still have connections, and how many those are.
    pub elders: usize,
    /// See `elders`.
    pub with_elders: u64,
}

/// What to say, and whether it must not be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) essential: bool,
}

/// What has been said, and what is to be.
#[derive(Debug)]
pub(super) struct Policy {
    standing: Standing,
    /// The successor that is to be named, or has been.
    heir: Option<u32>,
    phase: Phase,
    stopping: bool,
    upgrading: bool,
    /// Why the last upgrade failed.
    remark: Option<String>,
    said: String,
    watchdog: Option<Duration>,
    status_at: Instant,
    extend_at: Instant,
    look_at: Instant,
    ping_at: Instant,
}

impl Policy {
    /// A process that was started by the manager, or by its elder; with the time in
    /// which the manager wants to hear that it lives.
    pub(super) fn new(is_successor: bool, watchdog: Option<Duration>, now: Instant) -> Self {
        Policy {
            standing: if is_successor { Standing::Silent } else { Standing::Main },
            heir: None,
            phase: Phase::Starting,
            stopping: false,
            upgrading: false,
            remark: None,
            said: String::new(),
            watchdog,
            status_at: now,
            extend_at: now,
            look_at: now,
            ping_at: now,
        }
    }

    /// When [`Policy::beat`] has to be called, at the latest.
    pub(super) fn due(&self) -> Deadline {
        if self.standing != Standing::Main || self.phase == Phase::Starting {
            return Deadline::NEVER;
        }
        let draining = self.phase > Phase::Serving;
        let status = Deadline::at(self.status_at);
        let extend = if draining { Deadline::at(self.extend_at) } else { Deadline::NEVER };
        let look = self.watchdog.map_or(Deadline::NEVER, |_| Deadline::at(self.look_at));
        status.nearer(extend).nearer(look)
    }

    /// The process has entered a phase.
    pub(super) fn enters(&mut self, phase: Phase, vitals: Vitals, now: Instant) -> Option<Notice> {
        let before = std::mem::replace(&mut self.phase, phase);
        if self.standing != Standing::Main {
            return None;
        }
        let mut lines = Vec::new();
        if phase == Phase::Serving && before == Phase::Starting {
            lines.push("READY=1".to_owned());
        }
        let closes = phase >= Phase::Closing && !vitals.outgoing && self.heir.is_none();
        if closes && !std::mem::replace(&mut self.stopping, true) {
            lines.push("STOPPING=1".to_owned());
        }
        let essential = !lines.is_empty();
        lines.extend(self.extend(now));
        lines.extend(self.status(vitals, now));
        notice(lines, essential)
    }

    /// A binary is being started that is to succeed this one.
    pub(super) fn upgrade_begins(&mut self, monotonic: Duration, now: Instant) -> Option<Notice> {
        self.remark = None;
        if self.standing != Standing::Main || self.phase != Phase::Serving {
            return None;
        }
        self.upgrading = true;
        let usec = monotonic.as_micros();
        let status = self.fresh_status("upgrading: the successor is starting".to_owned(), now);
        let begins = ["RELOADING=1".to_owned(), format!("MONOTONIC_USEC={usec}")];
        notice(begins.into_iter().chain(status).collect(), true)
    }

    /// This process goes on by itself.
    pub(super) fn upgrade_failed(&mut self, why: &str, now: Instant) -> Option<Notice> {
        self.remark = Some(one_line(why));
        self.heir = None;
        let had_begun = std::mem::replace(&mut self.upgrading, false);
        if self.standing != Standing::Main {
            return None;
        }
        let ready = had_begun.then(|| "READY=1".to_owned());
        let status = self.fresh_status(format!("{}{}", self.phase, self.remark()), now);
        notice(ready.into_iter().chain(status).collect(), true)
    }

    /// The successor is to stay. Says whether it has to be told that it is main.
    pub(super) fn committed(&mut self, successor: u32) -> (bool, Option<Notice>) {
        self.heir = Some(successor);
        if self.standing != Standing::Main {
            return (false, None);
        }
        self.standing = Standing::Former;
        let mut lines = vec![format!("MAINPID={successor}"), "READY=1".to_owned()];
        if self.watchdog.is_some() {
            // The successor's time begins now.
            lines.push("WATCHDOG=1".to_owned());
        }
        (true, notice(lines, true))
    }

    /// The successor belongs to another service.
    pub(super) fn went_elsewhere(&mut self, successor: u32, now: Instant) -> Option<Notice> {
        if self.standing != Standing::Main || !std::mem::replace(&mut self.upgrading, false) {
            return None;
        }
        let status = format!("{}: process {successor} of another service goes on", self.phase);
        let status = self.fresh_status(status, now);
        notice(std::iter::once("READY=1".to_owned()).chain(status).collect(), true)
    }

    /// The elder has named this process, or it is gone. If this one has a successor
    /// that stays, it is named in its turn and has to be told.
    pub(super) fn is_main(&mut self, vitals: Vitals, now: Instant) -> (bool, Option<Notice>) {
        if self.standing != Standing::Silent {
            return (false, None);
        }
        self.standing = Standing::Main;
        if let Some(heir) = self.heir {
            return self.committed(heir);
        }
        let ready = self.phase >= Phase::Serving;
        let mut lines: Vec<_> = ready.then(|| "READY=1".to_owned()).into_iter().collect();
        if self.phase >= Phase::Closing && !vitals.outgoing {
            self.stopping = true;
            lines.push("STOPPING=1".to_owned());
        }
        if self.watchdog.is_some() {
            lines.push("WATCHDOG=1".to_owned());
        }
        lines.extend(self.status(vitals, now));
        (false, notice(lines, true))
    }

    /// Whether it is this process that the manager listens to.
    pub(super) fn speaks(&self) -> bool {
        self.standing == Standing::Main
    }

    /// Time has passed. `turns`: every thread has shown that it is not stuck.
    pub(super) fn beat(&mut self, vitals: Vitals, turns: bool, now: Instant) -> Option<Notice> {
        if self.standing != Standing::Main || self.phase == Phase::Starting {
            return None;
        }
        let mut lines = Vec::new();
        if now >= self.extend_at {
            lines.extend(self.extend(now));
        }
        if let Some(every) = self.watchdog
            && now >= self.look_at
        {
            // Looked at more often than it is said: what was late a moment ago may do now.
            self.look_at = now + every / 4;
            if turns && now >= self.ping_at {
                lines.push("WATCHDOG=1".to_owned());
                self.ping_at = now + every / 2;
            }
        }
        if now >= self.status_at {
            lines.extend(self.status(vitals, now));
        }
        notice(lines, false)
    }

    fn extend(&mut self, now: Instant) -> Option<String> {
        self.extend_at = now + EXTEND_EVERY;
        let draining = self.phase > Phase::Serving && self.phase < Phase::Stopped;
        draining.then(|| format!("EXTEND_TIMEOUT_USEC={}", EXTEND_BY.as_micros()))
    }

    fn status(&mut self, vitals: Vitals, now: Instant) -> Option<String> {
        let status = format!("{}: {}{}", self.phase, counts(vitals), self.remark());
        self.fresh_status(status, now)
    }

    fn fresh_status(&mut self, status: String, now: Instant) -> Option<String> {
        self.status_at = now + STATUS_EVERY;
        if status == self.said {
            return None;
        }
        self.said = status;
        Some(format!("STATUS={}", self.said))
    }

    fn remark(&self) -> String {
        self.remark
            .as_ref()
            .map_or_else(String::new, |why| format!("; the last upgrade failed: {why}"))
    }
}

fn notice(lines: Vec<String>, essential: bool) -> Option<Notice> {
    (!lines.is_empty()).then(|| Notice { text: lines.join("\n"), essential })
}

fn counts(vitals: Vitals) -> String {
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let connections = plural(vitals.connections as u64, "connection");
    let requests = plural(vitals.in_flight, "request");
    let mut text = format!("{connections}, {requests} in flight");
    let is_empty = vitals.connections == 0 && vitals.in_flight == 0;
    if let Some(left) = vitals.left.filter(|_| !is_empty) {
        text += &format!(", the rest is cut in {} s", left.as_secs());
    }
    if vitals.elders > 0 {
        let processes = if vitals.elders == 1 { "process has" } else { "processes have" };
        let theirs = plural(vitals.with_elders, "connection");
        text += &format!("; {} older {processes} {theirs}", vitals.elders);
    }
    text
}

/// A reason may have lines of its own, which would be messages to the manager.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A process with its manager's clock.
    struct Process {
        policy: Policy,
        now: Instant,
        vitals: Vitals,
    }

    impl Process {
        fn new(is_successor: bool, watchdog: Option<Duration>) -> Process {
            let now = Instant::now();
            let vitals = Vitals::default();
            Process { policy: Policy::new(is_successor, watchdog, now), now, vitals }
        }

        fn serving() -> Process {
            let mut process = Process::new(false, None);
            process.enters(Phase::Serving);
            process
        }

        fn enters(&mut self, phase: Phase) -> String {
            said(self.policy.enters(phase, self.vitals, self.now))
        }

        fn beat(&mut self) -> String {
            said(self.policy.beat(self.vitals, true, self.now))
        }

        fn begins(&mut self) -> String {
            said(self.policy.upgrade_begins(Duration::from_micros(7), self.now))
        }

        fn fails(&mut self, why: &str) -> String {
            said(self.policy.upgrade_failed(why, self.now))
        }

        fn commits(&mut self, successor: u32) -> (bool, String) {
            let (tell, notice) = self.policy.committed(successor);
            (tell, said(notice))
        }

        fn is_main(&mut self) -> (bool, String) {
            let (tell, notice) = self.policy.is_main(self.vitals, self.now);
            (tell, said(notice))
        }
    }

    fn said(notice: Option<Notice>) -> String {
        notice.map_or_else(String::new, |notice| notice.text)
    }

    #[test]
    fn a_life_without_upgrades() {
        let mut process = Process::new(false, None);
        assert_eq!(process.policy.due(), Deadline::NEVER);
        let idle = "STATUS=serving: 0 connections, 0 requests in flight";
        assert_eq!(process.enters(Phase::Serving), format!("READY=1\n{idle}"));
        process.now += 3 * SECOND;
        assert_eq!(process.beat(), "");
        process.vitals.connections = 1;
        assert_eq!(process.beat(), "", "not so soon");
        process.now += STATUS_EVERY;
        assert_eq!(process.beat(), "STATUS=serving: 1 connection, 0 requests in flight");
        process.vitals.left = Some(9 * SECOND);
        let stop = process.enters(Phase::Closing);
        let status = "STATUS=closing: 1 connection, 0 requests in flight, the rest is cut in 9 s";
        assert_eq!(stop, format!("STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000\n{status}"));
        assert!(!process.enters(Phase::Draining).contains("STOPPING"), "it is said once");
        process.vitals.connections = 0;
        let stopped = process.enters(Phase::Stopped);
        assert!(!stopped.contains("is cut"), "nothing is left: {stopped}");
        process.enters(Phase::Draining);
        assert_eq!(process.policy.due(), Deadline::at(process.now + EXTEND_EVERY));
        for _ in 0..30 {
            process.now += EXTEND_EVERY;
            assert!(process.beat().contains("EXTEND_TIMEOUT_USEC=5000000"));
        }
    }

    #[test]
    fn older_processes_are_named_while_they_have_connections() {
        let mut process = Process::serving();
        (process.vitals.elders, process.vitals.with_elders) = (1, 1);
        process.now += STATUS_EVERY;
        let one = "STATUS=serving: 0 connections, 0 requests in flight; 1 older process has 1 \
                   connection";
        assert_eq!(process.beat(), one);
        (process.vitals.elders, process.vitals.with_elders) = (2, 30);
        process.now += STATUS_EVERY;
        assert!(process.beat().ends_with("; 2 older processes have 30 connections"));
    }

    #[test]
    fn lame_duck_asks_for_time_and_a_stop_cut_short_in_it_is_told() {
        let mut process = Process::serving();
        let told = process.enters(Phase::LameDuck);
        assert!(told.starts_with("EXTEND_TIMEOUT_USEC="), "{told}");
        assert!(process.enters(Phase::Cutting).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn an_upgrade_that_fails_is_a_reload_with_a_reason() {
        let mut process = Process::serving();
        let begins = process.begins();
        assert!(begins.starts_with("RELOADING=1\nMONOTONIC_USEC=7\nSTATUS=upgrading"), "{begins}");
        let told = process.fails("status 2\nMAINPID=1");
        let remark = "the last upgrade failed: status 2 MAINPID=1";
        assert_eq!(told, format!("READY=1\nSTATUS=serving; {remark}"));
        process.now += STATUS_EVERY;
        assert!(process.beat().ends_with(remark), "it is still to be read");
        assert!(!process.begins().contains(remark));
        process.fails("killed");
        let told = process.fails("no such program");
        assert_eq!(told, "STATUS=serving; the last upgrade failed: no such program");
    }

    #[test]
    fn who_has_named_a_successor_is_silent() {
        let mut process = Process::serving();
        process.begins();
        process.vitals.outgoing = true;
        let drains = process.enters(Phase::Draining);
        assert!(drains.starts_with("EXTEND_TIMEOUT_USEC"), "an elder never stops: {drains}");
        assert_eq!(process.commits(42), (true, "MAINPID=42\nREADY=1".to_owned()));
        process.now += 60 * SECOND;
        assert_eq!(process.policy.due(), Deadline::NEVER);
        assert_eq!(process.commits(42), (false, String::new()));
        let phases = [Phase::Closing, Phase::Cutting, Phase::Finishing];
        let told = phases.map(|phase| process.enters(phase) + &process.beat());
        assert_eq!(told, ["", "", ""]);
    }

    #[test]
    fn who_takes_the_work_back_says_so_and_can_stop() {
        let mut process = Process::serving();
        process.begins();
        process.vitals.outgoing = true;
        process.enters(Phase::Draining);
        process.vitals.outgoing = false;
        assert!(!process.enters(Phase::Serving).contains("READY=1"));
        assert!(process.fails("the successor died").starts_with("READY=1\n"));
        assert!(process.enters(Phase::Closing).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_successor_is_silent_until_it_is_main() {
        let mut process = Process::new(true, Some(2 * SECOND));
        assert_eq!(process.enters(Phase::Serving) + &process.beat() + &process.begins(), "");
        assert_eq!(process.policy.due(), Deadline::NEVER);
        let (tell, told) = process.is_main();
        assert!(!tell && told.starts_with("READY=1\nWATCHDOG=1\nSTATUS=serving"), "{told}");
        assert!(process.policy.due() != Deadline::NEVER);
        assert_eq!(process.is_main(), (false, String::new()));
        assert!(process.enters(Phase::Closing).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_successor_in_another_service_is_not_named() {
        let mut process = Process::serving();
        process.begins();
        process.vitals.outgoing = true;
        process.enters(Phase::Draining);
        let told = said(process.policy.went_elsewhere(44, process.now));
        let status = "STATUS=draining: process 44 of another service goes on";
        assert_eq!(told, format!("READY=1\n{status}"));
        assert_eq!(process.policy.went_elsewhere(44, process.now), None);
        process.now += EXTEND_EVERY;
        assert!(process.beat().contains("EXTEND_TIMEOUT_USEC"), "it is still the main process");
        assert!(!process.enters(Phase::Finishing).contains("STOPPING"));
    }

    #[test]
    fn a_name_is_passed_on_by_who_has_a_successor_before_being_named() {
        let mut process = Process::new(true, None);
        process.enters(Phase::Serving);
        assert_eq!(process.commits(43), (false, String::new()));
        assert_eq!(process.is_main(), (true, "MAINPID=43\nREADY=1".to_owned()));
        assert_eq!(process.enters(Phase::Closing), "");
    }

    #[test]
    fn a_successor_that_stops_before_it_is_named_tells_it_then() {
        let mut process = Process::new(true, None);
        process.enters(Phase::Serving);
        assert_eq!(process.enters(Phase::Closing), "");
        assert!(process.is_main().1.starts_with("READY=1\nSTOPPING=1\n"));
    }

    #[test]
    fn the_watchdog_hears_at_half_of_its_time_and_nothing_while_a_thread_is_stuck() {
        let every = Duration::from_secs(8);
        let mut process = Process::new(false, Some(every));
        process.enters(Phase::Serving);
        let mut pings = Vec::new();
        let start = process.now;
        while process.now < start + 10 * every {
            if process.beat().contains("WATCHDOG=1") {
                pings.push(process.now);
            }
            let due = process.policy.due().instant().unwrap();
            process.now = due.max(process.now) + Duration::from_millis(3);
        }
        assert!(pings.len() >= 18, "{pings:?}");
        let gaps = pings.windows(2).map(|two| two[1] - two[0]);
        for gap in gaps {
            assert!(gap >= every / 2 && gap < every * 2 / 3, "{gap:?}");
        }
        for _ in 0..20 {
            process.now += every / 4;
            let told = said(process.policy.beat(process.vitals, false, process.now));
            assert!(!told.contains("WATCHDOG"), "{told}");
        }
        process.now += every / 4;
        assert!(process.beat().contains("WATCHDOG=1"), "at the next look, when it turns again");
    }
}
