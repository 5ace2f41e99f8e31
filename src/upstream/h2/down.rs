//! The response on its way back: HEADERS and DATA become octets of HTTP/1.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};

use super::stream::Fault;
use super::up::is_of_connection;
use crate::http1::body::chunk_line;

/// How far a response has come.
pub(super) struct Down {
    /// Until the final head is there.
    response: Option<ResponseFuture>,
    /// From then on.
    body: Option<RecvStream>,
    has_body: bool,
    shape: Shape,
    /// The stream has to end before the head is told: nothing follows that could wait.
    held: bool,
    /// Octets to be read before the data.
    text: Vec<u8>,
    read: usize,
    data: Bytes,
    /// What has still to come behind the data.
    after: After,
}

/// How the body is framed for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// There is none.
    None,
    /// So many octets have still to come. The last of them is told only when the
    /// stream has ended: then it is known to be the last.
    Length(u64),
    /// Chunks.
    Chunks,
    /// All of it has come.
    Over,
}

/// What follows the data.
#[derive(Debug)]
enum After {
    Nothing,
    /// The end of a chunk.
    LineEnd,
    /// The last octet, until the stream has ended.
    Last(Bytes),
}

impl Down {
    pub(super) fn new(response: ResponseFuture, has_body: bool) -> Self {
        Down {
            response: Some(response),
            body: None,
            has_body,
            shape: Shape::None,
            held: false,
            text: Vec::new(),
            read: 0,
            data: Bytes::new(),
            after: After::Nothing,
        }
    }

    /// Whether the final head has come.
    pub(super) fn is_answered(&self) -> bool {
        self.body.is_some()
    }

    /// Gives octets; 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Fault>> {
        let mut filled = 0;
        loop {
            filled += self.take_text(&mut into[filled..]);
            filled += self.take_data(&mut into[filled..]);
            if filled == into.len() {
                return Poll::Ready(Ok(filled));
            }
            match self.poll_next(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Err(fault)) if filled == 0 => return Poll::Ready(Err(fault)),
                Poll::Pending if filled == 0 => return Poll::Pending,
                // What is wrong is wrong again the next time.
                _ => return Poll::Ready(Ok(filled)),
            }
        }
    }

    fn take_text(&mut self, into: &mut [u8]) -> usize {
        let rest = &self.text[self.read..];
        if rest.is_empty() || self.held {
            return 0;
        }
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        self.read += n;
        if self.read == self.text.len() {
            self.text.clear();
            self.read = 0;
        }
        n
    }

    fn take_data(&mut self, into: &mut [u8]) -> usize {
        if !self.text.is_empty() || self.data.is_empty() {
            return 0;
        }
        let n = self.data.len().min(into.len());
        into[..n].copy_from_slice(&self.data.split_to(n));
        self.release(n);
        if self.data.is_empty() && matches!(self.after, After::LineEnd) {
            self.after = After::Nothing;
            self.text.extend_from_slice(b"\r\n");
        }
        n
    }

    /// Only what has been read may the app server replace.
    fn release(&mut self, octets: usize) {
        if let Some(body) = &mut self.body {
            // A stream that is gone has no window to open.
            let _gone = body.flow_control().release_capacity(octets);
        }
    }

    /// Gets something more to be read; `false` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        if !self.text.is_empty() && !self.held {
            return Poll::Ready(Ok(true));
        }
        if let Some(response) = &mut self.response {
            if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                let interim = interim.map_err(|error| Fault::of(&error))?;
                write_head(&interim, None, &mut self.text);
                return Poll::Ready(Ok(true));
            }
            let response = ready!(Pin::new(response).poll(cx));
            let (head, body) = response.map_err(|error| Fault::of(&error))?.into_parts();
            self.response = None;
            self.take_head(&Response::from_parts(head, ()), body)?;
            return Poll::Ready(Ok(true));
        }
        if self.shape == Shape::Over {
            return Poll::Ready(Ok(false));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(Err(Fault::Lost)) };
        match ready!(body.poll_data(cx)) {
            Some(data) => self.take(data.map_err(|error| Fault::of(&error))?)?,
            None => {
                let trailers = ready!(body.poll_trailers(cx));
                self.end(trailers.map_err(|error| Fault::of(&error))?.as_ref())?;
            }
        }
        Poll::Ready(Ok(true))
    }

    fn take_head(&mut self, head: &Response<()>, body: RecvStream) -> Result<(), Fault> {
        let empty = body.is_end_stream();
        let status = head.status();
        let bodiless = !self.has_body
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let length = head.headers().get(CONTENT_LENGTH);
        // Its trailers are its answer, and a body of a length has none.
        let is_grpc = is_grpc(head.headers());
        let said = match length.filter(|_| !is_grpc) {
            _ if bodiless => None,
            Some(length) => {
                let length = length.to_str().ok().and_then(|length| length.parse().ok());
                self.shape = Shape::Length(length.ok_or(Fault::Malformed)?);
                None
            }
            None if empty && !is_grpc => {
                self.shape = Shape::Length(0);
                Some("content-length: 0\r\n")
            }
            None => {
                self.shape = Shape::Chunks;
                Some("transfer-encoding: chunked\r\n")
            }
        };
        self.body = Some(body);
        write_head(head, said, &mut self.text);
        self.held = matches!(self.shape, Shape::None | Shape::Length(0));
        if empty { self.end(None) } else { Ok(()) }
    }

    /// Takes a piece of the body.
    fn take(&mut self, mut data: Bytes) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        let length = data.len() as u64;
        match &mut self.shape {
            Shape::Length(left) if *left >= length => {
                *left -= length;
                if *left == 0 {
                    self.after = After::Last(data.split_off(data.len() - 1));
                }
            }
            Shape::Chunks => {
                let mut line = [0; 18];
                let n = chunk_line(length, &mut line);
                self.text.extend_from_slice(&line[..n]);
                self.after = After::LineEnd;
            }
            Shape::None | Shape::Length(_) | Shape::Over => return Err(Fault::Malformed),
        }
        self.data = data;
        Ok(())
    }

    /// The stream has ended: so has the body, if it is whole.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Fault> {
        match self.shape {
            Shape::Length(left) if left > 0 => return Err(Fault::Malformed),
            Shape::Chunks => {
                self.text.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    put_field(name.as_str(), value.as_bytes(), &mut self.text);
                }
                self.text.extend_from_slice(b"\r\n");
            }
            Shape::None | Shape::Length(_) | Shape::Over => {}
        }
        if let After::Last(last) = std::mem::replace(&mut self.after, After::Nothing) {
            self.data = last;
        }
        self.shape = Shape::Over;
        self.held = false;
        Ok(())
    }
}

impl std::fmt::Debug for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Down").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Writes a head; `said` says how the body is framed, where its fields do not.
fn write_head(head: &Response<()>, said: Option<&str>, out: &mut Vec<u8>) {
    let status = head.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let chunked = said.is_some_and(|said| said.starts_with("transfer"));
    for (name, value) in head.headers() {
        let framed_anew = chunked && name == CONTENT_LENGTH;
        if !is_of_connection(name) && !framed_anew {
            put_field(name.as_str(), value.as_bytes(), out);
        }
    }
    out.extend_from_slice(said.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    kind.and_then(|kind| kind.get(..16))
        .is_some_and(|it| it.eq_ignore_ascii_case(b"application/grpc"))
}
