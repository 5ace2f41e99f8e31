//! A certificate for clients of other make, with the file that they trust.

use std::path::PathBuf;

use tempfile::TempDir;

use super::tls::{AUTHORITY, Files, certificate};

/// The name that clients of other make ask for: one that each of them can be made to
/// ask for without a name server.
const NAME: &str = "localhost";

/// An ECDSA P-256 certificate, its key and who issued it, as files that go on drop.
#[derive(Debug)]
pub(crate) struct Identity {
    /// For the server.
    pub(crate) files: Files,
    /// For the clients.
    pub(crate) authority: PathBuf,
    _directory: TempDir,
}

impl Identity {
    /// A new one.
    pub(crate) fn new() -> Identity {
        let directory = TempDir::new().expect("a directory");
        let files = certificate(directory.path(), "peers", &[NAME, "127.0.0.1"]);
        let authority = directory.path().join("authority.pem");
        std::fs::write(&authority, AUTHORITY.pem()).expect("a file");
        Identity { files, authority, _directory: directory }
    }
}
