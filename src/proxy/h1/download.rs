//! The response on its way to the client: heads, body, trailers.

use std::task::{Context, Poll, ready};

use crate::http1::body::chunk_line;
use crate::http1::{Buffer, Emit};
use crate::limits::COPY_MAX;
use crate::net::Socket;
use crate::proxy::downstream::Taken;
use crate::proxy::flow::Flow;
use crate::proxy::inbound::Inbound;
use crate::proxy::outbound::Outbound;
use crate::proxy::request::Upgrade;
use crate::proxy::response::{self, Outgoing, Persistence};
use crate::proxy::{Failure, Protocol, Proxy, trailer};
use crate::upstream::{Connection, Spare};

/// How far a response has come.
pub(super) struct Download {
    /// Octets for the client that come before what lies in the upstream buffer.
    pub(super) head: Vec<u8>,
    out: Outbound,
    pub(super) inbound: Inbound,
    outgoing: Outgoing,
    trailers: trailer::Policy,
    /// Only the end of the connection tells the client where the body ends.
    pub(super) until_close: bool,
    /// Octets that the kernel took, and how many of them are heads.
    sent: u64,
    head_octets: u64,
}

/// What a response has to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'r> {
    pub(super) is_head: bool,
    pub(super) protocol: Protocol,
    pub(super) upgrade: Option<&'r Upgrade>,
}

impl Download {
    /// A response of which nothing is known; `head` is an empty buffer.
    pub(super) fn new(head: Vec<u8>) -> Self {
        Download {
            head,
            out: Outbound::default(),
            inbound: Inbound::new(),
            outgoing: Outgoing::Plain,
            trailers: trailer::Policy::ALL,
            until_close: false,
            sent: 0,
            head_octets: 0,
        }
    }

    /// Octets of body that the kernel took, chunk framing included.
    pub(super) fn body_octets(&self) -> u64 {
        self.sent.saturating_sub(self.head_octets)
    }

    /// Whether the client has got some of the final response: then nothing else
    /// can be said any more.
    pub(super) fn is_under_way(&self) -> bool {
        self.inbound.status.is_some() && self.sent > 0
    }

    /// Forgets a final response of which nothing has been sent.
    pub(super) fn take_back(&mut self) {
        if self.inbound.status.is_some() {
            let inbound = std::mem::replace(&mut self.inbound, Inbound::new());
            *self = Download { inbound, ..Download::new(std::mem::take(&mut self.head)) };
            self.inbound.take_back();
            self.head.clear();
        }
    }

    /// Takes the head at the front of the buffer and makes it ready for the
    /// client. `persistence` is asked once, with whether the connection's end
    /// will be the body's.
    pub(super) fn take_head(
        &mut self,
        upstream: &mut Connection,
        proxy: &Proxy,
        asked: Asked<'_>,
        persistence: impl FnOnce(bool) -> Persistence,
    ) -> Result<Taken, Failure> {
        let (out, head_octets) = (&mut self.head, &mut self.head_octets);
        let (outgoing, until_close) = (&mut self.outgoing, &mut self.until_close);
        let trailers = &mut self.trailers;
        let wanted = (asked.is_head, asked.upgrade);
        self.inbound.take_head(upstream, &proxy.spare, wanted, |head, seen| {
            let before = out.len();
            if head.status >= 200 {
                (*outgoing, *until_close) = response::outgoing(seen.framing, asked.protocol);
                *trailers = seen.trailers();
                let persistence = persistence(*until_close);
                let how = (*outgoing, persistence);
                response::write(head, seen, asked.is_head, how, &proxy.stamp, out);
            } else if let (101, Some(upgrade)) = (head.status, asked.upgrade) {
                response::write_switch(head, seen, upgrade, &proxy.stamp, out);
            } else if asked.protocol != Protocol::Http10 {
                // An HTTP/1.0 client knows no interim responses (RFC 9110 section 15.2).
                response::write_interim(head, seen, out);
            }
            *head_octets += (out.len() - before) as u64;
            Ok(())
        })
    }

    /// A response of our own instead: its head ends at `head_octets` of what is written.
    pub(super) fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>) -> u16) {
        let before = self.head.len();
        let status = write(&mut self.head);
        self.head_octets += (self.head.len() - before) as u64;
        self.inbound.replace(status);
    }

    /// Writes what is ready for the client, to its end.
    #[inline]
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Socket,
        buffer: &mut Buffer,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        let before = self.sent;
        let flushed = self.out.poll_flush(cx, client, &self.head, buffer, &mut self.sent);
        *moved += self.sent - before;
        ready!(flushed).map_err(|_| Failure::ClientGone)?;
        self.head.clear();
        Poll::Ready(Ok(()))
    }

    /// Decodes what is buffered and makes it ready for the client; `true` if
    /// something was used up.
    #[inline]
    pub(super) fn stage(&mut self, buffer: &mut Buffer) -> Result<bool, Failure> {
        if self.inbound.is_done() || !self.out.is_empty() || !self.out.is_untouched() {
            return Ok(false);
        }
        let emit = match self.outgoing {
            Outgoing::Chunks => Emit::Chunks,
            Outgoing::Plain | Outgoing::Wrap => Emit::Data,
        };
        let progress = self.inbound.decode(buffer, emit)?;
        let mut spent = progress.consumed;
        if self.outgoing == Outgoing::Wrap && progress.produced > 0 {
            let mut line = [0; 18];
            let n = chunk_line(progress.produced as u64, &mut line);
            self.head.extend_from_slice(&line[..n]);
            self.out.suffix.extend_from_slice(b"\r\n");
        }
        if let Some(trailer) = progress.trailer {
            if self.outgoing != Outgoing::Plain {
                let section = &buffer.filled()[spent..spent + trailer];
                self.out.suffix.extend_from_slice(b"0\r\n");
                trailer::write(section, self.trailers, &mut self.out.suffix)
                    .ok_or(Failure::Truncated("bad trailer section"))?;
            }
            spent += trailer;
        } else if self.inbound.was_told {
            self.write_end(false);
        }
        let small = progress.produced + self.out.suffix.len() <= COPY_MAX;
        if small && !self.head.is_empty() {
            self.head.extend_from_slice(&buffer.filled()[..progress.produced]);
            self.head.append(&mut self.out.suffix);
            buffer.consume(spent);
        } else {
            self.out.set(progress.produced, spent);
        }
        Ok(spent > 0)
    }

    /// Follows the body, which may end between any two of its octets: a chunk of the app
    /// server's cannot.
    pub(super) fn follow(&mut self, flow: Flow) {
        if self.outgoing == Outgoing::Chunks {
            self.outgoing = Outgoing::Wrap;
        }
        self.inbound.follow(flow);
    }

    /// Makes the end ready of a body of which nothing is on its way.
    pub(super) fn end_body(&mut self) {
        self.write_end(true);
    }

    /// What is said behind the last piece of a body that was ended, and its end.
    fn write_end(&mut self, alone: bool) {
        let farewell = self.inbound.farewell().unwrap_or_default();
        let out = if alone { &mut self.head } else { &mut self.out.suffix };
        if self.outgoing == Outgoing::Plain {
            out.extend_from_slice(farewell.as_bytes());
            return;
        }
        if !farewell.is_empty() {
            let mut line = [0; 18];
            let n = chunk_line(farewell.len() as u64, &mut line);
            out.extend_from_slice(&line[..n]);
            out.extend_from_slice(farewell.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
    }

    /// Reads more of the body.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        spare: &Spare,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        let ended = ready!(self.inbound.poll_more(cx, upstream, spare, moved))?;
        if ended && self.outgoing == Outgoing::Wrap {
            self.head.extend_from_slice(b"0\r\n\r\n");
        }
        Poll::Ready(Ok(()))
    }
}
