//! The client's side of a tunnel: a socket of its own, or a stream of HTTP/2.
//!
//! | over HTTP/1.1 | over HTTP/2 (RFC 8441 section 5) |
//! | --- | --- |
//! | octets | DATA |
//! | FIN | END_STREAM |
//! | a reset | RST_STREAM, CANCEL from our side |
//! | a full socket buffer | a window without room |

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use crate::net::Socket;
use crate::tls::Session;

/// What a relay does with a side.
pub(super) trait Leg {
    /// Reads what is there; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// What was read has been taken by the other side: the peer may send as much again.
    fn release(&mut self);

    /// Looks after a peer of which nothing is read at the moment; an error if it is gone
    /// and that shows.
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Whether the end that was just read may be somebody else's.
    fn ends_uncleanly(&self) -> bool;

    /// Writes as much as there is room for.
    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>>;

    /// Waits until what was written is on its way.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether what was written may still have to be flushed.
    fn holds_back(&self) -> bool;

    /// Says that nothing more will be written.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Leg for Socket {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Socket::poll_read(self, cx, into)
    }

    /// The kernel sees that for itself.
    #[inline]
    fn release(&mut self) {}

    /// What is not read shows nothing.
    #[inline]
    fn watch(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }

    /// TLS without close_notify.
    fn ends_uncleanly(&self) -> bool {
        self.tls().is_some_and(|tls: &Session| !tls.is_closed())
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll_write(self, cx, octets)
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_flush(self, cx)
    }

    #[inline]
    fn holds_back(&self) -> bool {
        self.is_tls()
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_end(self, cx)
    }
}

/// A stream of HTTP/2.
///
/// Its window is given back only as the other side takes what came, so it is all that a
/// client can make us hold.
pub(super) struct Stream {
    to: SendStream<Bytes>,
    from: RecvStream,
    /// What has come and was not read.
    piece: Bytes,
    /// The same in small pieces put together, and how many octets of it were read. h2
    /// reckons each piece dear, and ends a connection on which too many wait.
    gathered: Vec<u8>,
    read: usize,
    /// Octets of the window that were not given back.
    owed: usize,
    /// It ended so, behind what has come.
    end: Option<Ended>,
    /// We have said that nothing more will be written.
    finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Cleanly,
    Broken,
}

impl Stream {
    pub(super) fn new(to: SendStream<Bytes>, from: RecvStream) -> Self {
        let (piece, gathered) = (Bytes::new(), Vec::new());
        Stream { to, from, piece, gathered, read: 0, owed: 0, end: None, finished: false }
    }

    /// Ends it without an end.
    pub(super) fn reset(&mut self) {
        self.to.send_reset(Reason::CANCEL);
    }

    /// Forgets what comes until the client ends its side, or is gone.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (self.piece, self.gathered) = (Bytes::new(), Vec::new());
        while let Some(data) = ready!(self.poll_data(cx)) {
            self.owed += data.len();
            self.release();
        }
        Poll::Ready(())
    }

    /// The next piece that has come; none at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        // What stands behind the data is of no other use: a tunnel has no trailers.
        self.end = Some(match ready!(self.from.poll_data(cx)) {
            Some(Ok(data)) => return Poll::Ready(Some(data)),
            Some(Err(_)) => Ended::Broken,
            None => Ended::Cleanly,
        });
        Poll::Ready(None)
    }

    /// Moves what has come into `into`; how much.
    fn take(&mut self, into: &mut [u8]) -> usize {
        let gathered = &self.gathered[self.read..];
        let n = gathered.len().min(into.len());
        into[..n].copy_from_slice(&gathered[..n]);
        self.read += n;
        if self.read == self.gathered.len() {
            (self.gathered, self.read) = (Vec::new(), 0);
        }
        let rest = &mut into[n..];
        let m = self.piece.len().min(rest.len());
        rest[..m].copy_from_slice(&self.piece.split_to(m));
        self.owed += n + m;
        n + m
    }
}

impl Leg for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut n = self.take(into);
        // Small messages are put together: each by itself would cost a system call.
        while n < into.len() {
            match self.poll_data(cx) {
                Poll::Ready(Some(data)) => {
                    self.piece = data;
                    n += self.take(&mut into[n..]);
                }
                _ if n > 0 => break,
                Poll::Ready(None) if self.end == Some(Ended::Broken) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(n))
    }

    fn release(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 {
            // A stream that is gone has no window to open.
            let _gone = self.from.flow_control().release_capacity(owed);
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(Some(data)) = self.poll_data(cx) {
            if !self.piece.is_empty() {
                self.gathered.extend_from_slice(&std::mem::take(&mut self.piece));
            }
            self.gathered.extend_from_slice(&data);
        }
        let gone = self.end == Some(Ended::Broken) || self.to.poll_reset(cx).is_ready();
        if gone { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// END_STREAM is nobody else's.
    fn ends_uncleanly(&self) -> bool {
        false
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.to.reserve_capacity(octets.len());
        let room = match self.to.capacity() {
            0 => match ready!(self.to.poll_capacity(cx)) {
                Some(room) => room.map_err(|_| gone())?,
                None => return Poll::Ready(Err(gone())),
            },
            room => room,
        };
        let part = Bytes::copy_from_slice(&octets[..room.min(octets.len())]);
        let n = part.len();
        self.to.send_data(part, false).map_err(|_| gone())?;
        Poll::Ready(Ok(n))
    }

    /// What had room in the window is h2's.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn holds_back(&self) -> bool {
        false
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.finished, true) {
            return Poll::Ready(Ok(()));
        }
        let ended = self.to.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }
}
