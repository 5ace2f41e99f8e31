//! What is to be written next to a socket: some octets of our own, some that
//! lie in a read buffer, some of our own again.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::http1::Buffer;
use crate::net::Socket;
use crate::upstream::Wire;

/// Whatever takes the octets of a message.
pub(super) trait Outlet {
    /// Writes as much as is taken.
    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>>;

    /// Writes as much of several pieces as is taken.
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Waits until all that was written is on its way.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

macro_rules! outlet {
    ($kind:ty) => {
        impl Outlet for $kind {
            #[inline]
            fn poll_write(
                &mut self,
                cx: &mut Context<'_>,
                octets: &[u8],
            ) -> Poll<io::Result<usize>> {
                <$kind>::poll_write(self, cx, octets)
            }

            #[inline]
            fn poll_write_vectored(
                &mut self,
                cx: &mut Context<'_>,
                pieces: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                <$kind>::poll_write_vectored(self, cx, pieces)
            }

            #[inline]
            fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$kind>::poll_flush(self, cx)
            }
        }
    };
}

outlet!(Socket);
outlet!(Wire);

/// One piece of a message on its way out. The octets before it are given with
/// each call, because a request's head has to outlive its first attempt.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Octets at the front of the buffer to be written.
    ready: usize,
    /// Octets at the front of the buffer that are used up afterwards.
    spent: usize,
    /// What follows them.
    pub(super) suffix: Vec<u8>,
    /// Octets of all three that the kernel has taken.
    sent: usize,
}

impl Outbound {
    /// The next `ready` octets of the buffer are to be written; `spent` go with them.
    #[inline]
    pub(super) fn set(&mut self, ready: usize, spent: usize) {
        debug_assert!(self.ready == 0 && self.spent == 0 && ready <= spent);
        self.ready = ready;
        self.spent = spent;
    }

    /// Begins with the first octet again, on another socket.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// What was ready is not sent any more, but used up.
    pub(super) fn give_up(&mut self, buffer: &mut Buffer) {
        buffer.consume(self.spent);
        *self = Outbound::default();
    }

    /// Whether nothing has been given to the kernel yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.sent == 0
    }

    /// Whether there is anything to write but the octets before.
    pub(super) fn is_empty(&self) -> bool {
        self.ready == 0 && self.suffix.is_empty()
    }

    /// Writes until everything is written; adds what the kernel took to `moved`.
    #[inline]
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut impl Outlet,
        prefix: &[u8],
        buffer: &mut Buffer,
        moved: &mut u64,
    ) -> Poll<io::Result<()>> {
        let parts = [prefix, &buffer.filled()[..self.ready], &self.suffix];
        ready!(poll_write_all(cx, socket, parts, &mut self.sent, moved))?;
        buffer.consume(self.spent);
        self.suffix.clear();
        self.ready = 0;
        self.spent = 0;
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

/// Writes what of `parts` is left after `sent` octets, and waits until the
/// kernel has it; adds what it took to `moved`.
#[inline]
pub(super) fn poll_write_all<const N: usize>(
    cx: &mut Context<'_>,
    socket: &mut impl Outlet,
    parts: [&[u8]; N],
    sent: &mut usize,
    moved: &mut u64,
) -> Poll<io::Result<()>> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    while *sent < total {
        let taken = if *sent == 0 && parts[0].len() == total {
            ready!(socket.poll_write(cx, parts[0]))?
        } else {
            let mut pieces = [IoSlice::new(&[]); N];
            let count = remaining(parts, *sent, &mut pieces);
            match &pieces[..count] {
                [one] => ready!(socket.poll_write(cx, one))?,
                many => ready!(socket.poll_write_vectored(cx, many))?,
            }
        };
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *sent += taken;
        *moved += taken as u64;
    }
    socket.poll_flush(cx)
}

/// What of `parts` is left after `sent` octets, empty parts left out.
fn remaining<'a, const N: usize>(
    parts: [&'a [u8]; N],
    sent: usize,
    pieces: &mut [IoSlice<'a>; N],
) -> usize {
    let mut skip = sent;
    let mut count = 0;
    for part in parts {
        let rest = &part[skip.min(part.len())..];
        skip = skip.saturating_sub(part.len());
        if !rest.is_empty() {
            pieces[count] = IoSlice::new(rest);
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_always_the_tail_of_the_whole() {
        let parts: [&[u8]; 3] = [b"head", b"", b"tail!"];
        let whole: Vec<u8> = parts.concat();
        for sent in 0..=whole.len() {
            let mut pieces = [IoSlice::new(&[]); 3];
            let count = remaining(parts, sent, &mut pieces);
            let left: Vec<u8> = pieces[..count].iter().flat_map(|p| p.to_vec()).collect();
            assert_eq!(left, whole[sent..]);
            assert!(pieces[..count].iter().all(|piece| !piece.is_empty()));
        }
    }
}
