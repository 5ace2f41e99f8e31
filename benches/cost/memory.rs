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

use crate::h2load::Work;
use crate::identity::Identity;
use crate::idle::Idle;
use crate::load::{Load, Until};
use crate::proxy::{Doors, Launch, Process};
use crate::{Error, Verdict, backend, host, peers};

const WARM_UP: u64 = 1_000;

/// Memory has settled when it has moved by no more than [`SETTLED_WITHIN`] over
/// so many looks: two seconds, longer than any timer that gives memory back.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const SETTLED_WITHIN: u64 = 32 * 1024;
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Prints bytes per connection: in clear text without a request and after one, which
/// must be at most `bound`; then idle over TLS and HTTP/2, beside nginx.
pub(crate) fn measure(binary: &Path, connections: usize, bound: u64) -> Result<Verdict, Error> {
    host::raise_descriptor_limit()?;
    let upstream = backend::start()?;
    let identity = Identity::new()?;
    println!("memory per idle connection, {connections} connections (bound {bound} bytes)");
    let launch = || Launch { identity: Some(&identity), ..Launch::plain(binary, upstream) };
    let clear = |connect: fn(SocketAddr, usize) -> Result<Load, Error>| {
        let (process, doors) = launch().start()?;
        let grown = growth(&process, &doors, connections, || connect(doors.h1, connections))?;
        process.stop()?;
        Ok::<_, Error>(grown)
    };
    let fresh = clear(Load::connect)?;
    println!("  no request yet     {fresh:>8} bytes");
    let used = clear(Load::connect_and_ask)?;
    let verdict = Verdict::of(used <= bound);
    println!("  after one request  {used:>8} bytes  {verdict}");
    for (name, work) in HELD {
        let hold = |doors: &Doors| Idle::connect(work, doors, &identity, connections);
        let (process, doors) = launch().start()?;
        let own = growth(&process, &doors, connections, || hold(&doors))?;
        process.stop()?;
        let peer = peers::start_one("nginx", upstream, &identity)?;
        let other = peer
            .map(|it| growth(&it.process, &it.doors, connections, || hold(&it.doors)))
            .transpose()?;
        let other = other.map_or("not installed".to_owned(), |bytes| format!("{bytes:>8} bytes"));
        println!("  {name:<18} {own:>8} bytes  nginx {other}");
    }
    Ok(verdict)
}

/// What is held idle after one request, beside nginx.
const HELD: [(&str, Work); 4] = [
    ("HTTP/1.1", Work::H1),
    ("HTTP/1.1 over TLS", Work::H1Tls),
    ("HTTP/2", Work::H2),
    ("HTTP/2 over TLS", Work::H2Tls),
];

/// What each of the connections that `connect` makes takes of a proxy's memory.
fn growth<T>(
    process: &Process,
    doors: &Doors,
    connections: usize,
    connect: impl FnOnce() -> Result<T, Error>,
) -> Result<u64, Error> {
    Load::connect(doors.h1, 8)?.run(Until::Requests(WARM_UP))?;
    let before = settled_memory(process.id())?;
    let load = connect()?;
    let after = settled_memory(process.id())?;
    drop(load);
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
