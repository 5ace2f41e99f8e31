//! How long a stop takes beyond the grace that it was told to give.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::Verdict;
use crate::support::load::Load;
use crate::support::proxy::Launch;
use crate::support::{Error, backend, host, memory};

const IDLE_GRACE: Duration = Duration::from_secs(1);
const IDLE_GRACE_SETTING: &str = "drain.stop.idle_grace=1s";

/// Descriptors that the proxy and the bench need besides their connections.
const SPARE_DESCRIPTORS: u64 = 200;

/// Prints the time from SIGTERM to the exit, less `idle_grace`, with idle
/// connections only. The clients close when the proxy does, as clients do; a
/// reset or another exit status than 0 fails.
pub(crate) fn measure(binary: &Path, wanted: usize) -> Result<Verdict, Error> {
    let limit = host::raise_descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS);
    // The proxy keeps a second descriptor free for each connection.
    let connections = wanted.min(usize::try_from(limit / 2).unwrap_or(usize::MAX));
    let upstream = backend::start()?;
    let launch = Launch { settings: &[IDLE_GRACE_SETTING], ..Launch::plain(binary, upstream) };
    let (process, doors) = launch.start()?;
    let load = Load::connect_and_ask(doors.h1, connections)?;
    memory::settled(process.id())?;

    let clients = thread::spawn(move || {
        host::pin_to(host::LOAD_CORE)?;
        load.follow_closing()
    });
    let time = process.stop()?;
    let closed = clients.join().map_err(|_| "the clients panicked")??;

    let beyond = time.as_secs_f64() - IDLE_GRACE.as_secs_f64();
    println!("stop with {connections} idle connections (of {wanted} wanted)");
    println!("  SIGTERM to exit, less idle_grace {:>8.1} ms", beyond * 1e3);
    let verdict = Verdict::of(closed.reset == 0);
    println!("  closed in order {}, reset {}  {verdict}", closed.in_order, closed.reset);
    Ok(verdict)
}
