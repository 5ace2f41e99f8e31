//! Memory per idle connection: what the proxy's share of memory grows by.
//!
//! Proportional set size, so the kernel's socket buffers are not in it. The
//! proxy has answered a few requests before, so that what it allocates once is
//! not divided among the connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Until};
use crate::proxy::Launch;
use crate::{Error, Verdict, backend, host};

const WARM_UP: u64 = 1_000;

/// Memory has settled when it has moved by no more than [`SETTLED_WITHIN`] over
/// so many looks: two seconds, longer than any timer that gives memory back.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const SETTLED_WITHIN: u64 = 32 * 1024;
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Prints bytes per connection without a request and after one; the second
/// must be at most `bound`.
pub(crate) fn measure(binary: &Path, connections: usize, bound: u64) -> Result<Verdict, Error> {
    host::raise_descriptor_limit()?;
    let upstream = backend::start()?;
    println!("memory per idle connection, {connections} connections (bound {bound} bytes)");
    let fresh = growth(binary, upstream, connections, Load::connect)?;
    println!("  no request yet     {fresh:>8} bytes");
    let used = growth(binary, upstream, connections, Load::connect_and_ask)?;
    let verdict = Verdict::of(used <= bound);
    println!("  after one request  {used:>8} bytes  {verdict}");
    Ok(verdict)
}

fn growth(
    binary: &Path,
    upstream: SocketAddr,
    connections: usize,
    connect: fn(SocketAddr, usize) -> Result<Load, Error>,
) -> Result<u64, Error> {
    let (process, addr) = Launch::plain(binary, upstream).start()?;
    Load::connect(addr, 8)?.run(Until::Requests(WARM_UP))?;
    let before = settled_memory(process.id())?;
    let load = connect(addr, connections)?;
    let after = settled_memory(process.id())?;
    drop(load);
    process.stop()?;
    Ok(after.saturating_sub(before) / connections as u64)
}

/// The memory of a process once it no longer changes.
pub(crate) fn settled_memory(pid: u32) -> Result<u64, Error> {
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
