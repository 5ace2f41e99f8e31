//! What connections that are held open take of a proxy's memory.
//!
//! Anonymous memory, so the kernel's socket buffers are not in it. The proxy has
//! answered a few requests before, so that what it allocates once is not divided among
//! the connections.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use super::load::{Load, Until};
use super::proxy::{Doors, Process};
use super::{Error, host};

const WARM_UP: u64 = 1_000;

/// Memory has settled when it has moved by no more than [`SETTLED_WITHIN`] over
/// so many looks: two seconds, longer than any timer that gives memory back.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const SETTLED_WITHIN: u64 = 32 * 1024;
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// What each of the connections that `connect` makes takes of a proxy's memory.
pub(crate) fn growth<T>(
    process: &Process,
    doors: &Doors,
    connections: usize,
    connect: impl FnOnce() -> Result<T, Error>,
) -> Result<u64, Error> {
    Load::connect(doors.h1, 8)?.run(Until::Requests(WARM_UP))?;
    let before = settled(process.id())?;
    let load = connect()?;
    let after = settled(process.id())?;
    // A connection that the proxy has closed would be a cheap one.
    if host::descriptors(process.id())? < connections {
        return Err("the proxy closed idle connections".into());
    }
    drop(load);
    Ok(after.saturating_sub(before) / connections as u64)
}

/// The memory of a process once it no longer changes.
pub(crate) fn settled(pid: u32) -> Result<u64, Error> {
    let started = Instant::now();
    let mut looks = VecDeque::new();
    while started.elapsed() < SETTLE_LIMIT {
        let now = host::memory(pid)?;
        looks.push_back(now);
        if looks.len() > LOOKS {
            looks.pop_front();
            let spread =
                looks.iter().max().zip(looks.iter().min()).map(|(most, least)| most - least);
            if spread.is_some_and(|spread| spread <= SETTLED_WITHIN) {
                return Ok(now);
            }
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    Err(format!("its memory still changes after {SETTLE_LIMIT:?}").into())
}
