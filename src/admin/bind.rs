//! Binding the admin listener.
//!
//! Owns the listening socket and its path. Promises that a unix socket is never
//! open to others, not even for a moment, that a socket file somebody listens
//! on is never taken away, and that our own is removed with the listener. Does
//! not accept.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// The permission bits of the socket, unless the configuration gives others.
const MODE: u32 = 0o600;
const BACKLOG: i32 = 128;

/// A bound admin listener.
#[derive(Debug)]
pub struct AdminListener {
    pub(super) kind: Kind,
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
            Kind::Unix { file, .. } => format!("unix:{}", file.path.display()),
        }
    }
}

/// A socket file that is removed on drop, if it is still the one we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // It stays behind where the directory is no longer ours to write.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Binds and listens. Needs a runtime around it.
pub fn bind(listen: &Listen) -> io::Result<AdminListener> {
    let kind = match listen {
        Listen::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Kind::Tcp(TcpListener::from_std(listener)?)
        }
        Listen::Fd(_) => return Err(io::Error::other("systemd has opened no socket of this name")),
        Listen::Unix { path, mode } => bind_unix(path, mode.unwrap_or(MODE))?,
    };
    Ok(AdminListener { kind })
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Kind> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux takes the mode of the file from that of the socket, so that there is
    // no moment between bind and chmod in which others could connect.
    fchmod(&socket, Mode::from_raw_mode(mode))?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    // The umask may have taken bits away that the configuration wants.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(socket.into())?;
    Ok(Kind::Unix { listener, file })
}

/// Removes a socket file nobody listens on; an error for anything else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let message = "the path exists and is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let before = identity(path);
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full accept queue would make a blocking connect wait.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        // Another starter may have replaced it since: look again.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && identity(path) == before => {
            fs::remove_file(path)
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(e),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a running process listens on this socket",
        )),
    }
}

#[cfg(test)]
mod tests {
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
