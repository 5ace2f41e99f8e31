//! The response on its way to the client: what HTTP/1 framed becomes HEADERS
//! and DATA frames, never more of them than the client's windows have room for.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response};

use super::head;
use crate::http1::{Buffer, Emit};
use crate::proxy::downstream::Taken;
use crate::proxy::inbound::Inbound;
use crate::proxy::respond::Text;
use crate::proxy::stamp::Stamp;
use crate::proxy::trailer::Policy;
use crate::proxy::{Failure, Proxy, Request};
use crate::upstream::Connection;

/// The one interim status that the client is not told of.
const SWITCHING: u16 = 101;

/// How far a response has come.
pub(super) struct Download {
    respond: SendResponse<Bytes>,
    /// Once its head has been sent.
    stream: Option<SendStream<Bytes>>,
    head: Option<Response<()>>,
    piece: Bytes,
    trailers: Option<HeaderMap>,
    policy: Policy,
    pub(super) inbound: Inbound,
    /// The final head is the answer to an extended CONNECT: no body follows, and no end.
    switched: bool,
    /// END_STREAM has been sent.
    ended: bool,
    /// Octets of the body that had room in the client's windows.
    pub(super) sent: u64,
}

impl Download {
    pub(super) fn new(respond: SendResponse<Bytes>) -> Self {
        Download {
            respond,
            stream: None,
            head: None,
            piece: Bytes::new(),
            trailers: None,
            policy: Policy::ALL,
            inbound: Inbound::new(),
            switched: false,
            ended: false,
            sent: 0,
        }
    }

    /// Whether the client has been sent some of the final response.
    pub(super) fn is_under_way(&self) -> bool {
        self.stream.is_some()
    }

    /// What a client is told whose response breaks off: what its app server says, where
    /// that speaks of the request. A stream that was refused or is in order is neither.
    pub(super) fn broken_off(&self) -> Reason {
        match self.inbound.reset {
            Some(said @ (Reason::CANCEL | Reason::ENHANCE_YOUR_CALM)) => said,
            _ => Reason::INTERNAL_ERROR,
        }
    }

    /// Whether something waits for being sent.
    pub(super) fn has_ready(&self) -> bool {
        self.head.is_some() || !self.piece.is_empty()
    }

    /// Takes the head at the front of the buffer. Interim responses go out at
    /// once: h2 keeps them in order.
    pub(super) fn take_head(
        &mut self,
        upstream: &mut Connection,
        proxy: &Proxy,
        request: &Request,
    ) -> Result<Taken, Failure> {
        let (respond, ready, policy) = (&mut self.respond, &mut self.head, &mut self.policy);
        let (is_head, wish) = (request.is_head, request.upgrade.as_deref());
        let taken =
            self.inbound.take_head(upstream, &proxy.spare, (is_head, wish), |head, seen| {
                if wish.is_some() && (200..300).contains(&head.status) {
                    // To its client that would be a tunnel (RFC 8441 section 4).
                    return Err(Failure::BadResponse("a success that is no 101"));
                }
                if head.status >= 200 {
                    *policy = seen.trailers();
                    *ready = Some(head::response(head, seen, is_head, &proxy.stamp)?);
                    return Ok(());
                }
                if head.status == SWITCHING {
                    *ready = Some(head::switched(head, seen, &proxy.stamp)?);
                    return Ok(());
                }
                let interim = head::interim(head, seen)?;
                respond.send_informational(interim).map_err(|_| Failure::ClientGone)
            })?;
        if taken == Taken::Switch {
            self.inbound.status = Some(200);
            self.switched = true;
        }
        Ok(taken)
    }

    /// The stream, once it is another protocol's.
    pub(super) fn into_stream(self) -> Option<SendStream<Bytes>> {
        self.stream
    }

    /// A response of our own instead.
    pub(super) fn answer(&mut self, text: Text, is_head: bool) -> Result<(), Failure> {
        self.inbound.replace(text.status);
        self.switched = false;
        self.head = Some(head::own(&text)?);
        if !is_head {
            self.piece = text.body.into();
        }
        Ok(())
    }

    /// A response that has no body and says what went wrong in gRPC's way.
    pub(super) fn answer_grpc(
        &mut self,
        stamp: &Stamp,
        failure: &Failure,
        handed: bool,
    ) -> Result<(), Failure> {
        self.inbound.replace(200);
        self.switched = false;
        self.head = Some(head::grpc(stamp, failure, handed)?);
        Ok(())
    }

    /// Decodes what is buffered; `true` if something was used up.
    pub(super) fn stage(&mut self, buffer: &mut Buffer) -> Result<bool, Failure> {
        if self.inbound.is_done() || !self.piece.is_empty() {
            return Ok(false);
        }
        let progress = self.inbound.decode(buffer, Emit::Data)?;
        self.piece = Bytes::copy_from_slice(&buffer.filled()[..progress.produced]);
        let mut spent = progress.consumed;
        if let Some(trailer) = progress.trailer {
            let section = &buffer.filled()[spent..spent + trailer];
            self.trailers = head::trailers(section, self.policy)?;
            spent += trailer;
        }
        buffer.consume(spent);
        if self.inbound.was_told {
            self.end_body();
        }
        Ok(spent > 0)
    }

    /// What is said behind the last piece of a body that was ended. END_STREAM follows
    /// what is ready.
    pub(super) fn end_body(&mut self) {
        if self.inbound.lacks_status() {
            self.trailers = Some(head::grpc_end());
        }
        if let Some(farewell) = self.inbound.farewell() {
            self.piece = [&self.piece[..], farewell.as_bytes()].concat().into();
        }
    }

    /// Sends what is ready, as far as the client's windows have room.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        let flushed = ready!(self.poll_frames(cx, moved));
        Poll::Ready(flushed.map_err(|_| Failure::ClientGone))
    }

    fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        moved: &mut u64,
    ) -> Poll<Result<(), h2::Error>> {
        let whole = self.inbound.is_done() && !self.switched;
        if let Some(head) = self.head.take() {
            let ends = whole && self.piece.is_empty() && self.trailers.is_none();
            self.stream = Some(self.respond.send_response(head, ends)?);
            self.ended = ends;
            *moved += 1;
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        while !self.piece.is_empty() {
            stream.reserve_capacity(self.piece.len());
            let room = match stream.capacity() {
                0 => match ready!(stream.poll_capacity(cx)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                },
                room => room,
            };
            let part = self.piece.split_to(room.min(self.piece.len()));
            let ends = whole && self.piece.is_empty() && self.trailers.is_none();
            *moved += part.len() as u64;
            self.sent += part.len() as u64;
            if !part.is_empty() || ends {
                stream.send_data(part, ends)?;
                self.ended |= ends;
            }
        }
        if whole && !self.ended {
            match self.trailers.take() {
                Some(trailers) => stream.send_trailers(trailers)?,
                None => stream.send_data(Bytes::new(), true)?,
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client has given the stream up, or is gone.
    pub(super) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> bool {
        let reset = match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.is_ready()
    }

    /// Ends the stream without an end.
    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}
