//! One connection to an app server, as the request that uses it sees it.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::h2::{Fault, Stream};
use super::pool::EndpointId;
use crate::http1::Buffer;
use crate::net::{Look, Socket};

/// A connection that a request has to itself.
#[derive(Debug)]
pub struct Connection<W = Wire> {
    /// What it is made of.
    pub socket: W,
    /// What was read from it and not yet used.
    pub buffer: Buffer,
    /// Where it leads.
    pub endpoint: EndpointId,
    /// Whether it has served a request before: only then can its death mean
    /// that the server had given it up before ours arrived.
    pub reused: bool,
}

/// What carries a request and its response: HTTP/1 in either case, for him who
/// writes and reads here.
#[derive(Debug)]
pub enum Wire {
    /// A whole connection.
    Socket(Socket),
    /// A stream of one that is shared.
    Stream(Box<Stream>),
}

impl Connection {
    /// Looks whether it is quiet, just before a request is written.
    ///
    /// HTTP/1 has no names for requests: an octet that is here before the
    /// request would be taken for its answer, whoever it was meant for.
    #[inline]
    pub fn look(&mut self) -> Look {
        match &mut self.socket {
            Wire::Socket(socket) => socket.look(),
            Wire::Stream(_) => Look::Quiet,
        }
    }

    /// The same as a connection that may become something else than HTTP.
    pub fn into_socket(self) -> Option<Connection<Socket>> {
        let Connection { socket, buffer, endpoint, reused } = self;
        match socket {
            Wire::Socket(socket) => Some(Connection { socket, buffer, endpoint, reused }),
            Wire::Stream(_) => None,
        }
    }
}

impl Wire {
    /// Reads what is there of the response; 0 is its end, and one that has been said.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Socket(socket) => match ready!(socket.poll_read(cx, into)) {
                Ok(0) if !into.is_empty() && !socket.has_ended_well() => {
                    Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
                }
                read => Poll::Ready(read),
            },
            Wire::Stream(stream) => stream.poll_read(cx, into),
        }
    }

    /// Writes as much of the request as is taken.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Socket(socket) => socket.poll_write(cx, octets),
            Wire::Stream(stream) => stream.poll_write(cx, octets),
        }
    }

    /// Writes as much of several pieces as is taken.
    #[inline]
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Socket(socket) => socket.poll_write_vectored(cx, pieces),
            Wire::Stream(stream) => {
                let first = pieces.iter().find(|piece| !piece.is_empty());
                stream.poll_write(cx, first.map_or(&[], |piece| piece))
            }
        }
    }

    /// Waits until all that was written is on its way.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Socket(socket) => socket.poll_flush(cx),
            Wire::Stream(stream) => stream.poll_flush(cx),
        }
    }

    /// Whether the app server, having answered, has said that it reads no more, or
    /// anything else.
    #[inline]
    pub fn poll_refuses_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Wire::Socket(socket) => socket.poll_readable(cx).map(|_| ()),
            Wire::Stream(stream) => stream.poll_reset(cx),
        }
    }

    /// How many octets there are that nobody has read, as far as that can be seen.
    pub fn unread(&self) -> usize {
        match self {
            Wire::Socket(socket) => socket.unread(),
            // Who has just read it in vain has all of it.
            Wire::Stream(_) => 0,
        }
    }

    /// Whether it is a stream of HTTP/2.
    pub fn is_stream(&self) -> bool {
        matches!(self, Wire::Stream(_))
    }

    /// What has gone wrong with it, if it is a stream.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Wire::Socket(_) => None,
            Wire::Stream(stream) => stream.fault(),
        }
    }

    /// What of the request's body was sent that the app server has certainly not worked
    /// on: all of it, or nothing is known of that.
    pub fn take_back(&mut self) -> Option<Vec<u8>> {
        match self {
            Wire::Socket(_) => None,
            Wire::Stream(stream) => stream.take_back(),
        }
    }
}
