//! Emptying an accept queue, to the last connection in it.
//!
//! Past the runtime: what it says of a listener is what it has seen, and how
//! often it says so is a matter of its budget. Only the kernel's EAGAIN means
//! that a queue is empty.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::accept::{is_exhaustion, is_passing};
use super::listener::Listener;
use super::socket::Peer;
use crate::drain::Deadline;
use crate::limits::{CLOSE_QUEUE_MAX, CLOSE_QUEUE_MIN, CLOSING};

/// Where the connections of a closing listener go.
pub trait Taker {
    /// Whether there is room for one more. What finds none stays in the queue.
    fn has_room(&self) -> bool;
    /// Takes a connection, which is non-blocking.
    fn take(&mut self, fd: OwnedFd, peer: Peer);
}

/// What came of one look at the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A connection was delivered.
    Taken,
    /// One of our own connections came out.
    Own,
    /// Nothing waits.
    Empty,
    /// Somebody waits, there was no room, and the time is over.
    Late,
}

/// How long to rest when there is no descriptor, and between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// How many connections are accepted before others may run: signals are seen
/// by the same thread.
const TURN: usize = 32;

/// Empties the accept queue of one listener.
pub(super) struct Sweep<'a, T> {
    listener: &'a Listener,
    taker: T,
    patience: Deadline,
    began: Instant,
    /// How long there was no room.
    starved: Duration,
    steps: usize,
    /// Our own connections to the listener: never delivered.
    pub(super) own: Vec<SocketAddr>,
    /// How many were delivered.
    pub(super) accepted: usize,
}

impl<'a, T: Taker> Sweep<'a, T> {
    /// `patience` is how long to wait for room while somebody waits in the queue.
    pub(super) fn new(listener: &'a Listener, taker: T, patience: Deadline) -> Self {
        let (began, starved) = (Instant::now(), Duration::ZERO);
        Sweep { listener, taker, patience, began, starved, steps: 0, own: Vec::new(), accepted: 0 }
    }

    /// Whether newcomers have kept us for as long as they may. The time that
    /// there was no room does not count.
    pub(super) fn is_late(&self) -> bool {
        self.began.elapsed().saturating_sub(self.starved) >= CLOSING
    }

    /// Whether a handshake has had the time to complete that it always gets.
    pub(super) fn is_settled(&self) -> bool {
        self.began.elapsed() >= CLOSE_QUEUE_MIN
    }

    /// Accepts until nothing waits; `false` if somebody still may.
    pub(super) async fn empty(&mut self) -> bool {
        loop {
            match self.one().await {
                Look::Taken | Look::Own if self.is_late() => return !self.is_waiting(),
                Look::Taken | Look::Own => {}
                Look::Empty => return true,
                Look::Late => return false,
            }
        }
    }

    /// Accepts until nothing waits and no handshake is under way, at least
    /// [`CLOSE_QUEUE_MIN`]; for handshakes alone at most [`CLOSE_QUEUE_MAX`].
    pub(super) async fn settle(&mut self, mut no_half_open: impl FnMut() -> bool) -> bool {
        let mut until = None;
        loop {
            if !self.empty().await {
                return false;
            }
            let now = Instant::now();
            let over = now >= *until.get_or_insert(now + CLOSE_QUEUE_MAX) || self.is_late();
            if self.is_settled() && (over || no_half_open()) {
                // What completed between the last accept and that look.
                return self.empty().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Accepts one, without waiting for any to come. Where descriptors have run
    /// out, waits for one: accept(2) says so even of an empty queue.
    pub(super) async fn one(&mut self) -> Look {
        loop {
            self.steps += 1;
            if self.steps.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
            let error = if self.taker.has_room() {
                match acceptfrom_with(self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok((fd, from)) => {
                        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                        return self.sort(fd, from.map_or(Peer::Unix, Peer::Tcp));
                    }
                    Err(Errno::AGAIN) => return Look::Empty,
                    Err(error) => error,
                }
            } else {
                Errno::MFILE
            };
            if !self.is_waiting() {
                return Look::Empty;
            }
            if is_passing(error) && !self.is_late() {
                continue;
            }
            let since = Instant::now();
            let starved = is_exhaustion(&error.into());
            let over = if starved { self.patience.is_over(since) } else { self.is_late() };
            if over {
                return Look::Late;
            }
            tokio::time::sleep(PAUSE).await;
            if starved {
                self.starved += since.elapsed();
            }
        }
    }

    fn sort(&mut self, fd: OwnedFd, peer: Peer) -> Look {
        if let Peer::Tcp(from) = peer
            && self.own.contains(&SocketAddr::new(from.ip().to_canonical(), from.port()))
        {
            return Look::Own;
        }
        self.accepted += 1;
        self.taker.take(fd, peer);
        Look::Taken
    }

    /// Whether somebody is in the queue, asked without a descriptor.
    pub(super) fn is_waiting(&self) -> bool {
        let mut listener = [PollFd::new(self.listener, PollFlags::IN)];
        // Who cannot be asked is taken to have somebody waiting.
        poll(&mut listener, Some(&Timespec::default())).is_err()
            || listener[0].revents().contains(PollFlags::IN)
    }
}
