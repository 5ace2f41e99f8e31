//! The race search over an upgrade: seeded runs of the real binary with upgrades, kills
//! of either process and stops at random instants, judged on the clients' side.
//!
//! `TESTS_UPGRADE_RACE_SEED` replays one run, `TESTS_UPGRADE_RACE_RUNS` sets how many
//! there are.

mod actor;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::actor::{Fact, How, Stage};
use crate::race::wait_until;
use crate::support::generations::{Generations, Member};
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::timeline::Timeline;
use crate::support::{PATIENCE, Rng, kernel, ms, pause, search};
use crate::upgrade::app;

/// How many runs go on side by side.
const ABREAST: usize = 2;

/// How many runs a search has unless the environment says otherwise.
const RUNS: u64 = 24;

/// The longest from the first upgrade to the last deed: an upgrade is over by then.
const LONGEST: Duration = ms(700);

/// The longest from a step to a deed: the next step is over by then.
const BETWEEN: Duration = ms(30);

/// The generation of whoever has taken over from nobody.
const FIRST: u64 = 1;

/// What happens besides one upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// More upgrades, by signal and by command.
    Upgrades,
    /// SIGKILL to whoever is there besides the elder: the successor, or its launcher.
    KillSuccessor,
    /// SIGKILL to the elder.
    KillElder,
    /// SIGTERM to the elder.
    TermElder,
    /// SIGTERM to the successor.
    TermSuccessor,
    /// SIGTERM to the elder, and then the upgrade.
    UpgradeInStop,
}

const DEEDS: [Deed; 8] = [
    Deed::Upgrades,
    Deed::Upgrades,
    Deed::KillSuccessor,
    Deed::KillSuccessor,
    Deed::KillElder,
    Deed::TermElder,
    Deed::TermSuccessor,
    Deed::UpgradeInStop,
];

/// The steps of the first upgrade, as the elder says them.
const STEPS: [&str; 3] = ["upgrade_started", "upgrade_ready", "upgrade_serving"];

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// So long after one of the steps.
    Behind(usize, Duration),
    /// So long after the signal.
    After(Duration),
}

impl Moment {
    /// Mostly where the steps are, however long each takes on this machine.
    fn of(rng: &mut Rng, deed: Deed) -> Moment {
        if deed == Deed::UpgradeInStop || rng.one_in(4) {
            return Moment::After(Duration::from_micros(rng.below(LONGEST.as_micros() as u64)));
        }
        let step = rng.below(STEPS.len() as u64) as usize;
        Moment::Behind(step, rng.span(Duration::from_micros(10), BETWEEN))
    }

    fn wait(self, begun: Instant, line: &Generations) {
        match self {
            Moment::After(delay) => wait_until(begun + delay),
            Moment::Behind(step, delay) => wait_until(line.wait_event(STEPS[step]).at + delay),
        }
    }
}

/// What was done last, as the clients' ends are judged by it.
struct Acted {
    /// When the first deed was done.
    at: Instant,
    /// The clients of an elder that was killed: their ports.
    its: BTreeSet<u16>,
}

/// What one seed decides.
#[derive(Debug)]
struct Run {
    seed: u64,
    deed: Deed,
    moments: Vec<Moment>,
    /// Whether a request that ends only with the run keeps the elder there.
    held: bool,
    workers: u64,
}

/// Whether what a kill may take is taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    Fair,
    /// Nothing may be lost, whatever happens: to see that kills are seen.
    Strict,
}

impl Run {
    fn of(seed: u64, deed: Option<Deed>) -> Run {
        let mut rng = Rng::new(seed);
        let deed = deed.unwrap_or(DEEDS[rng.below(DEEDS.len() as u64) as usize]);
        let acts = if deed == Deed::Upgrades { 1 + rng.below(3) } else { 1 };
        let mut moments: Vec<_> = (0..acts).map(|_| Moment::of(&mut rng, deed)).collect();
        moments.sort();
        let held = deed != Deed::KillElder && rng.one_in(2);
        Run { seed, deed, moments, held, workers: 1 + rng.below(2) }
    }

    fn launch(&self, origin: &Origin) -> Launch {
        Launch::before(origin)
            .arg("--access-log")
            .arg("off")
            .arg("--workers")
            .arg(self.workers.to_string())
            .set("upgrade.timeout", "10s")
            .stop("idle_grace", "3s")
            .stop("stream_close_after", "0s")
            .stop("spread", "0s")
            .stop("drain_timeout", "30s")
    }

    /// Plays the run; what was lost in it.
    fn play(&self, judge: Judge) -> Result<(), String> {
        let timeline = Timeline::new();
        let origin = app();
        let line = Generations::start(self.launch(&origin));
        let stage = Arc::new(Stage::new(line.place(), timeline.clone()));
        let mut held = line.client();
        if self.held {
            held.get("/hold/1");
            origin.wait_started("/hold/1");
        }
        let actors = actor::start(&stage, self.seed);
        stage.wait_busy();
        let elder = line.newest();
        let begun = Instant::now() + ms(2);
        wait_until(begun);
        let first = if self.deed == Deed::UpgradeInStop { Signal::TERM } else { Signal::USR2 };
        timeline.note(format!("{first:?}"));
        elder.signal(first);
        let mut acted: Option<Acted> = None;
        for moment in &self.moments {
            moment.wait(begun, &line);
            let its = self.act(&line, &elder, &timeline);
            acted.get_or_insert_with(|| Acted { at: Instant::now(), its });
        }
        let acted = acted.expect("each run does something");
        let end = self.settle(&line, &elder, &acted, &timeline);
        origin.release("/hold/1");
        // Each of them uses its connection once more.
        stage.end();
        let mut facts: Vec<Fact> =
            actors.into_iter().flat_map(|actor| actor.join().expect("an actor plays")).collect();
        if self.held {
            facts.push(Fact::of_held(held.try_response(), &stage));
        }
        let (serves, mut losses) = match end {
            Ok(serves) => (serves, Vec::new()),
            Err(what) => (true, vec![what]),
        };
        losses.extend(self.judged(&facts, &acted, judge, serves, &line));
        if losses.is_empty() {
            return Ok(());
        }
        Err(format!("{}\n{self:?}\n{}{}", losses.join("\n"), timeline.told(), line.said()))
    }

    /// Does it; whom a killed elder had, if it was killed.
    fn act(&self, line: &Generations, elder: &Member, timeline: &Timeline) -> BTreeSet<u16> {
        timeline.note(format!("{:?}", self.deed));
        match self.deed {
            Deed::Upgrades if self.seed.is_multiple_of(2) => {
                // Refused or not: a word comes back.
                let output = line.command(&[]);
                timeline.note(format!("the command: {:?}", output.status.code()));
            }
            Deed::Upgrades | Deed::UpgradeInStop => elder.try_signal(Signal::USR2),
            Deed::KillSuccessor => self.signal_another(Signal::KILL, line, elder, timeline),
            Deed::TermSuccessor => self.signal_another(Signal::TERM, line, elder, timeline),
            Deed::KillElder if !elder.is_gone() => {
                elder.freeze();
                let its = kernel::clients_of(elder.pid, &line.place());
                elder.try_signal(Signal::KILL);
                elder.wait_gone(PATIENCE);
                timeline.note(format!("it had {its:?}"));
                return its;
            }
            Deed::KillElder => {}
            Deed::TermElder => elder.try_signal(Signal::TERM),
        }
        BTreeSet::new()
    }

    /// To the successor, or its launcher.
    fn signal_another(
        &self,
        signal: Signal,
        line: &Generations,
        elder: &Member,
        timeline: &Timeline,
    ) {
        let all: Vec<u32> = line.alive().into_iter().filter(|&pid| pid != elder.pid).collect();
        let one = all.get(self.seed as usize % all.len().max(1));
        if let Some(one) = one.and_then(|&pid| line.member(pid, 0)) {
            timeline.note(format!("{signal:?} to {} of {all:?}", one.pid));
            one.try_signal(signal);
            if signal == Signal::KILL {
                one.wait_gone(PATIENCE);
            }
        }
    }

    /// Waits for what has to be there when it is over; whether somebody serves.
    fn settle(
        &self,
        line: &Generations,
        elder: &Member,
        acted: &Acted,
        timeline: &Timeline,
    ) -> Result<bool, String> {
        // Its elder had left already, as it has to: nobody is there any more.
        let nobody = || self.deed == Deed::KillSuccessor && self.had_left(line, acted.at);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let alive = line.alive();
            let served = !line.events("upgrade_serving").is_empty();
            let who = serving(line, elder);
            let left = alive.is_empty() || self.held && alive == BTreeSet::from([elder.pid]);
            let settled = match self.deed {
                Deed::UpgradeInStop => true,
                Deed::Upgrades | Deed::KillSuccessor => who.is_some() || nobody(),
                // Before the successor serves, all of them stop; after that, it is for the
                // elder alone.
                Deed::TermElder if served => who.is_some_and(|pid| pid != elder.pid),
                Deed::TermElder => left && who.is_none(),
                Deed::KillElder if served => who.is_some(),
                Deed::KillElder => who.is_some() || alive.is_empty() || is_alone(line),
                Deed::TermSuccessor if served => who.is_some() || left,
                Deed::TermSuccessor => who == Some(elder.pid),
            };
            if settled {
                timeline.note(format!("settled: {alive:?}, {who:?} serves, {served}"));
                if self.deed == Deed::KillSuccessor && self.held && elder.is_gone() {
                    return Err("the elder has gone with a request under way".to_owned());
                }
                return Ok(who.is_some());
            }
            pause(ms(5));
        }
        Err(format!("it has not come to what it has to: {:?}", line.alive()))
    }

    /// Whether the elder had nothing left before the successor was gone, or a moment later.
    fn had_left(&self, line: &Generations, act: Instant) -> bool {
        !self.held
            && line
                .events("phase")
                .iter()
                .any(|event| event.fields["to_phase"] == "finishing" && event.at <= act + ms(20))
    }

    fn judged(
        &self,
        facts: &[Fact],
        acted: &Acted,
        judge: Judge,
        serves: bool,
        line: &Generations,
    ) -> Vec<String> {
        let told_is_fine =
            matches!(self.deed, Deed::TermElder | Deed::TermSuccessor | Deed::UpgradeInStop)
                && judge == Judge::Fair;
        let had_left = self.deed == Deed::KillSuccessor && self.had_left(line, acted.at);
        // Where nobody has survived, nobody listens.
        let nobody = had_left || self.deed == Deed::KillElder && !serves;
        let (mut losses, mut taken) = (Vec::new(), 0);
        for fact in facts {
            let Some(end) = &fact.end else { continue };
            let before = fact.began <= acted.at + ms(1);
            let dead = judge == Judge::Fair
                && before
                && match self.deed {
                    Deed::KillSuccessor => true,
                    // Whoever was not its any more has to live on.
                    Deed::KillElder => !serves || acted.its.contains(&fact.port),
                    _ => false,
                };
            let excused = match end.how {
                How::Refused if nobody => judge == Judge::Fair,
                How::Told | How::Refused => told_is_fine,
                How::Idle => told_is_fine || dead,
                How::Broken => dead,
            };
            if !excused {
                losses.push(format!("{}: {:?}: {}", fact.who, end.how, end.what));
            } else if end.how != How::Refused {
                taken += 1;
            }
        }
        let counts = self.deed == Deed::KillSuccessor && !had_left;
        if counts && judge == Judge::Fair && taken > 0 {
            // Those that were its own, and one of each who had just come.
            let moved = moved(line);
            if taken > moved + actor::KNOCKERS {
                losses.push(format!("{taken} have ended, and {moved} had moved"));
            }
        }
        losses
    }
}

/// Who says that it serves, in place of the elder or as the elder.
fn serving(line: &Generations, elder: &Member) -> Option<u32> {
    let status = line.try_status()?;
    let pid = u32::try_from(status["pid"].as_u64()?).ok()?;
    let is_one_of_us = pid == elder.pid || status["generation"] != FIRST;
    (status["phase"] == "serving" && is_one_of_us).then_some(pid)
}

/// Whether somebody has found nobody to take over from, and serves as the first one, at
/// another port.
fn is_alone(line: &Generations) -> bool {
    let is_first = |status: serde_json::Value| status["generation"] == FIRST;
    line.events("ready").len() > 1 && line.try_status().is_some_and(is_first)
}

/// How many connections were handed over and acknowledged, as whoever is left says.
fn moved(line: &Generations) -> u64 {
    let text = line.ask("/metrics").unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("ebbtide_moved_connections_total"));
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

fn search(deed: Option<Deed>, judge: Judge) -> Result<(), String> {
    let runs = search::runs("TESTS_UPGRADE_RACE", RUNS);
    let play = |seed| Run::of(seed, deed).play(judge);
    search::search("TESTS_UPGRADE_RACE", runs, ABREAST, play)
}

#[test]
fn nothing_is_lost_at_any_instant_of_an_upgrade() {
    if let Err(loss) = search(None, Judge::Fair) {
        panic!("{loss}");
    }
}

/// The search is worth something only if it sees what a kill takes.
#[test]
fn the_search_sees_what_a_kill_takes() {
    for deed in [Deed::KillSuccessor, Deed::KillElder] {
        let found = search(Some(deed), Judge::Strict);
        assert!(found.is_err(), "{deed:?} took nothing");
    }
}

/// And what a stop ends.
#[test]
fn the_search_sees_what_a_stop_ends() {
    assert!(search(Some(Deed::UpgradeInStop), Judge::Strict).is_err(), "nothing has ended");
}
