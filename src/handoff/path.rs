//! A unix socket at a path of its own.
//!
//! Promises that it is never open to others than its mode says, not even for a moment,
//! that a socket file somebody listens on is never taken away, and that our own is
//! removed with its owner, unless that has been handed over.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use super::message::FileId;

/// A socket file that is removed on drop, if it is ours and still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Option<FileId>,
    ours: bool,
    /// Permissions that it is still to get.
    mode: Option<u32>,
}

impl SocketFile {
    /// The file of a listener that was handed over to us. It is not ours yet, and gets its
    /// permissions only when we are told: those who have it go on with what it has.
    #[must_use]
    pub fn adopt(path: &Path, mode: Option<u32>) -> SocketFile {
        // What we remove and change one day is the socket, not what leads to it.
        let path = match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => fs::canonicalize(path),
            _ => Ok(path.to_owned()),
        };
        let path = path.unwrap_or_default();
        SocketFile { identity: identity(&path), path, ours: false, mode }
    }

    /// Which file it is, if there was one when we came.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        self.identity
    }

    /// Gives it the permissions that it is to have, if it is still the same.
    ///
    /// # Errors
    ///
    /// If it is somebody else's.
    pub fn set_mode(&mut self) -> io::Result<()> {
        match self.mode.take() {
            Some(mode) if self.identity.is_some() && identity(&self.path) == self.identity => {
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
            }
            _ => Ok(()),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It is somebody else's: it will be left behind.
    pub fn leave(&mut self) {
        self.ours = false;
    }

    /// It is ours, if it is still the one that was there when we came.
    pub fn own(&mut self) {
        self.ours = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours && self.identity.is_some() && identity(&self.path) == self.identity {
            // It stays behind where the directory is no longer ours to write.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What makes a file itself and no other, if there is one.
fn identity(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether `path`, however it is spelled, leads to this file from here.
#[must_use]
pub fn leads_to(path: &Path, file: FileId) -> bool {
    fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == file)
}

/// Binds and listens, without blocking. Without a mode it is the umask that says who may
/// connect.
///
/// # Errors
///
/// If somebody listens there, or something else is there.
pub fn bind(
    path: &Path,
    kind: Type,
    mode: Option<u32>,
    backlog: i32,
) -> io::Result<(Socket, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    if let Some(mode) = mode {
        // Linux takes the mode of the file from that of the socket, so that there is
        // no moment between bind and chmod in which others could connect.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
    }
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, kind)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    let file =
        SocketFile { path: path.to_owned(), identity: identity(path), ours: true, mode: None };
    if let Some(mode) = mode {
        // The umask may have taken bits away that the configuration wants.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

/// Removes a socket file nobody listens on; an error for anything else.
fn remove_stale(path: &Path, kind: Type) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let message = "the path exists and is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let before = identity(path);
    let probe = Socket::new(Domain::UNIX, kind, None)?;
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
