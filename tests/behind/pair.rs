//! Two ebbtides before the same app server, each on an address that stays its own
//! through its restarts.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::ground::{Ground, Role};
use crate::support::process::{Launch, Proxy};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The first.
    A,
    /// The second.
    B,
}

impl Which {
    /// Both, in the order of a rolling restart.
    pub(crate) const BOTH: [Which; 2] = [Which::A, Which::B];

    const fn role(self) -> Role {
        match self {
            Which::A => Role::A,
            Which::B => Role::B,
        }
    }
}

/// Both of them.
#[derive(Debug)]
pub(crate) struct Pair {
    ground: Ground,
    running: [Proxy; 2],
    /// The drain reports of those that have ended.
    reports: Vec<(Which, Value)>,
}

impl Pair {
    /// Starts both.
    pub(crate) fn start(ground: &Ground) -> Pair {
        let running = Which::BOTH.map(|which| launch(ground, which).start());
        Pair { ground: *ground, running, reports: Vec::new() }
    }

    /// Stops one: it has to end by itself, with nothing cut. What is wrong with that.
    pub(crate) fn stop(&mut self, which: Which) -> Vec<String> {
        let proxy = &self.running[which as usize];
        proxy.terminate();
        let exit = proxy.wait_exit();
        let report = proxy.drain_report();
        let mut wrongs = Vec::new();
        if exit.code() != 0 || report["cut_total"] != 0 {
            wrongs.push(format!("{which:?} ended with {}: {report}", exit.code()));
        }
        self.reports.push((which, report));
        wrongs
    }

    /// What those of one kind that have ended counted together, by its place in the report.
    pub(crate) fn counted(&self, which: Which, place: &str) -> u64 {
        let ours = self.reports.iter().filter(|(whose, _)| *whose == which);
        let counts = ours.map(|(_, report)| report.pointer(place).and_then(Value::as_u64));
        counts.map(|count| count.expect("a count")).sum()
    }

    /// Starts one that has ended, at the same place.
    pub(crate) fn start_again(&mut self, which: Which) {
        self.running[which as usize] = launch(&self.ground, which).start();
    }

    /// Ends one as no operator should.
    pub(crate) fn kill(&self, which: Which) {
        let proxy = &self.running[which as usize];
        proxy.signal(Signal::KILL);
        proxy.wait_gone();
    }

    /// How many requests one has answered since it was started.
    pub(crate) fn answered(&self, which: Which) -> usize {
        self.running[which as usize].access_log().len()
    }

    /// Whom those that run take for their clients, and the Host that was asked for.
    pub(crate) fn clients(&self) -> BTreeSet<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let lines = self.running.iter().flat_map(Proxy::access_log);
        lines.map(|line| (text(&line["remote_ip"]), text(&line["host"]))).collect()
    }
}

/// As the recommended files ask for it; all else is as it comes.
fn launch(ground: &Ground, which: Which) -> Launch {
    Launch::before_addr(&ground.place(Role::App).to_string())
        .listen(&ground.place(which.role()).to_string())
        .arg("--admin")
        .arg(ground.admin(which.role()).to_string())
        .set("trusted_proxies", "127.0.0.1")
}
