//! CPU time per request, beside other proxies on the same machine.
//!
//! The same proxy differs by 15 to 20 % from one second to the next, so figures
//! of different runs cannot be compared. All proxies run at once and are loaded
//! in turn, a second each, in random order; ratios are formed within a round.
//! Ten rounds show a factor, not a per cent; fifty are good for about 5 %.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::load::{Load, Until};
use crate::proxy::{Launch, Process};
use crate::{Error, Verdict, backend, host, peers};

const CONNECTIONS: usize = 8;
const WINDOW: Duration = Duration::from_secs(1);
const WARM_UP: u64 = 2_000;

/// One proxy under comparison.
struct Candidate {
    name: &'static str,
    process: Process,
    load: Load,
    /// Microseconds per request, one figure for each round.
    figures: Vec<f64>,
}

impl Candidate {
    fn new(name: &'static str, process: Process, addr: SocketAddr) -> Result<Self, Error> {
        let mut load = Load::connect(addr, CONNECTIONS)?;
        load.run(Until::Requests(WARM_UP))?;
        Ok(Self { name, process, load, figures: Vec::new() })
    }

    fn measure_window(&mut self) -> Result<(), Error> {
        let before = host::cpu_time(self.process.id())?;
        let requests = self.load.run(Until::Elapsed(WINDOW))?;
        let spent = host::cpu_time(self.process.id())? - before;
        self.figures.push(spent.as_secs_f64() * 1e6 / requests as f64);
        Ok(())
    }
}

/// Prints microseconds per request, and ratios to the peers that are installed.
pub(crate) fn measure(binary: &Path, rounds: usize) -> Result<Verdict, Error> {
    if !host::has_two_cores() {
        return Err("needs cores 0 and 1, one for the proxy and one for its load".into());
    }
    host::pin_to(host::LOAD_CORE)?;
    println!("CPU time per request, {rounds} rounds of {WINDOW:?}, {CONNECTIONS} connections");
    let upstream = backend::start()?;
    let (process, addr) = Launch::plain(binary, upstream).start()?;
    let mut candidates = vec![Candidate::new("ebbtide", process, addr)?];
    for peer in peers::start(upstream)? {
        candidates.push(Candidate::new(peer.name, peer.process, peer.addr)?);
    }
    for _ in 0..rounds {
        for index in shuffled(candidates.len()) {
            candidates[index].measure_window()?;
        }
    }
    report(&candidates);
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

fn report(candidates: &[Candidate]) {
    println!("  {:<20} {:>8} {:>8} {:>8}", "", "quartile", "median", "quartile");
    for candidate in candidates {
        print_line(&format!("{} (us)", candidate.name), &candidate.figures);
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
    println!("  {name:<20} {low:>8.2} {median:>8.2} {high:>8.2}");
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
