//! The request on its way to the app server: head, body, trailers.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::client::Client;
use super::failure::Failure;
use super::outbound::Outbound;
use super::response::write_trailer;
use crate::config::Timeouts;
use crate::http1::body::BodyError;
use crate::http1::{Buffer, Decoder, Emit, Framing};
use crate::limits::{BUFFER, BULK_BUFFER};
use crate::upstream::{Connection, Spare};

/// How far a request has been sent.
pub(super) struct Upload {
    decoder: Decoder,
    chunked: bool,
    out: Outbound,
    head_sent: bool,
    /// Where it has come to.
    pub(super) state: State,
    /// Octets of the request that the kernel took on this connection.
    pub(super) written: u64,
    /// Octets of the request's body, its chunk framing included, that were taken from the client.
    pub(super) received: u64,
    rate: Rate,
}

/// Where an upload has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waiting for the client to send more of its body.
    Client,
    /// Waiting for the app server to take more.
    Upstream,
    /// All is sent.
    Done,
    /// The app server takes no more; it may still have answered.
    Broken,
}

impl Upload {
    pub(super) fn new(framing: Framing) -> Self {
        Upload {
            decoder: Decoder::new(framing),
            chunked: framing == Framing::Chunked,
            out: Outbound::default(),
            head_sent: false,
            state: State::Upstream,
            written: 0,
            received: 0,
            rate: Rate::default(),
        }
    }

    /// Starts over on another connection. Either nothing was written, so that
    /// nothing was consumed, or there is no body.
    pub(super) fn restart(&mut self) {
        self.out.rewind();
        self.written = 0;
        self.head_sent = false;
        self.state = State::Upstream;
    }

    /// Skips the rest of the request if all of it is buffered; then the
    /// connection is at the start of the next request. `false` if it is not.
    pub(super) fn skip(&mut self, buffer: &mut Buffer) -> bool {
        self.out.give_up(buffer);
        while !self.decoder.is_done() {
            match self.decoder.decode(buffer.filled_mut(), Emit::Data) {
                Ok(progress) if progress.consumed > 0 || progress.done => {
                    buffer.consume(progress.consumed + progress.trailer.unwrap_or(0));
                }
                _ => return false,
            }
        }
        true
    }

    /// Whether nothing more will be sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Broken)
    }

    /// Whether the request's octets end where the buffer begins now.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Sends on until something has to be waited for, or all is sent, or the
    /// app server takes no more. An error is the client's.
    #[inline]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        client: &mut Client,
        upstream: &mut Connection,
        rules: &Rules<'_>,
    ) -> Result<(), Failure> {
        while matches!(self.state, State::Client | State::Upstream) {
            let prefix = if self.head_sent { &[][..] } else { head };
            let socket = &mut upstream.socket;
            let buffer = &mut client.buffer;
            match self.out.poll_flush(cx, socket, prefix, buffer, &mut self.written) {
                Poll::Ready(Ok(())) => self.head_sent = true,
                Poll::Ready(Err(_)) => self.state = State::Broken,
                Poll::Pending => {
                    self.state = State::Upstream;
                    return Ok(());
                }
            }
            if self.state != State::Broken && !self.step(cx, client, rules)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Decodes what is buffered, or reads more; `false` if the client has to be waited for.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        rules: &Rules<'_>,
    ) -> Result<bool, Failure> {
        if self.decoder.is_done() {
            self.state = State::Done;
            return Ok(true);
        }
        let progress = self
            .decoder
            .decode(client.buffer.filled_mut(), Emit::Chunks)
            .map_err(Failure::ClientBody)?;
        let mut spent = progress.consumed;
        if let (true, true) = (progress.done, self.chunked) {
            let trailer = progress.trailer.unwrap_or(0);
            let section = &client.buffer.filled()[spent..spent + trailer];
            self.out.suffix.extend_from_slice(b"0\r\n");
            write_trailer(section, &mut self.out.suffix)
                .ok_or(Failure::ClientBody(BodyError("bad trailer section")))?;
            spent += trailer;
        }
        self.received += spent as u64;
        if self.received > rules.most {
            return Err(Failure::BodyTooLarge);
        }
        self.out.set(progress.produced, spent);
        if spent > 0 {
            return Ok(true);
        }
        self.read(cx, client, rules)
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        rules: &Rules<'_>,
    ) -> Result<bool, Failure> {
        if client.buffer.is_full() {
            return Err(Failure::ClientBody(BodyError("chunk framing too long")));
        }
        let room = client.buffer.spare().len();
        match client.poll_fill(cx) {
            Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => Err(Failure::ClientGone),
            Poll::Ready(Ok(n)) => {
                self.rate.moved(self.received, rules.timeouts)?;
                if n == room && client.buffer.capacity() == BUFFER && self.is_long() {
                    rules.spare.enlarge(&mut client.buffer);
                }
                Ok(true)
            }
            Poll::Pending => {
                self.state = State::Client;
                if rules.hurry {
                    self.rate.waits(rules.timeouts)?;
                }
                Ok(false)
            }
        }
    }

    /// Whether the body is known or suspected to be worth a large buffer.
    fn is_long(&self) -> bool {
        self.decoder.remaining().is_none_or(|left| left > BULK_BUFFER as u64 / 2)
    }
}

/// What an upload goes by.
pub(super) struct Rules<'a> {
    /// The most octets of a body.
    pub(super) most: u64,
    /// The client is expected to send now.
    pub(super) hurry: bool,
    pub(super) timeouts: &'a Timeouts,
    pub(super) spare: &'a Spare,
}

/// The least rate of a body. Only time spent waiting for the client counts: an
/// app server that reads slowly is not the client's fault.
#[derive(Debug, Default)]
struct Rate {
    waited: Duration,
    since: Option<Instant>,
}

impl Rate {
    /// The client has nothing to read at the moment: for how long already?
    fn waits(&mut self, timeouts: &Timeouts) -> Result<(), Failure> {
        match self.since {
            Some(since) if since.elapsed() > timeouts.body => Err(Failure::BodyTimeout),
            Some(_) => Ok(()),
            None => {
                self.since = Some(Instant::now());
                Ok(())
            }
        }
    }

    fn moved(&mut self, received: u64, timeouts: &Timeouts) -> Result<(), Failure> {
        let Some(since) = self.since.take() else {
            return Ok(());
        };
        self.waited += since.elapsed();
        let due = timeouts.body_rate as f64 * self.waited.as_secs_f64();
        if self.waited > timeouts.body_rate_grace && (received as f64) < due {
            return Err(Failure::BodyTimeout);
        }
        Ok(())
    }
}
