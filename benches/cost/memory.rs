//! Memory per idle connection, with a bound on what must stay small.

use std::net::SocketAddr;
use std::path::Path;

use crate::Verdict;
use crate::support::h2load::Work;
use crate::support::identity::Identity;
use crate::support::idle::Idle;
use crate::support::load::Load;
use crate::support::proxy::{Doors, Launch};
use crate::support::{Error, backend, host, memory};

/// Prints bytes per connection: in clear text without a request and after one, which
/// must be at most `bound`; then idle over TLS and HTTP/2.
pub(crate) fn measure(binary: &Path, connections: usize, bound: u64) -> Result<Verdict, Error> {
    host::raise_descriptor_limit()?;
    let upstream = backend::start()?;
    let identity = Identity::new()?;
    let clear = |connect: fn(SocketAddr, usize) -> Result<Load, Error>| {
        let launch = Launch::plain(binary, upstream);
        grown(launch, connections, |doors| connect(doors.h1, connections))
    };
    println!("memory per idle connection, {connections} connections (bound {bound} bytes)");
    println!("  no request yet     {:>8} bytes", clear(Load::connect)?);
    let used = clear(Load::connect_and_ask)?;
    let verdict = Verdict::of(used <= bound);
    println!("  after one request  {used:>8} bytes  {verdict}");
    for (name, work) in HELD {
        let launch = Launch { identity: Some(&identity), ..Launch::plain(binary, upstream) };
        let hold = |doors: &Doors| Idle::connect(work, doors, &identity, connections);
        println!("  {name:<18} {:>8} bytes", grown(launch, connections, hold)?);
    }
    Ok(verdict)
}

/// What is held idle after one request without a bound.
const HELD: [(&str, Work); 3] =
    [("HTTP/1.1 over TLS", Work::H1Tls), ("HTTP/2", Work::H2), ("HTTP/2 over TLS", Work::H2Tls)];

/// What each connection takes of a proxy that is started for these alone.
fn grown<T>(
    launch: Launch<'_>,
    connections: usize,
    connect: impl FnOnce(&Doors) -> Result<T, Error>,
) -> Result<u64, Error> {
    let (process, doors) = launch.start()?;
    let each = memory::growth(&process, &doors, connections, || connect(&doors))?;
    process.stop()?;
    Ok(each)
}
