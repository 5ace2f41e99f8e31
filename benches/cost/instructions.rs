//! User-space instructions per request: the difference of two callgrind runs.
//!
//! The shorter run pays for the start, the connections and the stop; what the
//! longer one counts above it was spent on requests. Repeatable to about one
//! per cent even on a busy machine, so this is the guard against creeping cost.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::load::{Load, Until};
use crate::proxy::Launch;
use crate::{Error, Verdict, backend, host};

const SHORT: u64 = 1_000;
const LONG: u64 = 5_000;
const CONNECTIONS: usize = 8;

/// Prints the figure with and without the access log; both must be at most `bound`.
pub(crate) fn measure(binary: &Path, bound: u64) -> Result<Verdict, Error> {
    let valgrind = host::require_program("valgrind")?;
    let upstream = backend::start()?;
    println!("user-space instructions per request (bound {bound})");
    let mut verdict = Verdict::Kept;
    for access_log in ["off", "json"] {
        let run = |requests| count(&valgrind, binary, upstream, access_log, requests);
        let (short, long) = (run(SHORT)?, run(LONG)?);
        let spent = long.checked_sub(short).ok_or("the longer run took fewer instructions")?;
        let per_request = spent / (LONG - SHORT);
        let kept = Verdict::of(per_request <= bound);
        println!("  access log {access_log:<5} {per_request:>8}  {kept}");
        verdict = verdict.and(kept);
    }
    Ok(verdict)
}

/// All instructions of one proxy that answers `requests` requests.
fn count(
    valgrind: &Path,
    binary: &Path,
    upstream: SocketAddr,
    access_log: &str,
    requests: u64,
) -> Result<u64, Error> {
    let profile = host::scratch("instructions")?.join("callgrind.out");
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(&profile);
    let under = vec![valgrind.into(), "--quiet".into(), "--tool=callgrind".into(), out_file];
    let launch = Launch { access_log, under, ..Launch::plain(binary, upstream) };
    let (process, addr) = launch.start()?;
    let mut load = Load::connect(addr, CONNECTIONS)?;
    load.run(Until::Requests(requests))?;
    drop(load);
    process.stop()?;
    read_total(&profile)
}

fn read_total(profile: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(profile)?;
    let total = |name: &str| text.lines().rev().find_map(|line| line.strip_prefix(name));
    let total = total("totals:").or_else(|| total("summary:"));
    Ok(total.ok_or("callgrind wrote no total")?.trim().parse()?)
}
