//! One connection to an app server.

use std::task::{Context, Waker};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use tokio::task::coop::has_budget_remaining;

use super::pool::EndpointId;
use crate::http1::Buffer;
use crate::net::Socket;

/// A connection that a request has to itself.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// What was read from it and not yet used.
    pub buffer: Buffer,
    /// Where it leads.
    pub endpoint: EndpointId,
    /// Whether it has served a request before: only then can its death mean
    /// that the server had given it up before ours arrived.
    pub reused: bool,
}

impl Connection {
    /// Whether a pooled connection is still worth a request: no FIN, no error,
    /// no octet that nobody asked for.
    ///
    /// `watched` says that the event loop has turned since it was put into the
    /// pool: then the runtime knows of whatever has happened, and the look costs
    /// no system call. Else the kernel is asked.
    pub(super) fn is_fresh(&self, watched: bool) -> bool {
        if watched && has_budget_remaining() {
            let mut cx = Context::from_waker(Waker::noop());
            if self.socket.poll_readable(&mut cx).is_pending() {
                return true;
            }
        }
        let mut look = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP)];
        matches!(poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}
