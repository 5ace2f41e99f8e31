//! A level-triggered epoll set of sockets that may be read.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::Error;

/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// Sockets, each under a number of its owner's choice.
pub(crate) struct Poller {
    epoll: OwnedFd,
    ready: Vec<u64>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, ready: Vec::with_capacity(BATCH) })
    }

    /// Watches `socket`, until it is closed.
    pub(crate) fn add(&self, socket: impl AsFd, key: u64) -> Result<(), Error> {
        let key = epoll::EventData::new_u64(key);
        Ok(epoll::add(&self.epoll, socket, key, epoll::EventFlags::IN)?)
    }

    /// Waits; returns how many are ready, 0 after `timeout`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Result<usize, Error> {
        let timeout = timeout.map(Timespec::try_from).transpose()?;
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        self.ready.clear();
        loop {
            match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Ok((events, _)) => self.ready.extend(events.iter().map(|it| it.data.u64())),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            return Ok(self.ready.len());
        }
    }

    /// How many the last wait found ready.
    pub(crate) fn count(&self) -> usize {
        self.ready.len()
    }

    /// The number of the socket at `index` among those that the last wait
    /// found ready. By index, so that the owner may change itself meanwhile.
    pub(crate) fn ready(&self, index: usize) -> u64 {
        self.ready[index]
    }
}
