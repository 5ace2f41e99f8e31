//! The socket at which a successor that somebody else started asks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{SocketFlags, SocketType, accept_with};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::channel::{Channel, Peer, peer};
use super::message::FileId;
use super::path::{SocketFile, bind};
use super::watch::watch;
use crate::limits::ACCEPT_BACKOFF_MAX;

/// The permission bits of the socket.
const MODE: u32 = 0o600;
/// More than one successor at a time is refused anyway.
const BACKLOG: i32 = 8;

/// The listener at which successors ask. Its path goes with it, if it is ours.
#[derive(Debug)]
pub struct Takeover {
    socket: AsyncFd<OwnedFd>,
    file: SocketFile,
}

impl Takeover {
    /// Listens at `path`. Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// If somebody listens there, or something else is there.
    pub fn listen(path: &Path) -> io::Result<Takeover> {
        let (socket, file) = bind(path, Type::SEQPACKET, Some(MODE), BACKLOG)?;
        Ok(Takeover { socket: watch(socket.into(), Interest::READABLE)?, file })
    }

    /// The listener of an elder to which `path` leads; the path remains the elder's until
    /// [`Takeover::own`].
    ///
    /// # Errors
    ///
    /// If it is no such listener.
    pub fn adopt(path: &Path, fd: OwnedFd) -> io::Result<Takeover> {
        if socket_type(&fd)? != SocketType::SEQPACKET || !socket_acceptconn(&fd)? {
            return Err(io::Error::other("it does not listen for successors"));
        }
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        let socket = watch(socket.into(), Interest::READABLE)?;
        Ok(Takeover { socket, file: SocketFile::adopt(path, None) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file of that path.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.file.id()
    }

    /// From now on the path is the successor's: dropping this leaves it.
    pub fn leave(&mut self) {
        self.file.leave();
    }

    /// From now on the path is ours: dropping this removes it.
    pub fn own(&mut self) {
        self.file.own();
    }

    /// The next one who may ask. Somebody else's connection is closed; who that was is
    /// shown to `stranger`.
    ///
    /// # Errors
    ///
    /// If the kernel has no more descriptors; the next try may do. That is said only after
    /// a moment, so that who tries again at once does not spin.
    pub async fn accept(&self, mut stranger: impl FnMut(Peer)) -> io::Result<Channel> {
        loop {
            let mut ready = self.socket.readable().await?;
            let accepted = ready.try_io(|socket| {
                Ok(accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
            });
            match accepted {
                Err(_would_block) => {}
                Ok(Err(error)) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR | Errno::CONNABORTED) => {}
                    _ => {
                        tokio::time::sleep(ACCEPT_BACKOFF_MAX).await;
                        return Err(error);
                    }
                },
                Ok(Ok(fd)) => {
                    // One of whom nothing is known is nobody who may ask.
                    let Ok(who) = peer(fd.as_fd()) else { continue };
                    if may_ask(who.uid) {
                        return Channel::from_fd(fd);
                    }
                    stranger(who);
                }
            }
        }
    }
}

impl AsFd for Takeover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Connects to whoever listens at `path`; none if nobody does. Needs a runtime around it.
///
/// # Errors
///
/// If it is somebody else's process, or something else is there.
pub fn connect(path: &Path) -> io::Result<Option<Channel>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    // A full queue is an error rather than a wait.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => {}
        Err(e)
            if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            return Err(io::Error::other("too many successors ask there at once"));
        }
        Err(e) => return Err(e),
    }
    let channel = Channel::from_fd(socket.into())?;
    let uid = channel.peer()?.uid;
    if !may_ask(uid) {
        let text = format!("it belongs to user {uid}, who is neither this one nor root");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(Some(channel))
}

/// Whether this user may ask us for everything, or give us his sockets: ourselves or root.
#[must_use]
pub fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::message::Message;
    use super::*;

    #[tokio::test]
    async fn a_successor_that_comes_by_itself_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("takeover.sock");
        assert!(connect(&path).unwrap().is_none());
        let listener = Takeover::listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let theirs = connect(&path).unwrap().unwrap();
        let ours = listener.accept(|_| panic!("a stranger")).await.unwrap();
        assert_eq!(ours.peer().unwrap().pid, Some(std::process::id()));
        theirs.send(&Message::Serving, &[], b"").await.unwrap();
        assert_eq!(ours.recv().await.unwrap().unwrap().message, Message::Serving);
    }

    #[tokio::test]
    async fn a_live_listener_stays_and_a_stale_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("takeover.sock");
        let listener = Takeover::listen(&path).unwrap();
        assert_eq!(Takeover::listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        let mut elder = listener;
        drop(Takeover::adopt(&path, copy.try_clone().unwrap()).unwrap());
        assert!(path.exists(), "it was still the elder's");
        let successor = Takeover::adopt(&path, copy).unwrap();
        elder.leave();
        drop(elder);
        let _asks = connect(&path).unwrap().unwrap();
        successor.accept(|_| panic!("a stranger")).await.unwrap();
        // As if it had been killed: nobody listens, the file is there.
        drop(successor);
        assert!(path.exists());
        assert!(connect(&path).unwrap().is_none());
        let mut next = Takeover::listen(&path).unwrap();
        next.leave();
        next.own();
        drop(next);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stream.sock");
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(connect(&path).is_err());
        assert!(Takeover::listen(&path).is_err());
        let stream = std::os::unix::net::UnixListener::bind(dir.path().join("x")).unwrap();
        assert!(Takeover::adopt(&dir.path().join("x"), stream.into()).is_err());
        assert!(path.exists());
    }
}
