//! User-space instructions per request: the difference of two callgrind runs.
//!
//! The shorter run pays for the start, the connections and the stop; what the
//! longer one counts above it was spent on requests. Repeatable to about one
//! per cent even on a busy machine, so this is the guard against creeping cost.

use std::fs;
use std::path::Path;

use crate::Verdict;
use crate::support::h2load::{self, Work};
use crate::support::identity::Identity;
use crate::support::load::{Load, Until};
use crate::support::proxy::Launch;
use crate::support::{Error, backend, host};

const SHORT: u64 = 1_000;
const LONG: u64 = 5_000;
const CONNECTIONS: usize = 8;

/// Prints the figure with and without the access log in clear-text HTTP/1.1, where
/// both must be at most `bound`; and over TLS and HTTP/2.
pub(crate) fn measure(binary: &Path, bound: u64) -> Result<Verdict, Error> {
    let valgrind = host::require_program("valgrind")?;
    let upstream = backend::start()?;
    let identity = Identity::new()?;
    let counted = |work, access_log| -> Result<u64, Error> {
        let run = |requests| {
            let launch =
                Launch { access_log, identity: Some(&identity), ..Launch::plain(binary, upstream) };
            count(&valgrind, launch, work, requests)
        };
        let (short, long) = (run(SHORT)?, run(LONG)?);
        let spent = long.checked_sub(short).ok_or("the longer run took fewer instructions")?;
        Ok(spent / (LONG - SHORT))
    };
    println!("user-space instructions per request (bound {bound})");
    let mut verdict = Verdict::Kept;
    for access_log in ["off", "json"] {
        let per_request = counted(Work::H1, access_log)?;
        let kept = Verdict::of(per_request <= bound);
        println!("  access log {access_log:<5} {per_request:>8}  {kept}");
        verdict = verdict.and(kept);
    }
    for work in [Work::H1Tls, Work::H2, Work::H2Tls] {
        println!("  {:<16} {:>8}  ({})", "", counted(work, "off")?, work.title());
    }
    Ok(verdict)
}

/// All instructions of one proxy that answers `requests` requests.
fn count(valgrind: &Path, launch: Launch<'_>, work: Work, requests: u64) -> Result<u64, Error> {
    let profile = host::scratch("instructions")?.join("callgrind.out");
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(&profile);
    let under = vec![valgrind.into(), "--quiet".into(), "--tool=callgrind".into(), out_file];
    let (process, doors) = Launch { under, ..launch }.start()?;
    if work == Work::H1 {
        Load::connect(doors.h1, CONNECTIONS)?.run(Until::Requests(requests))?;
    } else {
        h2load::run(work, &doors, requests)?;
    }
    process.stop()?;
    read_total(&profile)
}

fn read_total(profile: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(profile)?;
    let total = |name: &str| text.lines().rev().find_map(|line| line.strip_prefix(name));
    let total = total("totals:").or_else(|| total("summary:"));
    Ok(total.ok_or("callgrind wrote no total")?.trim().parse()?)
}
