//! The race search over an upgrade: seeded runs of the real binary with upgrades, kills
//! of either process and stops at random instants, judged on the clients' side.
//!
//! `EBBTIDE_UPGRADE_RACE_SEED` replays one run, `EBBTIDE_UPGRADE_RACE_RUNS` sets how many
//! there are.

mod actor;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::actor::{Fact, Stage};
use crate::race::wait_until;
use crate::support::generations::Generations;
use crate::support::origin::{Origin, standard};
use crate::support::process::Launch;
use crate::support::timeline::Timeline;
use crate::support::{PATIENCE, Rng, ms, pause, within, ws};

/// How many runs go on side by side.
const ABREAST: usize = 2;

/// How many runs a search has unless the environment says otherwise.
const RUNS: u64 = 24;

/// The longest from the first upgrade to the last deed: an upgrade is over by then.
const LONGEST: Duration = ms(700);

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

/// What one seed decides.
#[derive(Debug)]
struct Run {
    seed: u64,
    deed: Deed,
    /// From the first upgrade to each further act.
    delays: Vec<Duration>,
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
        let delays = (0..acts).map(|_| {
            // Around the upgrade's own start, and evenly over what it takes.
            if rng.one_in(3) {
                rng.span(ms(0), LONGEST)
            } else {
                Duration::from_micros(rng.below(LONGEST.as_micros() as u64))
            }
        });
        let mut delays: Vec<_> = delays.collect();
        delays.sort();
        let held = deed != Deed::KillElder && rng.one_in(2);
        Run { seed, deed, delays, held, workers: 1 + rng.below(2) }
    }

    fn origin() -> Origin {
        Origin::scripted(|conn, request| {
            if request.target == "/ws" { ws::echo(conn, request) } else { standard(conn, request) }
        })
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
        let origin = Self::origin();
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
        let mut acted = Vec::new();
        if self.deed == Deed::UpgradeInStop {
            wait_until(begun);
            timeline.note("SIGTERM");
            elder.signal(Signal::TERM);
        } else {
            wait_until(begun);
            timeline.note("SIGUSR2");
            elder.signal(Signal::USR2);
        }
        for delay in &self.delays {
            wait_until(begun + *delay);
            self.act(&line, &elder, &timeline);
            acted.push(Instant::now());
        }
        pause(ms(400));
        let end = self.settle(&line, &elder, acted[0], &timeline);
        origin.release("/hold/1");
        stage.end();
        let mut facts: Vec<Fact> =
            actors.into_iter().flat_map(|actor| actor.join().expect("an actor plays")).collect();
        if self.held {
            facts.push(Fact::of_held(held.try_response(), &stage));
        }
        let mut losses = match end {
            Ok(()) => Vec::new(),
            Err(what) => vec![what],
        };
        losses.extend(self.judged(&facts, acted[0], judge, &line));
        if losses.is_empty() {
            return Ok(());
        }
        Err(format!(
            "seed {} (EBBTIDE_UPGRADE_RACE_SEED={} replays it)\n{}\n{self:?}\n{}{}",
            self.seed,
            self.seed,
            losses.join("\n"),
            timeline.told(),
            line.said()
        ))
    }

    fn act(
        &self,
        line: &Generations,
        elder: &crate::support::generations::Member,
        timeline: &Timeline,
    ) {
        timeline.note(format!("{:?}", self.deed));
        let others = || line.alive().into_iter().filter(|&pid| pid != elder.pid);
        match self.deed {
            Deed::Upgrades if self.seed.is_multiple_of(2) => {
                // Refused or not: a word comes back.
                let output = line.command(&[]);
                timeline.note(format!("the command: {:?}", output.status.code()));
            }
            Deed::Upgrades | Deed::UpgradeInStop => elder.try_signal(Signal::USR2),
            Deed::KillSuccessor | Deed::TermSuccessor => {
                let signal =
                    if self.deed == Deed::KillSuccessor { Signal::KILL } else { Signal::TERM };
                let all: Vec<u32> = others().collect();
                let one = all.get(self.seed as usize % all.len().max(1));
                if let Some(one) = one.and_then(|&pid| line.member(pid, 0)) {
                    timeline.note(format!("{signal:?} to {} of {all:?}", one.pid));
                    one.try_signal(signal);
                    if signal == Signal::KILL {
                        one.wait_gone(PATIENCE);
                    }
                }
            }
            Deed::KillElder => {
                elder.try_signal(Signal::KILL);
                elder.wait_gone(PATIENCE);
            }
            Deed::TermElder => elder.try_signal(Signal::TERM),
        }
    }

    /// What has to be there when it is over.
    fn settle(
        &self,
        line: &Generations,
        elder: &crate::support::generations::Member,
        act: Instant,
        timeline: &Timeline,
    ) -> Result<(), String> {
        match self.deed {
            Deed::UpgradeInStop => Ok(()),
            Deed::TermElder | Deed::TermSuccessor | Deed::KillElder => {
                // Somebody who serves, or nobody at all: then they have stopped.
                let start = Instant::now();
                while start.elapsed() < PATIENCE {
                    let alive = line.alive();
                    let serves = line
                        .try_ask("/status")
                        .is_some_and(|text| text.contains("\"phase\":\"serving\""));
                    if alive.is_empty() || serves || (alive.len() == 1 && self.held) {
                        timeline.note(format!("settled: {alive:?}, serves: {serves}"));
                        return Ok(());
                    }
                    pause(ms(5));
                }
                Err(format!("neither served nor gone: {:?}", line.alive()))
            }
            // Its elder had left already, as it has to: nobody is there any more.
            Deed::KillSuccessor if self.had_left(line, act) => Ok(()),
            Deed::Upgrades | Deed::KillSuccessor => {
                let newest = within(PATIENCE, "somebody who serves", || {
                    let status: serde_json::Value =
                        serde_json::from_str(&line.try_ask("/status")?).ok()?;
                    (status["phase"] == "serving").then_some(status)
                });
                timeline.note(format!("{newest}"));
                if self.deed == Deed::KillSuccessor && self.held && elder.is_gone() {
                    return Err("the elder has gone with a request under way".to_owned());
                }
                Ok(())
            }
        }
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
        act: Instant,
        judge: Judge,
        line: &Generations,
    ) -> Vec<String> {
        let told_is_fine =
            matches!(self.deed, Deed::TermElder | Deed::TermSuccessor | Deed::UpgradeInStop)
                && judge == Judge::Fair;
        let killed = matches!(self.deed, Deed::KillSuccessor | Deed::KillElder);
        let (mut losses, mut taken) = (Vec::new(), 0);
        for fact in facts {
            let Some(end) = &fact.end else { continue };
            let dead = killed && judge == Judge::Fair && fact.began <= act + ms(1);
            let excused = match end.how {
                actor::How::Told | actor::How::Refused => told_is_fine,
                actor::How::Idle => told_is_fine || dead,
                actor::How::Broken => dead,
            };
            // Where nobody has survived, nobody listens.
            let nobody = end.how == actor::How::Refused
                && (self.deed == Deed::KillElder
                    || self.deed == Deed::KillSuccessor && self.had_left(line, act));
            let is_blamed = !nobody || judge != Judge::Fair;
            if !excused && is_blamed {
                losses.push(format!("{}: {:?}: {}", fact.who, end.how, end.what));
            } else if end.how != actor::How::Refused {
                taken += 1;
            }
        }
        let counts = self.deed == Deed::KillSuccessor && !self.had_left(line, act);
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

/// How many connections were handed over and acknowledged, as whoever is left says.
fn moved(line: &Generations) -> u64 {
    let text = line.try_ask("/metrics").unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("ebbtide_moved_connections_total"));
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

/// Plays seeds until one loses something.
fn search(deed: Option<Deed>, judge: Judge) -> Result<(), String> {
    let variable =
        |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, last) = match variable("EBBTIDE_UPGRADE_RACE_SEED") {
        Some(seed) => (seed, seed),
        None => (1, variable("EBBTIDE_UPGRADE_RACE_RUNS").unwrap_or(RUNS)),
    };
    let next = AtomicU64::new(first);
    let found = Mutex::new(None);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..ABREAST {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > last {
                        return;
                    }
                    if let Err(loss) = Run::of(seed, deed).play(judge) {
                        over.store(true, Ordering::SeqCst);
                        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
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
