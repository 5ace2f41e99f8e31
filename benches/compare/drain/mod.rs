//! What clients lose when a proxy stops, is started again, or reloads, under load.
//!
//! The app and the clients are those of `ebbtide demo`; here they stand around every
//! proxy in turn.

mod account;
mod line;
mod load;
mod moving;
mod pause;
mod tunnels;
mod upgrade;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use self::account::Account;
use self::load::Load;
use crate::field::{Entry, Field};
use crate::program::{Make, Variant};
use crate::running::{Prepared, Running};
use crate::section::Section;
use crate::support::proxy::{Doors, Process};
use crate::support::{Error, host};

pub(crate) use self::moving::measure as measure_moving;
pub(crate) use self::pause::measure as measure_pause;
pub(crate) use self::upgrade::measure as measure_upgrade;

/// How long the clients work before a stop, and between two.
const WORK: Duration = Duration::from_secs(1);

/// How long a port may take to be free, or a new worker to be there.
const LIMIT: Duration = Duration::from_secs(90);

/// The resolution of these.
const EVERY: Duration = Duration::from_millis(1);

/// What is done to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It is asked to stop, and the clients see the end.
    Stop,
    /// It is asked to stop, and started again as soon as its ports can be bound.
    Restart,
    /// It is asked to replace its own workers.
    Reload,
}

impl Deed {
    fn title(self, times: usize) -> String {
        match self {
            Self::Stop => format!("{times} stops under load"),
            Self::Restart => format!("{times} restarts under load"),
            Self::Reload => format!("{times} reloads of the peers under load"),
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Stop => {
                "The graceful signal of each (TERM for ebbtide, QUIT for nginx, USR1 for \
                 HAProxy) after a second of load; the clients work on until it has ended. \
                 Being refused then is right: whoever has another endpoint goes there."
            }
            Self::Restart => {
                "The same signals, a second of load between two; the next process is started as \
                 soon as the ports can be bound, while the one before ends what it has. Being \
                 refused is the time in between. Who connects while ebbtide closes its listeners \
                 is neither refused nor reset: the kernel tries again after a second, which \
                 shows in what was served."
            }
            Self::Reload => {
                "nginx by HUP, HAProxy by USR2 to its master (`-W`): new workers get the \
                 listening sockets, so only HTTP/2 streams are refused, by GOAWAY. ebbtide replaces its \
                 process instead: see the upgrades."
            }
        }
    }

    fn entries(self, field: &Field) -> Vec<Entry<'_>> {
        match self {
            Self::Stop | Self::Restart => field.entries(Variant::Plain),
            Self::Reload => {
                let mut entries = field.entries(Variant::Mastered);
                entries.retain(|entry| entry.program.make != Make::Ebbtide);
                entries
            }
        }
    }
}

/// Does it so many times to each program.
pub(crate) fn measure(field: &Field, deed: Deed, times: usize) -> Result<Section, Error> {
    let mut accounts = Vec::new();
    for (number, &entry) in deed.entries(field).iter().enumerate() {
        let account = match deed {
            Deed::Stop => stop(field, number, entry, times),
            Deed::Restart => restart(field, number, entry, times),
            Deed::Reload => reload(field, number, entry, times),
        };
        let name = entry.name();
        accounts.push((entry, account.map_err(|error| format!("{name}: {error}"))?));
    }
    Ok(account::report(deed.title(times), deed.method(), &accounts))
}

fn progress(what: &str, entry: Entry<'_>, time: usize, times: usize) {
    eprintln!("compare: {what}: {}, {time} of {times}", entry.name());
}

/// Each stop has a process and clients of its own.
fn stop(field: &Field, number: usize, entry: Entry<'_>, times: usize) -> Result<Account, Error> {
    let mut account = Account::default();
    for time in 1..=times {
        progress("stops", entry, time, times);
        let mut load = Load::prepare()?;
        let running = field.start(number, entry, load.upstream())?;
        load.begin(&running.doors)?;
        thread::sleep(WORK);
        let (status, took) = running.process.stop_by(entry.program.graceful_stop())?;
        account.ended(status, took);
        load.finish(&mut account);
    }
    Ok(account)
}

/// The clients see one process after the other at the same place.
fn restart(field: &Field, number: usize, entry: Entry<'_>, times: usize) -> Result<Account, Error> {
    let mut account = Account::default();
    let mut load = Load::prepare()?;
    let mut running = field.start(number, entry, load.upstream())?;
    load.begin(&running.doors)?;
    let mut leaving: Vec<Leaving> = Vec::new();
    for time in 1..=times {
        progress("restarts", entry, time, times);
        thread::sleep(WORK);
        running.process.signal(entry.program.graceful_stop())?;
        wait("its ports are not free", || Ok(are_free(&running.doors)))?;
        let next = Prepared::at(field, running.doors, entry, load.upstream())?;
        let next = Running::start(next)?;
        leaving.push(Leaving { running: std::mem::replace(&mut running, next) });
        forget_ended(&mut leaving, &mut account)?;
    }
    thread::sleep(WORK);
    wait("an old process does not end", || {
        forget_ended(&mut leaving, &mut account)?;
        Ok(leaving.is_empty())
    })?;
    load.finish(&mut account);
    Ok(account)
}

/// A process that was asked to stop.
struct Leaving {
    running: Running,
}

/// Writes down which have ended.
fn forget_ended(leaving: &mut Vec<Leaving>, account: &mut Account) -> Result<(), Error> {
    let mut still = Vec::new();
    for mut one in leaving.drain(..) {
        match one.running.process.ended()? {
            Some(status) => account.left(status),
            None => still.push(one),
        }
    }
    *leaving = still;
    Ok(())
}

/// The master stays; what counts is that it has a worker that it did not have before.
fn reload(field: &Field, number: usize, entry: Entry<'_>, times: usize) -> Result<Account, Error> {
    let signal = if entry.program.make == Make::Nginx { Signal::HUP } else { Signal::USR2 };
    let mut account = Account::default();
    let mut load = Load::prepare()?;
    let running = field.start(number, entry, load.upstream())?;
    load.begin(&running.doors)?;
    for time in 1..=times {
        progress("reloads", entry, time, times);
        thread::sleep(WORK);
        let before = workers(&running.process)?;
        running.process.signal(signal)?;
        wait("it has no new worker", || {
            Ok(workers(&running.process)?.iter().any(|worker| !before.contains(worker)))
        })?;
    }
    thread::sleep(WORK);
    load.finish(&mut account);
    Ok(account)
}

fn workers(master: &Process) -> Result<Vec<u32>, Error> {
    let mut family = host::family(master.id())?;
    family.retain(|&pid| pid != master.id());
    Ok(family)
}

/// Whether all ports could be bound by whoever comes next. Binding alone harms nobody:
/// only listening would make clients believe that somebody is there.
fn are_free(doors: &Doors) -> bool {
    let is_free = |addr: SocketAddr| -> Result<(), std::io::Error> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())
    };
    [Some(doors.h1), Some(doors.h2), doors.tls].into_iter().flatten().all(|it| is_free(it).is_ok())
}

fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > LIMIT {
            return Err(format!("{what} within {LIMIT:?}").into());
        }
        thread::sleep(EVERY);
    }
    Ok(())
}
