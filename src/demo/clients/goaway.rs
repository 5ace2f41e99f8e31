//! What h2 does not tell its user: up to which stream the proxy promised answers, and
//! how the connection ended.
//!
//! h2 reports a stream above the last id of GOAWAY, which is safe to repeat, and one
//! below it whose connection then ended, which is lost, by the same error. So the
//! frames that come are followed here, by their headers alone.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const HEADER_LEN: usize = 9;
const GOAWAY: u8 = 7;

/// What has been seen of the proxy.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last stream id of the last GOAWAY.
    pub(super) last: Option<u32>,
    /// The connection was reset.
    pub(super) is_reset: bool,
    header: Vec<u8>,
    /// Octets of the current frame's payload still to come.
    left: usize,
    /// The payload of a GOAWAY, as far as it has come.
    goaway: Option<Vec<u8>>,
}

impl Seen {
    /// Follows these octets of the proxy.
    fn follow(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            if self.left > 0 {
                let (payload, rest) = octets.split_at(self.left.min(octets.len()));
                self.left -= payload.len();
                octets = rest;
                if let Some(goaway) = &mut self.goaway {
                    goaway.extend_from_slice(payload);
                }
            } else {
                let (more, rest) =
                    octets.split_at((HEADER_LEN - self.header.len()).min(octets.len()));
                self.header.extend_from_slice(more);
                octets = rest;
                if self.header.len() < HEADER_LEN {
                    return;
                }
                let header = std::mem::take(&mut self.header);
                self.left = header[..3].iter().fold(0, |len, octet| len << 8 | usize::from(*octet));
                self.goaway = (header[3] == GOAWAY).then(Vec::new);
            }
            if self.left == 0
                && let Some(goaway) = self.goaway.take()
                && let Some(last) = goaway.first_chunk()
            {
                self.last = Some(u32::from_be_bytes(*last) & 0x7fff_ffff);
            }
        }
    }
}

/// A connection whose incoming frames are followed.
pub(super) struct Followed {
    pub(super) stream: TcpStream,
    pub(super) seen: Rc<RefCell<Seen>>,
}

impl AsyncRead for Followed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let mut seen = self.seen.borrow_mut();
        seen.is_reset |= outcome.is_err();
        seen.follow(&buffer.filled()[before..]);
        drop(seen);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Followed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_write(cx, octets));
        self.seen.borrow_mut().is_reset |= outcome.is_err();
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn the_last_goaway_counts_however_the_octets_come() {
        let first = frame(GOAWAY, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let data = frame(0, &[7; 300]);
        let last = frame(GOAWAY, &[0x80, 0, 0, 9, 0, 0, 0, 0, b'x']);
        let all = [frame(4, &[]), first, data, last, frame(6, &[0; 8])].concat();
        for size in [1, 2, 8, 9, 10, 100, all.len()] {
            let mut seen = Seen::default();
            let mut lasts = Vec::new();
            for part in all.chunks(size) {
                seen.follow(part);
                lasts.extend(seen.last);
            }
            lasts.dedup();
            assert_eq!(lasts.last(), Some(&9), "{size}");
            assert!(size > 100 || lasts.first() == Some(&0x7fff_ffff), "{size}: {lasts:?}");
            assert_eq!((seen.left, seen.header.len()), (0, 0), "{size}");
        }
    }
}
