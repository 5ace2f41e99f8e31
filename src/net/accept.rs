//! A thread's copy of a listening socket, and what its errors mean.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UnixListener};

use super::socket::{Peer, Socket, Stream};

/// Accepts from a listening socket that other threads accept from too.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP
    Tcp(TcpListener),
    /// A unix socket
    Unix(UnixListener),
}

impl Acceptor {
    pub(super) fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        TcpListener::from_std(socket).map(Acceptor::Tcp)
    }

    pub(super) fn unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        UnixListener::from_std(socket).map(Acceptor::Unix)
    }

    /// The next connection. Connections that died in the queue are skipped; an
    /// error is one of the machine ([`is_exhaustion`]) or of the listener.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        loop {
            let accepted = match self {
                Acceptor::Tcp(listener) => ready!(listener.poll_accept(cx))
                    .map(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer))),
                Acceptor::Unix(listener) => ready!(listener.poll_accept(cx))
                    .map(|(stream, _)| (Stream::Unix(stream), Peer::Unix)),
            };
            match accepted {
                Err(error) if Errno::from_io_error(&error).is_some_and(is_passing) => {}
                other => {
                    let socket = other.map(|(stream, peer)| (Socket::new(stream), peer));
                    return Poll::Ready(socket);
                }
            }
        }
    }

    /// Waits until somebody is in the queue, without letting him in. Ends at
    /// once where that cannot be known.
    #[expect(deprecated, reason = "an OwnedFd is all that the unsafe replacement asks for")]
    pub async fn knocked(&self) {
        // A copy, because the runtime watches each descriptor once.
        let Ok(door) = self.as_fd().try_clone_to_owned() else { return };
        let Ok(door) = AsyncFd::with_interest(door, Interest::READABLE) else { return };
        let _knocked = door.readable().await;
    }

    /// The next connection.
    pub async fn accept(&mut self) -> io::Result<(Socket, Peer)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Acceptor::Tcp(listener) => listener.as_fd(),
            Acceptor::Unix(listener) => listener.as_fd(),
        }
    }
}

/// The error belongs to one connection that is gone (accept(2)); the next may be well.
pub(super) fn is_passing(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM
    )
}

/// Whether descriptors or memory have run out: it passes when somebody leaves.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
