//! An established connection, TCP or unix, and every act on it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A peer on a unix socket, which has no address.
    Unix,
}

impl Peer {
    /// The peer's address, an IPv4 one also where it came through an IPv6 socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => {
                SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f)
            }
            Peer::Unix => f.write_str("unix:"),
        }
    }
}

/// A connection registered with the runtime of this thread.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Takes a connection that no runtime knows; it must be non-blocking.
    pub fn adopt(fd: OwnedFd, peer: Peer) -> io::Result<Self> {
        match peer {
            Peer::Tcp(_) => TcpStream::from_std(fd.into()).map(Socket::Tcp),
            Peer::Unix => UnixStream::from_std(fd.into()).map(Socket::Unix),
        }
    }

    /// Gives the connection back, known to no runtime any more.
    pub fn release(self) -> io::Result<OwnedFd> {
        match self {
            Socket::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Socket::Unix(stream) => stream.into_std().map(OwnedFd::from),
        }
    }

    /// Reads what is there; 0 is the end of the stream.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(into);
        match self {
            Socket::Tcp(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buf))?,
            Socket::Unix(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buf))?,
        }
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Writes as much as the kernel takes.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, octets),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    /// Writes as much of several pieces as the kernel takes.
    #[inline]
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    /// Whether it is over TLS.
    pub fn is_tls(&self) -> bool {
        false
    }

    /// Whether the TLS handshake has settled on HTTP/2.
    pub fn alpn_h2(&self) -> bool {
        false
    }

    /// Waits until the kernel has taken all that was written.
    #[inline]
    pub fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Whether something can be read, be it the end. Asks the runtime, not the
    /// kernel: it sees what has happened up to the last turn of the event loop.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// How many octets the kernel holds for us to read.
    pub fn unread(&self) -> usize {
        unread(self)
    }

    /// Sends FIN: nothing more will be written.
    pub fn fin(&self) -> io::Result<()> {
        fin(self)
    }

    /// Makes the coming close a reset, or an ordinary one again, so that a body
    /// that ends with its connection can not be taken for a whole one.
    pub fn reset_on_close(&self, reset: bool) {
        // On a socket that is gone already there is nothing left to reset.
        let _gone = SockRef::from(self).set_linger(reset.then_some(Duration::ZERO));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// How many octets the kernel holds to be read from `fd`.
pub fn unread(fd: impl AsFd) -> usize {
    rustix::io::ioctl_fionread(fd).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Sends FIN on `fd`.
pub fn fin(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, Shutdown::Write)?)
}

/// Reads and forgets what has come on `fd`: how many octets, and whether the
/// peer has ended its side.
pub fn discard(fd: impl AsFd, scratch: &mut [u8]) -> (usize, bool) {
    let mut octets = 0;
    loop {
        match rustix::net::recv(&fd, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return (octets, true),
            Ok((n, _)) => octets += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return (octets, false),
            Err(_) => return (octets, true),
        }
    }
}
