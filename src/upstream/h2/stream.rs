//! One request and its response on a shared connection, in octets of HTTP/1.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;

use super::down::Down;
use super::link::Place;
use super::up::{Begun, Up};
use crate::limits::H2_TAKE_BACK_MAX;

/// A stream: the request is written to it and the response is read from it, as if it
/// were a connection of HTTP/1 that serves one request.
#[derive(Debug)]
pub struct Stream {
    up: Up,
    down: Option<Down>,
    /// What was written of the body, until the app server answers or it is too much.
    body: Option<Vec<u8>>,
    fault: Option<Fault>,
    // The last field: the place is free when h2 knows that the stream is gone.
    place: Place,
}

/// Why there is no response, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The app server has certainly not worked on the request: it refused the stream, or
    /// went away before it.
    Refused,
    /// It reset the stream.
    Reset(Reason),
    /// What it sent is not HTTP/2.
    Malformed,
    /// The connection is gone.
    Lost,
    /// The request is none that HTTP/2 can carry; says what.
    Unfit(&'static str),
}

impl Fault {
    /// What an error of the library says of a stream.
    pub(super) fn of(error: &h2::Error) -> Self {
        match error.reason() {
            // Only streams beyond the last that it took hear of a GOAWAY.
            _ if error.is_go_away() && error.is_remote() => Fault::Refused,
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Fault::Refused,
            Some(reason) if error.is_remote() => Fault::Reset(reason),
            Some(_) => Fault::Malformed,
            None => Fault::Lost,
        }
    }
}

impl Stream {
    pub(super) fn new(place: Place, send: SendRequest<Bytes>, secure: bool) -> Self {
        let up = Up::new(send, secure);
        Stream { up, down: None, body: Some(Vec::new()), fault: None, place }
    }

    /// What has gone wrong, if anything has.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the connection has answered a request before.
    pub(in crate::upstream) fn is_proven(&self) -> bool {
        self.place.0.proven.get()
    }

    /// See [`super::super::Wire::take_back`].
    pub(in crate::upstream) fn take_back(&mut self) -> Option<Vec<u8>> {
        self.body.take()
    }

    /// Takes octets of the request; the first are its whole head.
    pub(in crate::upstream) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.down.is_none() && self.fault.is_none() {
            match self.up.begin(octets) {
                Ok(Begun { response, has_body }) => {
                    self.down = Some(Down::new(response, has_body));
                    return Poll::Ready(Ok(octets.len()));
                }
                Err(fault) => self.fault = Some(fault),
            }
        }
        match self.up.poll_write(cx, octets) {
            Poll::Ready(Ok(n)) => {
                self.keep(&octets[..n]);
                Poll::Ready(Ok(n))
            }
            other => self.unless_answered(other),
        }
    }

    /// Waits until all that was written has had room in the windows.
    pub(in crate::upstream) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.up.poll_send(cx);
        self.unless_answered(flushed)
    }

    /// A stream that takes no more may have been answered, or refused: as long as that
    /// is not known, it is for the reader to say.
    fn unless_answered<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let answered = self.down.as_ref().is_some_and(Down::is_answered);
        match done {
            // Nobody else finds that out: without a word of ours the reader waits for ever.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                self.fault = Some(Fault::Unfit("request body"));
                Poll::Ready(Err(error))
            }
            Poll::Ready(Err(_)) if !answered => Poll::Pending,
            done => done,
        }
    }

    fn keep(&mut self, octets: &[u8]) {
        if let Some(body) = &mut self.body {
            if body.len() + octets.len() <= H2_TAKE_BACK_MAX {
                body.extend_from_slice(octets);
            } else {
                self.body = None;
            }
        }
    }

    /// Gives octets of the response; 0 is its end.
    pub(in crate::upstream) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.fault.is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(down) = &mut self.down else { return Poll::Pending };
        let before = down.is_answered();
        let read = down.poll_read(cx, into);
        if !before && down.is_answered() {
            self.place.0.proven.set(true);
            self.body = None;
        }
        read.map_err(|fault| {
            self.fault = Some(fault);
            io::ErrorKind::ConnectionReset.into()
        })
    }

    /// Whether the app server reads no more of the request.
    pub(in crate::upstream) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.up.poll_reset(cx)
    }
}
