//! The lot: connections between requests, without a task and without a buffer.
//!
//! A parked connection is one entry here and one in an epoll set of the
//! worker's own, which the runtime watches as a single descriptor. That is what
//! an idle connection costs, and it is provably idle: no octet of it is
//! anywhere but in the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::time::Timespec;
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::kept::Kept;
use crate::handoff::watch;
use crate::net::{discard, end, unread};
use crate::telemetry::ConnectionState;
use crate::tls::Session;

/// What a connection that is not in the middle of a request is.
pub(super) struct Parked {
    pub(super) fd: OwnedFd,
    /// Its TLS session; none before the handshake.
    pub(super) tls: Option<Box<Session>>,
    pub(super) kept: Kept,
    /// When its time is over.
    pub(super) until: u64,
    /// It was retired while idle: octets that come now are a raced request.
    pub(super) retired: bool,
}

impl Parked {
    /// What it is counted as.
    pub(super) fn state(&self) -> ConnectionState {
        self.kept.guard.kind()
    }

    /// Whether the kernel holds octets of it.
    pub(super) fn has_octets(&self) -> bool {
        unread(&self.fd) > 0
    }

    /// Sends FIN, and close_notify before it.
    pub(super) fn end(&mut self) {
        // A peer that is gone already shows in the next look at the socket.
        let _gone = end(&self.fd, self.tls.as_deref_mut());
    }

    /// Reads and forgets what comes after the end: whether it is of a request,
    /// and whether the peer has ended its side. With TLS only octets of the
    /// application can be; an alert is not, and a handshake is not.
    fn discard(&mut self, scratch: &mut [u8]) -> (bool, bool) {
        let Parked { fd, tls, kept, .. } = self;
        let mut of_request = false;
        let (_, ended) = discard(&*fd, scratch, |octets| {
            let plain = tls.as_mut().map(|tls| tls.feed(octets, &mut [0; 1]));
            of_request |= !kept.door.secure || matches!(plain, Some(Ok(1)));
            if of_request {
                // It is known now, and what comes after it need not be kept.
                *tls = None;
            }
        });
        (of_request, ended)
    }

    /// Sends FIN; from now on it lingers until `until`.
    pub(super) fn retire(&mut self, now: u64, until: u64) {
        self.end();
        self.kept.guard.shift(ConnectionState::H1Closing);
        self.retired = true;
        self.kept.since = now;
        self.until = until;
    }
}

/// What has happened on a parked connection.
pub(super) enum Happened {
    /// It has octets, or an end that a session has to see.
    Wakes(Parked),
    /// The client closed it; it was idle or fresh.
    Left(Parked),
    /// A request came after our FIN.
    Raced,
    /// It lingered, and its client has closed.
    Closed,
}

/// A worker's parked connections.
pub(super) struct Lot {
    epoll: AsyncFd<OwnedFd>,
    entries: Slab<Parked>,
    events: Vec<epoll::Event>,
}

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

impl Lot {
    /// An empty lot, watched by the runtime of this thread.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = watch(epoll::create(epoll::CreateFlags::CLOEXEC)?, Interest::READABLE)?;
        Ok(Lot { epoll, entries: Slab::new(), events: Vec::with_capacity(EVENTS) })
    }

    /// The descriptor to wait for.
    pub(super) fn poll_ready(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        match self.epoll.poll_read_ready(cx) {
            std::task::Poll::Ready(Ok(mut ready)) => {
                ready.clear_ready();
                std::task::Poll::Ready(())
            }
            _ => std::task::Poll::Pending,
        }
    }

    /// How many are parked.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Parks a connection. On failure it is closed by being dropped.
    pub(super) fn park(&mut self, parked: Parked) -> io::Result<()> {
        let entry = self.entries.vacant_entry();
        let key = epoll::EventData::new_u64(entry.key() as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(self.epoll.get_ref(), &parked.fd, key, flags)?;
        entry.insert(parked);
        Ok(())
    }

    /// Takes a connection out.
    fn take(&mut self, key: usize) -> Parked {
        let parked = self.entries.remove(key);
        // Closed or handed to the runtime next; either ends this registration too.
        let _gone = epoll::delete(self.epoll.get_ref(), parked.fd.as_fd());
        parked
    }

    /// Fetches what has happened; `false` once nothing more is waiting.
    pub(super) fn fetch(&mut self) -> bool {
        self.events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        epoll::wait(self.epoll.get_ref(), spare, Some(&at_once)).is_ok_and(|events| events > 0)
    }

    /// Says what the last fetch has brought, one connection after the other.
    pub(super) fn each(&mut self, scratch: &mut [u8], mut each: impl FnMut(Happened)) {
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let key = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(parked) = self.entries.get_mut(key) else {
                continue;
            };
            if parked.state().is_closing() {
                let (of_request, ended) = parked.discard(scratch);
                if of_request && std::mem::take(&mut parked.retired) {
                    each(Happened::Raced);
                }
                if ended {
                    self.entries.remove(key);
                    each(Happened::Closed);
                }
                continue;
            }
            let ends = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            let flags = event.flags;
            let left = flags.intersects(ends) && !parked.has_octets();
            let parked = self.take(key);
            each(if left { Happened::Left(parked) } else { Happened::Wakes(parked) });
        }
        self.events = events;
    }

    /// Asks about every connection; those for which `leaves` says so are taken out.
    pub(super) fn extract(&mut self, mut leaves: impl FnMut(&mut Parked) -> bool) -> Vec<Parked> {
        let keys: Vec<usize> = self
            .entries
            .iter_mut()
            .filter_map(|(key, parked)| leaves(parked).then_some(key))
            .collect();
        keys.into_iter().map(|key| self.take(key)).collect()
    }

    /// Takes the next one out for which `leaves` says so, from the place `at` on.
    pub(super) fn take_next(
        &mut self,
        at: &mut usize,
        leaves: impl Fn(&Parked) -> bool,
    ) -> Option<Parked> {
        while *at < self.entries.capacity() {
            let key = *at;
            *at += 1;
            if self.entries.get(key).is_some_and(&leaves) {
                return Some(self.take(key));
            }
        }
        None
    }

    /// The one that will be missed least: idle longest, or else silent since
    /// before `silent_since` without ever having sent anything.
    pub(super) fn least_missed(&mut self, silent_since: u64) -> Option<&mut Parked> {
        self.entries
            .iter_mut()
            .map(|(_, parked)| parked)
            .filter(|parked| match parked.state() {
                ConnectionState::H1Idle => true,
                ConnectionState::H1Fresh => parked.kept.since <= silent_since,
                _ => false,
            })
            .min_by_key(|parked| (parked.state() == ConnectionState::H1Fresh, parked.kept.since))
    }
}
