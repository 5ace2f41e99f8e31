//! The request on its way to the app server: DATA frames become a body that is
//! framed the way HTTP/1 does it.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;

use super::sections::Sections;
use crate::http1::Framing;
use crate::http1::body::{BodyError, chunk_line};
use crate::limits::{BUFFER, COPY_MAX, TRAILER_COUNT_MAX, TRAILER_MAX};
use crate::proxy::Failure;
use crate::proxy::downstream::{Progress, Rate, Rules, State};
use crate::proxy::outbound::poll_write_all;
use crate::proxy::request::is_field;
use crate::proxy::response::put_field;
use crate::proxy::trailer;
use crate::upstream::Connection;

/// How far a request has been sent.
pub(super) struct Upload {
    /// Until the app server takes no more.
    body: Option<RecvStream>,
    sections: Rc<Sections>,
    stream: u32,
    framing: Framing,
    /// The octets on their way: small pieces that were put together, a chunk's size
    /// line, its data, what follows them.
    line: Vec<u8>,
    /// Octets of data in `line`.
    gathered: usize,
    piece: Bytes,
    suffix: Vec<u8>,
    /// The last octet of a body whose length was told, until the stream has
    /// ended: as long as it is missing, what comes too much or wrong behind it
    /// can still be refused.
    last: Bytes,
    /// Octets of all that, the head before it included, that the kernel took.
    sent: usize,
    head_sent: bool,
    /// The stream has nothing more; what is on its way is the end.
    ended: bool,
    pub(super) progress: Progress,
    rate: Rate,
}

impl Upload {
    pub(super) fn new(body: RecvStream, framing: Framing, sections: Rc<Sections>) -> Self {
        let ended = body.is_end_stream();
        let stream = body.stream_id().into();
        sections.enter(stream);
        Upload {
            body: Some(body),
            sections,
            stream,
            framing,
            line: Vec::new(),
            gathered: 0,
            piece: Bytes::new(),
            suffix: Vec::new(),
            last: Bytes::new(),
            sent: 0,
            head_sent: false,
            ended,
            progress: Progress::new(),
            rate: Rate::default(),
        }
    }

    /// The upload of an extended CONNECT: there is none, and what follows the head waits
    /// for another protocol.
    pub(super) fn withheld(body: RecvStream, sections: Rc<Sections>) -> Self {
        let mut upload = Upload::new(body, Framing::Empty, sections);
        upload.ended = true;
        upload
    }

    /// What follows the head.
    pub(super) fn take_body(&mut self) -> Option<RecvStream> {
        self.body.take()
    }

    /// Starts over on another connection.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
        self.head_sent = false;
        self.progress.written = 0;
        self.progress.state = State::Upstream;
    }

    /// A request without body that has not ended may still turn out to be none:
    /// waits for its end.
    pub(super) fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
        rules: &Rules<'_>,
    ) -> Poll<Result<(), Failure>> {
        while self.framing == Framing::Empty && !self.ended {
            if self.poll_next(cx, rules)?.is_pending() {
                self.wait(rules)?;
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        upstream: &mut Connection,
        rules: &Rules<'_>,
    ) -> Result<(), Failure> {
        while matches!(self.progress.state, State::Client | State::Upstream) {
            match self.poll_flush(cx, head, upstream) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.progress.state = State::Broken;
                    // What nobody has seen any of may be sent again, body and all.
                    if self.progress.written > 0 {
                        self.let_go();
                    }
                    return Ok(());
                }
                Poll::Pending => {
                    self.progress.state = State::Upstream;
                    return Ok(());
                }
            }
            if self.ended {
                self.progress.state = State::Done;
            } else if self.poll_gather(cx, rules)?.is_pending() {
                return self.wait(rules);
            }
        }
        Ok(())
    }

    /// Takes what there is of the body, small pieces put together: each by itself
    /// would cost the app server and us a system call.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        rules: &Rules<'_>,
    ) -> Result<Poll<()>, Failure> {
        loop {
            if self.poll_next(cx, rules)?.is_pending() {
                return Ok(if self.line.is_empty() { Poll::Pending } else { Poll::Ready(()) });
            }
            let small = self.piece.len() <= COPY_MAX && self.line.len() < BUFFER;
            if self.ended || !small {
                return Ok(Poll::Ready(()));
            }
            self.gathered += self.piece.len();
            self.line.extend_from_slice(&std::mem::take(&mut self.piece));
            self.line.append(&mut self.suffix);
        }
    }

    /// The client has to send more.
    fn wait(&mut self, rules: &Rules<'_>) -> Result<(), Failure> {
        self.progress.state = State::Client;
        if rules.hurry { self.rate.waits(rules.timeouts) } else { Ok(()) }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        upstream: &mut Connection,
    ) -> Poll<std::io::Result<()>> {
        let head = if self.head_sent { &[][..] } else { head };
        let parts = [head, &self.line, &self.piece, &self.suffix];
        let moved = &mut self.progress.written;
        ready!(poll_write_all(cx, &mut upstream.socket, parts, &mut self.sent, moved))?;
        self.head_sent = true;
        self.sent = 0;
        self.line.clear();
        self.suffix.clear();
        // Only what the app server has taken may the client replace: that is what
        // bounds the memory of an upload.
        self.release();
        Poll::Ready(Ok(()))
    }

    fn release(&mut self) {
        let taken = std::mem::take(&mut self.piece).len() + std::mem::take(&mut self.gathered);
        if let (1.., Some(body)) = (taken, &mut self.body) {
            // A stream that is gone has no window to open.
            let _gone = body.flow_control().release_capacity(taken);
        }
    }

    /// Takes nothing more: what the client sends on must not use up the window
    /// that all streams of its connection share.
    pub(super) fn let_go(&mut self) {
        self.release();
        self.body = None;
    }

    /// Takes the next piece of the body from the stream.
    fn poll_next(&mut self, cx: &mut Context<'_>, rules: &Rules<'_>) -> Result<Poll<()>, Failure> {
        let Some(body) = &mut self.body else { return Ok(Poll::Pending) };
        match body.poll_data(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Some(Ok(mut data))) => {
                self.progress.received += data.len() as u64;
                if self.progress.received > rules.most {
                    return Err(Failure::BodyTooLarge);
                }
                self.rate.moved(self.progress.received, rules.timeouts)?;
                // An empty chunk would be the end of the body.
                if self.framing == Framing::Chunked && !data.is_empty() {
                    let mut text = [0; 18];
                    let n = chunk_line(data.len() as u64, &mut text);
                    self.line.extend_from_slice(&text[..n]);
                    self.suffix.extend_from_slice(b"\r\n");
                }
                let whole = self.framing == Framing::Length(self.progress.received);
                if whole && !data.is_empty() && !body.is_end_stream() {
                    self.last = data.split_off(data.len() - 1);
                }
                self.piece = data;
            }
            Poll::Ready(Some(Err(error))) => return Err(broken(&error)),
            Poll::Ready(None) => {
                let Poll::Ready(trailers) = body.poll_trailers(cx) else {
                    return Ok(Poll::Pending);
                };
                let trailers = trailers.map_err(|error| broken(&error))?;
                if let Some(fields) = &trailers {
                    if !self.sections.had(self.stream, fields.len()) {
                        return Err(Failure::ClientBody(BodyError("pseudo-header in trailers")));
                    }
                    if !fields.iter().all(|(name, value)| is_field(name, value)) {
                        return Err(Failure::ClientBody(BodyError("bad trailer section")));
                    }
                }
                self.ended = true;
                self.piece = std::mem::take(&mut self.last);
                if self.framing == Framing::Chunked {
                    self.suffix.extend_from_slice(b"0\r\n");
                    put_trailers(trailers.as_ref(), rules.trailers, &mut self.suffix)?;
                }
            }
        }
        Ok(Poll::Ready(()))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sections.leave(self.stream);
    }
}

/// Who ended a stream before its end: the client, or its own bad framing.
fn broken(error: &h2::Error) -> Failure {
    if error.is_library() && error.is_reset() {
        Failure::ClientBody(BodyError("malformed stream"))
    } else {
        Failure::ClientGone
    }
}

/// Writes the section behind a body, no longer than one of HTTP/1 may be.
fn put_trailers(
    trailers: Option<&http::HeaderMap>,
    policy: trailer::Policy,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let (before, mut count) = (out.len(), 0);
    for (name, value) in trailers.into_iter().flatten() {
        if policy.lets(name.as_str()) {
            put_field(name.as_str().as_bytes(), value.as_bytes(), out);
            count += 1;
        }
    }
    out.extend_from_slice(b"\r\n");
    if count > TRAILER_COUNT_MAX || out.len() - before > TRAILER_MAX {
        return Err(Failure::ClientBody(BodyError("trailer section too long")));
    }
    Ok(())
}
