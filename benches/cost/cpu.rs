//! CPU time per request, beside other proxies on the same machine.
//!
//! The same proxy differs by 15 to 20 % from one second to the next, so figures
//! of different runs cannot be compared. All proxies run at once and are loaded
//! in turn, a second each, in random order; ratios are formed within a round.
//! Ten rounds show a factor, not a per cent; fifty are good for about 5 %.
//!
//! Clear-text HTTP/1.1 is asked by the bench's own clients for a second, everything
//! else by h2load, for a number of requests that takes about as long; the handshakes
//! of its few connections are then in the figure, some thousandths of it.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

use crate::h2load::Work;
use crate::identity::Identity;
use crate::load::{Load, Until};
use crate::proxy::{Doors, Launch, Process};
use crate::{Error, Verdict, backend, h2load, host, peers};

const CONNECTIONS: usize = 8;
const WINDOW: Duration = Duration::from_secs(1);
const WARM_UP: u64 = 2_000;

/// One proxy under comparison.
struct Candidate {
    name: &'static str,
    process: Process,
    doors: Doors,
    /// Its own connections, for the work that is not h2load's.
    load: Option<Load>,
    /// Microseconds per request, one figure for each round.
    figures: Vec<f64>,
}

impl Candidate {
    fn new(name: &'static str, process: Process, doors: Doors) -> Self {
        Self { name, process, doors, load: None, figures: Vec::new() }
    }

    /// Forgets other work, and does some of this unmeasured.
    fn warm_up(&mut self, work: Work) -> Result<(), Error> {
        self.figures.clear();
        self.load = None;
        if work == Work::H1 {
            let mut load = Load::connect(self.doors.h1, CONNECTIONS)?;
            load.run(Until::Requests(WARM_UP))?;
            self.load = Some(load);
            return Ok(());
        }
        h2load::run(work, &self.doors, work.requests().min(WARM_UP))
    }

    fn measure_window(&mut self, work: Work) -> Result<(), Error> {
        let before = host::cpu_time(self.process.id())?;
        let requests = match &mut self.load {
            Some(load) => load.run(Until::Elapsed(WINDOW))?,
            None => {
                h2load::run(work, &self.doors, work.requests())?;
                work.requests()
            }
        };
        let spent = host::cpu_time(self.process.id())? - before;
        self.figures.push(spent.as_secs_f64() * 1e6 / requests as f64);
        Ok(())
    }
}

/// Prints microseconds per request for each kind of work, and ratios to the peers that
/// are installed.
pub(crate) fn measure(binary: &Path, rounds: usize, works: &[Work]) -> Result<Verdict, Error> {
    if !host::has_two_cores() {
        return Err("needs cores 0 and 1, one for the proxy and one for its load".into());
    }
    host::pin_to(host::LOAD_CORE)?;
    let upstream = backend::start()?;
    let identity = Identity::new()?;
    let launch = Launch { identity: Some(&identity), ..Launch::plain(binary, upstream) };
    let (process, doors) = launch.start()?;
    let mut candidates = vec![Candidate::new("ebbtide", process, doors)];
    for peer in peers::start(upstream, &identity)? {
        candidates.push(Candidate::new(peer.name, peer.process, peer.doors));
    }
    for &work in works {
        println!("CPU time per request, {rounds} rounds: {}", work.title());
        for candidate in &mut candidates {
            candidate.warm_up(work)?;
        }
        for _ in 0..rounds {
            for index in shuffled(candidates.len()) {
                candidates[index].measure_window(work)?;
            }
        }
        report(&candidates, work);
    }
    Ok(Verdict::Kept)
}

/// The bench against itself: what it can ask for, and answer, without a proxy.
pub(crate) fn measure_direct() -> Result<Verdict, Error> {
    host::pin_to(host::LOAD_CORE)?;
    let mut load = Load::connect(backend::start()?, CONNECTIONS)?;
    load.run(Until::Requests(WARM_UP))?;
    let requests = load.run(Until::Elapsed(WINDOW))?;
    println!("load generator against backend, no proxy, one core for both");
    println!("  {requests} requests in {WINDOW:?}, every response checked");
    Ok(Verdict::Kept)
}

fn report(candidates: &[Candidate], work: Work) {
    println!("  {:<22} {:>8} {:>8} {:>8}", "", "quartile", "median", "quartile");
    for candidate in candidates {
        print_line(&format!("{} (us)", candidate.name), &candidate.figures);
        if work == Work::Handshake {
            let rate: Vec<_> = candidate.figures.iter().map(|figure| 1e6 / figure).collect();
            print_line(&format!("{} (per CPU s)", candidate.name), &rate);
        }
    }
    let Some((own, others)) = candidates.split_first() else {
        return;
    };
    for other in others {
        let pairs = own.figures.iter().zip(&other.figures);
        let ratios: Vec<_> = pairs.map(|(own, other)| own / other).collect();
        print_line(&format!("ebbtide / {}", other.name), &ratios);
    }
}

fn print_line(name: &str, figures: &[f64]) {
    let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(figures, part));
    println!("  {name:<22} {low:>8.2} {median:>8.2} {high:>8.2}");
}

/// Interpolated between neighbours; not a number without figures.
fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().saturating_sub(1) as f64;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    at(place.floor()) + (at(place.ceil()) - at(place.floor())) * place.fract()
}

/// The numbers below `count` in random order, so that no proxy always follows
/// the same one.
fn shuffled(count: usize) -> Vec<usize> {
    let random = RandomState::new();
    let mut order: Vec<_> = (0..count).collect();
    order.sort_by_key(|index| random.hash_one(index));
    order
}
