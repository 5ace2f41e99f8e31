//! A proxy whose binary is replaced again and again at the same place, as the manual of
//! each says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

use super::{LIMIT, wait, workers};
use crate::field::{Entry, Field};
use crate::program::{ADMIN, Make};
use crate::running::Running;
use crate::support::proxy::Doors;
use crate::support::{Error, host};
use std::net::SocketAddr;

/// The processes of a program, one after the other.
pub(super) struct Line {
    running: Running,
    make: Make,
}

/// What has been replaced: how long after the signal its last process was gone.
pub(super) type Gone = JoinHandle<Result<f64, String>>;

impl Line {
    /// Starts the first.
    pub(super) fn start(
        field: &Field,
        number: usize,
        entry: Entry<'_>,
        upstream: SocketAddr,
    ) -> Result<Self, Error> {
        let running = field.start(number, entry, upstream)?;
        Ok(Self { running, make: entry.program.make })
    }

    pub(super) fn doors(&self) -> &Doors {
        &self.running.doors
    }

    /// Whoever is to be signalled.
    fn head(&self) -> Result<u32, Error> {
        match self.make {
            Make::Ebbtide => Ok(u32::try_from(number(&self.status()?, "pid")?)?),
            Make::Nginx => {
                let path = self.running.directory().join("nginx.pid");
                Ok(fs::read_to_string(path)?.trim().parse()?)
            }
            Make::Haproxy => Ok(self.running.process.id()),
        }
    }

    /// Of ebbtide, what the newest process says.
    pub(super) fn status(&self) -> Result<Value, Error> {
        let mut stream = UnixStream::connect(self.running.directory().join(ADMIN))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream
            .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        let body = said.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).map_err(|error| format!("{error}: {said}").into())
    }

    /// Replaces the binary by itself; when the new one serves.
    pub(super) fn upgrade(&self) -> Result<Gone, Error> {
        let head = self.head()?;
        let old = match self.make {
            Make::Ebbtide => vec![head],
            Make::Nginx => host::family(head)?,
            Make::Haproxy => workers(&self.running.process)?,
        };
        let watched = old.iter().map(|&pid| held(pid)).collect::<Result<Vec<_>, _>>()?;
        let sent = Instant::now();
        signal(head, Signal::USR2)?;
        match self.make {
            Make::Ebbtide => wait("no successor answers", || Ok(self.head()? != head))?,
            Make::Nginx => {
                wait("it has no new worker", || {
                    // The file is not there for a moment.
                    let new = self.head().unwrap_or(head);
                    Ok(new != head && host::family(new)?.len() > 1)
                })?;
                signal(head, Signal::QUIT)?;
            }
            Make::Haproxy => wait("it has no new worker", || {
                Ok(workers(&self.running.process)?.iter().any(|worker| !old.contains(worker)))
            })?,
        }
        Ok(thread::spawn(move || {
            for process in watched {
                until_gone(&process).map_err(|error| error.to_string())?;
            }
            Ok(sent.elapsed().as_secs_f64() * 1e3)
        }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What was not started by us is not ended with it. Whatever has ended cannot be
        // killed, and nothing is to be done about it.
        let mut left: Vec<u32> = self.head().into_iter().collect();
        if let Ok(family) = left.first().map_or(Ok(Vec::new()), |&head| host::family(head)) {
            left = family;
        }
        if let Ok(status) = self.status() {
            let elders = status["elders"].as_array().into_iter().flatten();
            left.extend(elders.filter_map(|elder| u32::try_from(elder["pid"].as_u64()?).ok()));
        }
        for pid in left {
            drop(signal(pid, Signal::KILL));
        }
    }
}

/// A number in a document.
pub(super) fn number(document: &Value, name: &str) -> Result<u64, Error> {
    document[name].as_u64().ok_or_else(|| format!("no {name} in {document}").into())
}

fn signal(pid: u32, signal: Signal) -> Result<(), Error> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    Ok(kill_process(pid, signal)?)
}

fn held(pid: u32) -> Result<OwnedFd, Error> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn until_gone(process: &OwnedFd) -> Result<(), Error> {
    let bound = Timespec::try_from(LIMIT).unwrap_or_default();
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    if poll(&mut fds, Some(&bound))? == 0 {
        return Err(format!("an old process is there after {LIMIT:?}").into());
    }
    Ok(())
}

/// Waits for what was replaced; the milliseconds of each.
pub(super) fn gone(all: Vec<Gone>) -> Result<Vec<f64>, Error> {
    let each = all.into_iter().map(|one| one.join().map_err(|_| "a watcher panicked")?);
    each.map(|one: Result<f64, String>| one.map_err(Error::from)).collect()
}

/// How long to wait for a moment.
pub(super) fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()).max(Duration::ZERO));
}
