//! The response as it comes from the app server: its heads, then its body piece
//! by piece. What the client's protocol makes of it is not decided here.

use std::task::{Context, Poll, ready};

use super::Failure;
use super::downstream::Taken;
use super::flow::Flow;
use super::request::Upgrade;
use super::response::{Seen, look};
use crate::http1::body::Progress;
use crate::http1::head::{parse_response, storage};
use crate::http1::{Buffer, Decoder, Emit, Framing, ResponseHead};
use crate::limits::{BUFFER, H2_TRAILER_MAX, INTERIM_MAX, RESPONSE_HEAD_MAX};
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
    /// The body is a stream of events.
    pub(super) is_events: bool,
    /// It is the answer to a gRPC call.
    pub(super) is_grpc: bool,
    /// The body is coded.
    pub(super) is_coded: bool,
    /// The body is followed, since it may have to be ended.
    flow: Option<Box<Flow>>,
    /// It was.
    pub(super) was_told: bool,
    /// Why the app server reset its stream in the middle of it.
    pub(super) reset: Option<h2::Reason>,
}

impl Inbound {
    /// A response of which nothing has come.
    pub(super) fn new() -> Self {
        let decoder = Decoder::new(Framing::Empty);
        Inbound {
            decoder,
            interims: 0,
            status: None,
            upstream_keeps: false,
            is_events: false,
            is_grpc: false,
            is_coded: false,
            flow: None,
            was_told: false,
            reset: None,
        }
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
            if upstream.socket.is_stream() {
                self.decoder = Decoder::new(seen.framing).with_section(H2_TRAILER_MAX);
            }
            self.upstream_keeps = seen.keep_alive;
            (self.is_events, self.is_grpc) = (seen.is_events, seen.is_grpc);
            self.is_coded = seen.is_coded;
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
        if self.flow.is_some() {
            return self.decode_followed(buffer);
        }
        let decoded = self.decoder.decode(buffer.filled_mut(), emit);
        decoded.map_err(|error| Failure::Truncated(error.0))
    }

    /// The same for a body that is followed: only data, and no more of it than up to the
    /// place where the body ends.
    fn decode_followed(&mut self, buffer: &mut Buffer) -> Result<Progress, Failure> {
        let Some(flow) = &mut self.flow else { return Ok(Progress::default()) };
        let octets = buffer.filled_mut();
        let window = flow.window(octets.len(), self.decoder.border());
        let decoded = self.decoder.decode(&mut octets[..window], Emit::Data);
        let mut progress = decoded.map_err(|error| Failure::Truncated(error.0))?;
        if !progress.done {
            let at_border = self.decoder.border() == Some(0);
            if let Some(end) = flow.pass(&octets[..progress.produced], at_border) {
                progress.produced = end;
                self.end();
            }
        }
        Ok(progress)
    }

    /// Octets still to come of the chunk that is under way; `None` if the body cannot be
    /// ended by anybody but the app server.
    pub(super) fn border(&self) -> Option<u64> {
        self.decoder.border()
    }

    /// Follows the body from here on.
    pub(super) fn follow(&mut self, flow: Flow) {
        self.flow = Some(Box::new(flow));
    }

    /// The body is to end as soon as it may.
    pub(super) fn ask_for_end(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.ask();
        }
    }

    /// Whether its end has been asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.is_asked())
    }

    /// Nothing more is there to be read: ends the body if it is to and may.
    pub(super) fn rest(&mut self) -> bool {
        let at_border = self.decoder.border() == Some(0);
        let ends = self.flow.as_mut().is_some_and(|flow| flow.rest(at_border));
        if ends {
            self.end();
        }
        ends
    }

    /// Ends the body here. The app server's connection is of no more use.
    fn end(&mut self) {
        self.decoder = Decoder::new(Framing::Empty);
        self.upstream_keeps = false;
        self.was_told = true;
    }

    /// Whether a body that was ended needs a gRPC status behind it.
    pub(super) fn lacks_status(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.is_call())
    }

    /// What is said at the end of a body that was ended.
    pub(super) fn farewell(&self) -> Option<String> {
        self.flow.as_ref().and_then(|flow| flow.farewell())
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
            // Of an app server that has died, the kernel says the same.
            Ok(0) if self.flow.as_ref().is_some_and(|flow| flow.is_inside()) => {
                Err(Failure::Truncated("the app server ended inside an event"))
            }
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
                Some(Fault::Reset(reason)) => {
                    self.reset = Some(reason);
                    "the app server reset the stream"
                }
                _ => "the app server reset its connection",
            })),
        })
    }
}
