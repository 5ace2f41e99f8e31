//! One connection to an app server.

use std::os::fd::AsFd;
use std::task::{Context, Waker};

use rustix::net::RecvFlags;

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
    /// no octet that nobody asked for. Costs no system call while nothing has
    /// happened on it.
    pub(super) fn is_fresh(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if self.socket.poll_readable(&mut cx).is_pending() {
            return true;
        }
        // The runtime says that something happened; the kernel says what.
        let mut octet = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let looked = rustix::net::recv(self.socket.as_fd(), &mut octet, flags);
        matches!(looked, Err(rustix::io::Errno::AGAIN))
    }
}
