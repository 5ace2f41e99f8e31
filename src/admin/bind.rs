//! Binding the admin listener.
//!
//! Owns the listening socket and its path, which a predecessor may have made. Does not
//! accept.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use socket2::{Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;
use crate::handoff::path::{self, SocketFile};
use crate::handoff::{FileId, Keeper};

/// The permission bits of the socket, unless the configuration gives others.
const MODE: u32 = 0o600;
const BACKLOG: i32 = 128;

/// A bound admin listener.
#[derive(Debug)]
pub struct AdminListener {
    pub(super) kind: Kind,
    /// How a service manager holds the same socket, if one does.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: SocketFile },
}

impl AdminListener {
    /// The address, with the port the kernel chose.
    pub fn address(&self) -> String {
        match &self.kind {
            Kind::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |addr| addr.to_string())
            }
            Kind::Unix { file, .. } => format!("unix:{}", file.path().display()),
        }
    }

    /// The listener that a predecessor has at this address; `found`: it is known that the
    /// path leads to it, whatever that was when it was bound. A path is not ours until it
    /// is owned. Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// If it is no such listener.
    pub fn adopt(listen: &Listen, fd: OwnedFd, found: bool) -> io::Result<AdminListener> {
        let socket = Socket::from(fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::other("it is no listening socket"));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let bound = socket.local_addr()?;
        let kind = match listen {
            Listen::Tcp(_) if bound.as_socket().is_some() => {
                Kind::Tcp(TcpListener::from_std(socket.into())?)
            }
            Listen::Unix { path, mode }
                if bound.is_unix() && (found || bound.as_pathname() == Some(path)) =>
            {
                let listener = UnixListener::from_std(socket.into())?;
                Kind::Unix { listener, file: SocketFile::adopt(path, *mode) }
            }
            _ => return Err(io::Error::other("it listens at another address")),
        };
        Ok(AdminListener { kind, keeper: None })
    }

    /// The file of its path, if it has one.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        match &self.kind {
            Kind::Unix { file, .. } => file.id(),
            Kind::Tcp(_) => None,
        }
    }

    /// Its path gets the permissions that the configuration gives it, where it was adopted.
    /// Not before the process serves: until then it is another's.
    ///
    /// # Errors
    ///
    /// If it is somebody else's file.
    pub fn set_mode(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Unix { file, .. } => file.set_mode(),
            Kind::Tcp(_) => Ok(()),
        }
    }

    /// Another descriptor of the same socket, for a successor.
    ///
    /// # Errors
    ///
    /// If there is none left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Kind::Unix { listener, .. } => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Says how a service manager holds the same socket, whatever becomes of us and of
    /// those after us, who have to be told. Then its path is never ours.
    pub fn set_keeper(&mut self, keeper: Option<Keeper>) {
        self.leave();
        self.keeper = keeper;
    }

    /// How a service manager holds the same socket, if one does.
    #[must_use]
    pub fn keeper(&self) -> Option<Keeper> {
        self.keeper
    }

    /// The path is ours: it goes with the listener.
    pub(super) fn own(&mut self) {
        if let Kind::Unix { file, .. } = &mut self.kind
            && self.keeper.is_none()
        {
            file.own();
        }
    }

    /// The path is another process's: it stays.
    pub(super) fn leave(&mut self) {
        if let Kind::Unix { file, .. } = &mut self.kind {
            file.leave();
        }
    }
}

/// Binds and listens. Needs a runtime around it.
pub fn bind(listen: &Listen) -> io::Result<AdminListener> {
    let kind = match listen {
        Listen::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Kind::Tcp(TcpListener::from_std(listener)?)
        }
        Listen::Fd(_) => return Err(io::Error::other("only systemd can open it")),
        Listen::Unix { path, mode } => bind_unix(path, mode.unwrap_or(MODE))?,
    };
    Ok(AdminListener { kind, keeper: None })
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Kind> {
    let (socket, file) = path::bind(path, Type::STREAM, Some(mode), BACKLOG)?;
    let listener = UnixListener::from_std(socket.into())?;
    Ok(Kind::Unix { listener, file })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bound(path: &Path) -> io::Result<AdminListener> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        bind(&Listen::Unix { path: path.to_owned(), mode: None })
    }

    #[test]
    fn the_socket_is_ours_alone_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listener = bound(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(listener.address(), format!("unix:{}", path.display()));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        bound(&path).unwrap();
    }

    #[test]
    fn a_socket_in_use_and_a_file_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _used = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = bound(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        std::os::unix::net::UnixStream::connect(&path).unwrap();

        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(bound(&file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn a_socket_that_a_successor_made_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let ours = bound(&path).unwrap();
        // Moved away, not removed: a freed inode number could come back.
        fs::rename(&path, dir.path().join("old.sock")).unwrap();
        let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(theirs);
    }
}
