//! What the kernel knows: cores, limits, the CPU time and memory of a process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Error;

/// The proxy has a core to itself.
pub(crate) const PROXY_CORE: usize = 0;

/// The load generator and the backend share the other.
pub(crate) const LOAD_CORE: usize = 1;

/// Whether the proxy and its load can be kept apart. Asked once, before the
/// first pinning: a pinned thread sees only the core it was given.
pub(crate) fn has_two_cores() -> bool {
    static TWO_CORES: LazyLock<bool> = LazyLock::new(|| {
        sched_getaffinity(None)
            .is_ok_and(|cores| cores.is_set(PROXY_CORE) && cores.is_set(LOAD_CORE))
    });
    *TWO_CORES
}

/// Pins the calling thread, where there are two cores to choose from.
pub(crate) fn pin_to(core: usize) -> Result<(), Error> {
    if has_two_cores() {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    Ok(())
}

/// Runs `start`, whose child processes inherit `core`, then returns the calling
/// thread to the cores it had.
pub(crate) fn starting_on<T>(core: usize, start: impl FnOnce() -> T) -> Result<T, Error> {
    let before = sched_getaffinity(None)?;
    pin_to(core)?;
    let outcome = start();
    sched_setaffinity(None, &before)?;
    Ok(outcome)
}

/// Raises the soft descriptor limit to the hard one, for this process and its
/// children; returns it.
pub(crate) fn raise_descriptor_limit() -> Result<u64, Error> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// CPU time of all live threads of a process and of those it started.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let mut nanos = 0;
    for pid in family(pid)? {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += first_number(&text).ok_or("schedstat has no number")?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Proportional set size of the anonymous memory of a process and of those it started, in
/// bytes. Pages of files are left out: a connection takes none, and what a process has of
/// them changes when another that uses the same library ends.
pub(crate) fn memory(pid: u32) -> Result<u64, Error> {
    let mut kilobytes = 0;
    for pid in family(pid)? {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let size = text.lines().find_map(|line| first_number(line.strip_prefix("Pss_Anon:")?));
        kilobytes += size.ok_or("smaps_rollup has no Pss_Anon")?;
    }
    Ok(kilobytes * 1024)
}

/// How many descriptors a process and those it started have open.
pub(crate) fn descriptors(pid: u32) -> Result<usize, Error> {
    let mut open = 0;
    for pid in family(pid)? {
        open += fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    }
    Ok(open)
}

/// A process and all that it started and that still live: a master and its workers.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>, Error> {
    let mut members = vec![pid];
    let mut asked = 0;
    while let Some(&parent) = members.get(asked) {
        asked += 1;
        let Some(threads) = unless_gone(fs::read_dir(format!("/proc/{parent}/task")))? else {
            continue;
        };
        for thread in threads {
            let Some(thread) = unless_gone(thread)? else { continue };
            let children = unless_gone(fs::read_to_string(thread.path().join("children")))?;
            for child in children.iter().flat_map(|text| text.split_whitespace()) {
                members.push(child.parse()?);
            }
        }
    }
    Ok(members)
}

/// Nothing where a thread or process has ended while it was looked at.
fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Where `program` is installed, if it is. Servers live in `sbin`, which is not
/// on everybody's path.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The path of `program`, or an error that says what to install.
pub(crate) fn require_program(program: &str) -> Result<PathBuf, Error> {
    find_program(program).ok_or_else(|| {
        format!("{program} is not installed; on Debian: apt-get install {program}").into()
    })
}

/// An empty directory for one measurement's files, inside the build directory.
pub(crate) fn scratch(name: &str) -> io::Result<PathBuf> {
    let directory = own_directory()?.join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The directory of this bench, inside the build directory.
pub(crate) fn own_directory() -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}
