//! The request on its way to the app server: head, body, trailers.

use std::task::{Context, Poll};

use super::client::Client;
use crate::http1::body::BodyError;
use crate::http1::{Buffer, Decoder, Emit, Framing};
use crate::limits::{BUFFER, BULK_BUFFER};
use crate::proxy::Failure;
use crate::proxy::downstream::{Progress, Rate, Rules, State};
use crate::proxy::outbound::Outbound;
use crate::proxy::trailer;
use crate::upstream::Connection;

/// How far a request has been sent.
pub(super) struct Upload {
    decoder: Decoder,
    chunked: bool,
    out: Outbound,
    head_sent: bool,
    pub(super) progress: Progress,
    rate: Rate,
}

impl Upload {
    pub(super) fn new(framing: Framing) -> Self {
        Upload {
            decoder: Decoder::new(framing),
            chunked: framing == Framing::Chunked,
            out: Outbound::default(),
            head_sent: false,
            progress: Progress::new(),
            rate: Rate::default(),
        }
    }

    /// Starts over on another connection.
    pub(super) fn restart(&mut self) {
        self.out.rewind();
        self.progress.written = 0;
        self.progress.state = State::Upstream;
        self.head_sent = false;
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
        while matches!(self.progress.state, State::Client | State::Upstream) {
            let prefix = if self.head_sent { &[][..] } else { head };
            let socket = &mut upstream.socket;
            let buffer = &mut client.buffer;
            match self.out.poll_flush(cx, socket, prefix, buffer, &mut self.progress.written) {
                Poll::Ready(Ok(())) => self.head_sent = true,
                Poll::Ready(Err(_)) => self.progress.state = State::Broken,
                Poll::Pending => {
                    self.progress.state = State::Upstream;
                    return Ok(());
                }
            }
            if self.progress.state != State::Broken && !self.step(cx, client, rules)? {
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
            self.progress.state = State::Done;
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
            trailer::write(section, rules.trailers, &mut self.out.suffix)
                .ok_or(Failure::ClientBody(BodyError("bad trailer section")))?;
            spent += trailer;
        }
        self.progress.received += spent as u64;
        if self.progress.received > rules.most {
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
                self.rate.moved(self.progress.received, rules.timeouts)?;
                if n == room && client.buffer.capacity() == BUFFER && self.is_long() {
                    rules.spare.enlarge(&mut client.buffer);
                }
                Ok(true)
            }
            Poll::Pending => {
                self.progress.state = State::Client;
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
