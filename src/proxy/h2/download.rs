//! The response on its way to the client: what HTTP/1 framed becomes HEADERS
//! and DATA frames, never more of them than the client's windows have room for.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response};

use super::head;
use crate::http1::head::{parse_response, storage};
use crate::http1::{Buffer, Decoder, Emit, Framing};
use crate::limits::{BUFFER, INTERIM_MAX, RESPONSE_HEAD_MAX};
use crate::proxy::downstream::Taken;
use crate::proxy::respond::Text;
use crate::proxy::{Failure, response};
use crate::upstream::{Connection, Spare};

/// How far a response has come.
pub(super) struct Download {
    respond: SendResponse<Bytes>,
    /// Once its head has been sent.
    stream: Option<SendStream<Bytes>>,
    head: Option<Response<()>>,
    piece: Bytes,
    trailers: Option<HeaderMap>,
    decoder: Decoder,
    interims: u32,
    /// END_STREAM has been sent.
    ended: bool,
    pub(super) status: Option<u16>,
    pub(super) upstream_keeps: bool,
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
            decoder: Decoder::new(Framing::Empty),
            interims: 0,
            ended: false,
            status: None,
            upstream_keeps: false,
            sent: 0,
        }
    }

    /// Whether the client has been sent some of the final response.
    pub(super) fn is_under_way(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether the body has been read to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.decoder.is_done()
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
        spare: &Spare,
        is_head: bool,
    ) -> Result<Taken, Failure> {
        let mut fields = storage();
        let head = match parse_response(upstream.buffer.filled(), &mut fields) {
            Ok(Some(head)) => head,
            Ok(None) if upstream.buffer.len() >= RESPONSE_HEAD_MAX => {
                return Err(Failure::BadResponse("response head too long"));
            }
            Ok(None) => {
                if upstream.buffer.is_full() {
                    spare.enlarge(&mut upstream.buffer);
                }
                return Ok(Taken::Part);
            }
            Err(_) => return Err(Failure::BadResponse("malformed response head")),
        };
        let seen = response::look(&head, is_head).map_err(Failure::BadResponse)?;
        let length = head.len;
        let raw = upstream.buffer.filled();
        let taken = if head.status >= 200 {
            self.head = Some(head::response(&head, &seen, is_head, raw)?);
            self.status = Some(head.status);
            self.decoder = Decoder::new(seen.framing);
            self.upstream_keeps = seen.keep_alive;
            Taken::Final
        } else {
            self.interims += 1;
            if head.status == 101 || self.interims > INTERIM_MAX {
                return Err(Failure::BadResponse("unasked interim response"));
            }
            let interim = head::interim(&head, &seen, raw)?;
            self.respond.send_informational(interim).map_err(|_| Failure::ClientGone)?;
            Taken::Interim
        };
        upstream.buffer.consume(length);
        Ok(taken)
    }

    /// A response of our own instead.
    pub(super) fn answer(&mut self, text: Text, is_head: bool) -> Result<(), Failure> {
        self.status = Some(text.status);
        self.head = Some(head::own(&text)?);
        self.decoder = Decoder::new(Framing::Empty);
        if !is_head {
            self.piece = text.body.into();
        }
        Ok(())
    }

    /// A response that has no body and says what went wrong in gRPC's way.
    pub(super) fn answer_grpc(&mut self, code: u32, message: &str) -> Result<(), Failure> {
        self.status = Some(200);
        self.head = Some(head::grpc(code, message)?);
        self.decoder = Decoder::new(Framing::Empty);
        Ok(())
    }

    /// Decodes what is buffered; `true` if something was used up.
    pub(super) fn stage(&mut self, buffer: &mut Buffer) -> Result<bool, Failure> {
        if self.decoder.is_done() || !self.piece.is_empty() {
            return Ok(false);
        }
        let decoded = self.decoder.decode(buffer.filled_mut(), Emit::Data);
        let progress = decoded.map_err(|error| Failure::Truncated(error.0))?;
        self.piece = Bytes::copy_from_slice(&buffer.filled()[..progress.produced]);
        let mut spent = progress.consumed;
        if let Some(trailer) = progress.trailer {
            let section = &buffer.filled()[spent..spent + trailer];
            self.trailers = head::trailers(section)?;
            spent += trailer;
        }
        buffer.consume(spent);
        Ok(spent > 0)
    }

    /// Reads more of the body.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        spare: &Spare,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        if upstream.buffer.is_full() {
            return Poll::Ready(Err(Failure::Truncated("chunk framing too long")));
        }
        let room = upstream.buffer.spare();
        let size = room.len();
        match ready!(upstream.socket.poll_read(cx, room)) {
            Ok(0) => {
                let ended = self.decoder.end_of_input();
                Poll::Ready(ended.map_err(|error| Failure::Truncated(error.0)))
            }
            Ok(n) => {
                upstream.buffer.fill(n);
                *moved += n as u64;
                if n == size && upstream.buffer.capacity() == BUFFER {
                    spare.enlarge(&mut upstream.buffer);
                }
                Poll::Ready(Ok(()))
            }
            Err(_) => Poll::Ready(Err(Failure::Truncated("the app server reset its connection"))),
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
        let whole = self.decoder.is_done();
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
