//! The race search: seeded runs of the real binary with the signal at random instants
//! around the moments that matter, judged on the clients' side by promises 1 to 4.
//!
//! `TESTS_RACE_SEED` replays one run, `TESTS_RACE_RUNS` sets how many there are.

mod actor;
mod h2;
mod judge;
mod tls;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::actor::{Part, Stage};
use self::judge::Fact;
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::timeline::Timeline;
use crate::support::{Rng, ms, pause, search};

/// How many proxies run side by side.
const ABREAST: usize = 4;

/// How many runs a search has unless the environment says otherwise.
const RUNS: u64 = 150;

/// What a client has to look at a GOAWAY.
const GOAWAY_GRACE: Duration = ms(300);

/// What one seed decides.
#[derive(Debug)]
struct Run {
    idle_grace: Duration,
    first_request_grace: Duration,
    /// Whether the process stands still while everything happens.
    frozen: bool,
    /// How long after the signal it goes on.
    thaw: Duration,
    parts: Vec<Part>,
}

impl Run {
    fn of(seed: u64, broken: Option<&str>) -> Run {
        let mut rng = Rng::new(seed);
        let frozen = rng.one_in(3);
        let idle_grace = [ms(0), ms(0), ms(30), ms(100)][rng.below(4) as usize];
        let parts = (0..6).map(|_| Part::of(&mut rng, idle_grace, broken)).collect();
        Run {
            idle_grace,
            first_request_grace: ms(400),
            frozen,
            thaw: rng.span(ms(0), ms(3)),
            parts,
        }
    }

    fn launch(&self, origin: &Origin, sabotage: Option<&str>) -> Launch {
        let span = |length: Duration| format!("{}ms", length.as_millis());
        let launch = Launch::before(origin)
            .tls()
            .arg("--access-log")
            .arg("off")
            .arg("--workers")
            .arg("2")
            .stop("idle_grace", &span(self.idle_grace))
            .stop("first_request_grace", &span(self.first_request_grace))
            .stop("goaway_grace", &span(GOAWAY_GRACE))
            .stop("linger", "10s")
            .stop("drain_timeout", "60s");
        match sabotage {
            Some(rule) => launch.env("EBBTIDE_SABOTAGE", rule),
            None => launch,
        }
    }

    /// Plays the run; what was lost in it.
    fn play(&self, sabotage: Option<&str>) -> Result<(), String> {
        let timeline = Timeline::new();
        let origin = Arc::new(Origin::new());
        let proxy = self.launch(&origin, sabotage).start();
        let place = proxy.place();
        let gate = Arc::new(Gate::new(self.parts.len()));
        let actors: Vec<_> = self
            .parts
            .iter()
            .enumerate()
            .map(|(number, part)| {
                let stage = Stage {
                    number,
                    place: place.clone(),
                    tls: proxy.tls_place(),
                    origin: Arc::clone(&origin),
                    gate: Arc::clone(&gate),
                    timeline: timeline.clone(),
                };
                let part = part.clone();
                std::thread::spawn(move || part.play(&stage))
            })
            .collect();
        gate.wait_all_here();
        let up_to_the_signal = || {
            let planned = Instant::now() + ms(6);
            gate.open(planned);
            wait_until(planned);
        };
        let signal_at = if self.frozen {
            proxy.terminate_frozen(self.thaw, up_to_the_signal)
        } else {
            up_to_the_signal();
            proxy.terminate()
        };
        timeline.note_at(signal_at, "SIGTERM");
        let draining = proxy.wait_phase("draining");
        timeline.note_at(draining.at, "draining");
        pause(ms(20));
        gate.tell_draining();
        let mut facts: Vec<Fact> =
            actors.into_iter().flat_map(|actor| actor.join().expect("an actor plays")).collect();
        let exit = proxy.wait_exit();
        timeline.note_at(exit.at, "exit");
        facts.retain(|fact| !fact.is_somebody_elses(exit.at));
        let losses = self.judged(&facts, signal_at, &proxy);
        if losses.is_empty() { Ok(()) } else { Err(self.told(&losses, &timeline, &proxy)) }
    }

    fn judged(&self, facts: &[Fact], signal_at: Instant, proxy: &Proxy) -> Vec<String> {
        let mut losses: Vec<String> =
            facts.iter().filter_map(|fact| fact.loss(self, signal_at)).collect();
        let code = proxy.wait_exit().code();
        if code != 0 {
            losses.push(format!("exit status {code}"));
        }
        let raced = proxy.reported("raced");
        let sure = facts.iter().filter(|fact| fact.raced()).count() as u64;
        let perhaps = facts.iter().filter(|fact| fact.perhaps_raced()).count() as u64;
        if raced < sure || raced > sure + perhaps {
            losses.push(format!("{raced} raced are reported, the clients saw {sure} (+{perhaps})"));
        }
        losses
    }

    fn told(&self, losses: &[String], timeline: &Timeline, proxy: &Proxy) -> String {
        format!("{}\n{self:#?}\n{}{}", losses.join("\n"), timeline.told(), proxy.said())
    }
}

/// Where the actors of a run wait for each other and for the signal.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    news: Condvar,
}

#[derive(Debug)]
struct GateState {
    missing: usize,
    signal_at: Option<Instant>,
    draining: bool,
}

impl Gate {
    fn new(actors: usize) -> Gate {
        let state = GateState { missing: actors, signal_at: None, draining: false };
        Gate { state: Mutex::new(state), news: Condvar::new() }
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_all();
    }

    fn wait<T>(&self, mut look: impl FnMut(&GateState) -> Option<T>) -> Option<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = crate::support::PATIENCE;
        let waited = self.news.wait_timeout_while(state, bound, |state| look(state).is_none());
        look(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// An actor is ready; the planned moment of the signal.
    pub(super) fn here(&self) -> Instant {
        self.change(|state| state.missing -= 1);
        self.wait(|state| state.signal_at).expect("the gate opens")
    }

    /// Waits until the process has said that it drains.
    pub(super) fn wait_draining(&self) {
        self.wait(|state| state.draining.then_some(())).expect("the process drains");
    }

    fn wait_all_here(&self) {
        self.wait(|state| (state.missing == 0).then_some(())).expect("all actors are ready");
    }

    fn open(&self, signal_at: Instant) {
        self.change(|state| state.signal_at = Some(signal_at));
    }

    fn tell_draining(&self) {
        self.change(|state| state.draining = true);
    }
}

/// Waits for a moment more exactly than a sleep does.
pub(crate) fn wait_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if let Some(most) = left.checked_sub(Duration::from_micros(300)) {
        pause(most);
    }
    while Instant::now() < moment {
        std::thread::yield_now();
    }
}

/// Plays seeds until one loses something. A broken rule has to be found, if with some
/// patience: the rarest shows in about one run of a hundred.
fn search(sabotage: Option<&'static str>) -> Result<(), String> {
    let runs = if sabotage.is_some() { 10 * RUNS } else { search::runs("TESTS_RACE", RUNS) };
    let play = |seed| Run::of(seed, sabotage).play(sabotage);
    search::search("TESTS_RACE", runs, ABREAST, play)
}

#[test]
fn nothing_is_lost_at_any_instant_of_the_signal() {
    if let Err(loss) = search(None) {
        panic!("{loss}");
    }
}

/// The search is worth something only if it finds the loss when a rule is broken.
fn notices(rule: &'static str) {
    let found = search(Some(rule));
    assert!(found.is_err(), "the search did not notice that {rule} is broken");
    eprintln!("{rule}: {}", found.unwrap_err().lines().take(3).collect::<Vec<_>>().join("; "));
}

#[test]
fn the_search_notices_when_goaway_grace_is_broken() {
    notices("goaway-grace");
}

#[test]
fn the_search_notices_when_last_look_is_broken() {
    notices("last-look");
}

#[test]
fn the_search_notices_when_first_request_grace_is_broken() {
    notices("first-request-grace");
}

#[test]
fn the_search_notices_when_empty_accept_queue_is_broken() {
    notices("empty-accept-queue");
}

#[test]
fn the_search_notices_when_linger_is_broken() {
    notices("linger");
}

#[test]
fn the_search_notices_when_close_announced_is_broken() {
    notices("close-announced");
}

#[test]
fn the_search_notices_when_pipelined_rest_is_broken() {
    notices("pipelined-rest");
}

#[test]
fn the_search_notices_when_serve_reading_is_broken() {
    notices("serve-reading");
}
