//! One connection to an app server.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

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

/// What a connection is doing on which nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: the next response will be to the next request.
    Quiet,
    /// It says something that nobody has asked for.
    Speaks,
    /// It has ended.
    Ended,
}

impl Connection {
    /// Looks at what the kernel has, just before a request is written.
    ///
    /// HTTP/1 has no names for requests: an octet that is here before the
    /// request would be taken for its answer, whoever it was meant for. The
    /// runtime's last news may be as old as a turn of the event loop, so the
    /// kernel is asked; that costs one system call for each request.
    #[inline]
    pub fn look(&self) -> Look {
        match recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Look::Quiet,
            Ok((1.., _)) => Look::Speaks,
            Ok(_) | Err(_) => Look::Ended,
        }
    }
}
