//! The downstream side of a request, as the request sees it.

use std::io;
use std::task::{Context, Poll};

use crate::http1::Buffer;
use crate::limits::READ_AHEAD_MAX;
use crate::net::{Peer, Socket};

/// A downstream connection while it serves requests.
pub struct Client {
    /// The socket.
    pub socket: Socket,
    /// What was read from it and not yet used.
    pub buffer: Buffer,
    /// Who it is.
    pub peer: Peer,
    /// The peer's address without port, as text; empty for a unix socket.
    pub address: Box<str>,
    /// The local port, or 0.
    pub port: u16,
    /// Whether it may speak for others.
    pub trusted: bool,
    /// The CR of an empty line between requests has been read, and is nowhere else.
    pub half_line: bool,
    /// The client has sent FIN.
    pub ended: bool,
    /// Older than `limits.connection_age`: to be retired at the next response.
    pub aged: bool,
}

impl Client {
    /// Whether the client is still there, asked while it has nothing to send.
    /// Reads on into the buffer, as far as there is room: what a client sends
    /// ahead is a pipelined request. Costs no system call while nothing comes.
    pub(super) fn poll_alive(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended && self.buffer.len() < READ_AHEAD_MAX && !self.buffer.is_full() {
            let most = READ_AHEAD_MAX - self.buffer.len();
            match self.poll_fill_to(cx, most) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => break,
            }
        }
        true
    }

    /// Reads more into the buffer; 0 is the client's FIN.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_to(cx, usize::MAX)
    }

    fn poll_fill_to(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let room = self.buffer.spare();
        let most = most.min(room.len());
        let read = std::task::ready!(self.socket.poll_read(cx, &mut room[..most]))?;
        self.buffer.fill(read);
        self.ended |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Whether octets of a further request have been received.
    pub(super) fn has_more(&self) -> bool {
        let octets = self.buffer.filled();
        !matches!(&octets[blank_lines(octets)..], [] | [b'\r']) || self.socket.unread() > 0
    }
}

/// How many octets of empty lines stand at the front: before a request they
/// are nothing (RFC 9112 section 2.2). A CR by itself is no line.
pub fn blank_lines(octets: &[u8]) -> usize {
    octets.chunks_exact(2).take_while(|line| line == b"\r\n").count() * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_empty_lines_are_nothing() {
        for (octets, blank) in
            [("", 0), ("\r", 0), ("\r\n\r", 2), ("\r\n\r\nGET", 4), ("\rGET", 0), ("\nGET", 0)]
        {
            assert_eq!(blank_lines(octets.as_bytes()), blank, "{octets:?}");
        }
    }
}
