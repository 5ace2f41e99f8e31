//! The response as it comes from the app server: its heads, then its body piece
//! by piece. What the client's protocol makes of it is not decided here.

use std::task::{Context, Poll, ready};

use super::Failure;
use super::downstream::Taken;
use super::request::Upgrade;
use super::response::{Seen, look};
use crate::http1::body::Progress;
use crate::http1::head::{parse_response, storage};
use crate::http1::{Buffer, Decoder, Emit, Framing, ResponseHead};
use crate::limits::{BUFFER, INTERIM_MAX, RESPONSE_HEAD_MAX};
use crate::upstream::{Connection, Fault, Spare};

/// What stands for HTTP/2 where HTTP/1 has its minor version.
pub(super) const HTTP_2: u8 = 2;

/// How far a response has been read.
pub(super) struct Inbound {
    decoder: Decoder,
    interims: u32,
    /// The final head's status, once it has come, or that of an answer of our own.
    pub(super) status: Option<u16>,
    /// The app server keeps its connection.
    pub(super) upstream_keeps: bool,
}

impl Inbound {
    /// A response of which nothing has come.
    pub(super) fn new() -> Self {
        let decoder = Decoder::new(Framing::Empty);
        Inbound { decoder, interims: 0, status: None, upstream_keeps: false }
    }

    /// Whether the body has been read to its end.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Forgets a final response; the interim ones were sent.
    pub(super) fn take_back(&mut self) {
        *self = Inbound { interims: self.interims, ..Inbound::new() };
    }

    /// A response of our own takes its place; there is nothing to read.
    pub(super) fn replace(&mut self, status: u16) {
        self.take_back();
        self.status = Some(status);
    }

    /// Takes the head at the front of the buffer, if it is all there; `put`
    /// makes it ready for the client.
    pub(super) fn take_head(
        &mut self,
        upstream: &mut Connection,
        spare: &Spare,
        (is_head, upgrade): (bool, Option<&Upgrade>),
        put: impl FnOnce(&ResponseHead<'_, '_>, &Seen) -> Result<(), Failure>,
    ) -> Result<Taken, Failure> {
        let mut fields = storage();
        let mut head = match parse_response(upstream.buffer.filled(), &mut fields) {
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
        let seen = look(&head, is_head).map_err(Failure::BadResponse)?;
        let length = head.len;
        let taken = if head.status >= 200 {
            self.status = Some(head.status);
            self.decoder = Decoder::new(seen.framing);
            self.upstream_keeps = seen.keep_alive;
            Taken::Final
        } else if let (101, Some(upgrade)) = (head.status, upgrade) {
            upgrade.check(&head).map_err(Failure::BadResponse)?;
            self.status = Some(head.status);
            Taken::Switch
        } else {
            self.interims += 1;
            if head.status == 101 || self.interims > INTERIM_MAX {
                return Err(Failure::BadResponse("unasked interim response"));
            }
            Taken::Interim
        };
        if upstream.socket.is_stream() {
            head.minor = HTTP_2;
        }
        put(&head, &seen)?;
        upstream.buffer.consume(length);
        Ok(taken)
    }

    /// Decodes what is buffered of the body.
    #[inline]
    pub(super) fn decode(&mut self, buffer: &mut Buffer, emit: Emit) -> Result<Progress, Failure> {
        let decoded = self.decoder.decode(buffer.filled_mut(), emit);
        decoded.map_err(|error| Failure::Truncated(error.0))
    }

    /// Reads more of the body; `true` when its end was the connection's.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        spare: &Spare,
        moved: &mut u64,
    ) -> Poll<Result<bool, Failure>> {
        if upstream.buffer.is_full() {
            return Poll::Ready(Err(Failure::Truncated("chunk framing too long")));
        }
        let room = upstream.buffer.spare();
        let size = room.len();
        Poll::Ready(match ready!(upstream.socket.poll_read(cx, room)) {
            Ok(0) => {
                let ended = self.decoder.end_of_input();
                ended.map(|()| true).map_err(|error| Failure::Truncated(error.0))
            }
            Ok(n) => {
                upstream.buffer.fill(n);
                *moved += n as u64;
                if n == size && upstream.buffer.capacity() == BUFFER {
                    spare.enlarge(&mut upstream.buffer);
                }
                Ok(false)
            }
            Err(_) => Err(Failure::Truncated(match upstream.socket.fault() {
                Some(Fault::Malformed) => "the app server broke the rules of HTTP/2",
                Some(Fault::Reset(_)) => "the app server reset the stream",
                _ => "the app server reset its connection",
            })),
        })
    }
}
