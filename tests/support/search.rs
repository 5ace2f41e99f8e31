//! A search over seeds, some of them side by side, for one that loses something.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many seeds `{name}_RUNS` asks for.
pub(crate) fn runs(name: &str, unless: u64) -> u64 {
    variable(&format!("{name}_RUNS")).unwrap_or(unless)
}

/// Plays seeds until one loses something: so many, or the one that `{name}_SEED` says.
pub(crate) fn search(
    name: &str,
    runs: u64,
    abreast: usize,
    play: impl Fn(u64) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let (first, last) = match variable(&format!("{name}_SEED")) {
        Some(seed) => (seed, seed),
        None => (1, runs),
    };
    let next = AtomicU64::new(first);
    let found = Mutex::new(Ok(()));
    let found_now = || found.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..abreast {
            scope.spawn(|| {
                while found_now().is_ok() {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > last {
                        return;
                    }
                    if let Err(loss) = play(seed) {
                        let replay = format!("seed {seed} ({name}_SEED={seed} replays it)\n{loss}");
                        *found_now() = Err(replay);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
