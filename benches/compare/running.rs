//! A program at work: a process, its doors, and a directory that goes with it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::field::{Entry, Field};
use crate::program::{LOG, Make, Setting};
use crate::support::proxy::{Doors, Process};
use crate::support::{Error, host};

const START_LIMIT: Duration = Duration::from_secs(10);

/// What it says that is no access log.
const MESSAGES: &str = "messages";

/// A program that runs.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) doors: Doors,
    /// After the process, so that it is removed when nobody writes to it any more.
    directory: TempDir,
}

impl Running {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(mut prepared: Prepared) -> Result<Self, Error> {
        let mut process = prepared.start()?;
        let doors = prepared.doors;
        for addr in [Some(doors.h1), Some(doors.h2), doors.tls].into_iter().flatten() {
            wait_until_listening(&mut process, addr)
                .map_err(|error| format!("{}: {error}\n{}", prepared.name, prepared.messages()))?;
        }
        Ok(Self { process, doors, directory: prepared.directory })
    }

    /// What it was given, and what it writes.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// How many octets its access log has.
    pub(crate) fn logged(&self) -> Result<u64, Error> {
        Ok(fs::metadata(self.directory.path().join(LOG))?.len())
    }
}

fn wait_until_listening(process: &mut Process, addr: SocketAddr) -> Result<(), Error> {
    let started = Instant::now();
    while started.elapsed() < START_LIMIT {
        if TcpStream::connect(addr).is_ok() {
            return Ok(());
        }
        if let Some(status) = process.ended()? {
            return Err(format!("it ended with {status}").into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(format!("it does not listen on {addr} within {START_LIMIT:?}").into())
}

/// A program that only has to be executed.
pub(crate) struct Prepared {
    name: String,
    command: Command,
    pub(crate) doors: Doors,
    directory: TempDir,
}

impl Prepared {
    /// The entry that has this number in its row, before an application.
    pub(crate) fn new(
        field: &Field,
        number: usize,
        entry: Entry<'_>,
        upstream: SocketAddr,
    ) -> Result<Self, Error> {
        let doors = free_doors(entry.program.make, number)?;
        Self::at(field, doors, entry, upstream)
    }

    /// The same at a given place.
    pub(crate) fn at(
        field: &Field,
        doors: Doors,
        entry: Entry<'_>,
        upstream: SocketAddr,
    ) -> Result<Self, Error> {
        let Entry { program, variant } = entry;
        let directory = TempDir::new_in(host::own_directory()?)?;
        let path = directory.path();
        let identity = &field.identity;
        let setting = Setting { doors, upstream, identity, directory: path, variant };
        let mut command = program.command(&setting)?;
        command.stdout(File::options().create(true).append(true).open(path.join(LOG))?);
        command.stderr(File::create(path.join(MESSAGES))?);
        Ok(Self { name: entry.name(), command, doors, directory })
    }

    /// Executes it.
    pub(crate) fn start(&mut self) -> Result<Process, Error> {
        Process::start(&mut self.command)
    }

    /// What it has said besides its access log.
    pub(crate) fn messages(&self) -> String {
        fs::read_to_string(self.directory.path().join(MESSAGES)).unwrap_or_default()
    }
}

/// Addresses for the program of this number. None tells which ports it was given, so
/// some are chosen that were free just now, all held until the last is chosen; on a
/// loopback address of its own, where no outgoing connection takes them in between.
fn free_doors(make: Make, number: usize) -> Result<Doors, Error> {
    let addr = Ipv4Addr::new(127, 77, 0, u8::try_from(number + 1)?);
    let bind = || TcpListener::bind((addr, 0));
    let held = [bind()?, bind()?, bind()?];
    let [h1, h2, tls] = held.each_ref().map(TcpListener::local_addr);
    let (h1, h2, tls) = (h1?, h2?, tls?);
    // ebbtide tells the two apart by what comes in.
    Ok(Doors { h1, h2: if make == Make::Ebbtide { h1 } else { h2 }, tls: Some(tls) })
}
