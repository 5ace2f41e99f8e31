//! The place on disk from which a proxy is started, and what lies there later.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory with one program in it; gone on drop.
#[derive(Debug)]
pub(crate) struct Shelf {
    directory: TempDir,
}

impl Shelf {
    /// With the binary that was built.
    pub(crate) fn new() -> Shelf {
        let shelf = Shelf { directory: tempfile::tempdir().expect("a directory") };
        shelf.put_right();
        shelf
    }

    /// Where the program is.
    pub(crate) fn path(&self) -> PathBuf {
        self.file("ebbtide")
    }

    /// Where another file is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The binary that was built.
    pub(crate) fn put_right(&self) {
        let built = Path::new(env!("CARGO_BIN_EXE_ebbtide"));
        let next = self.file("next");
        if std::fs::hard_link(built, &next).is_err() {
            std::fs::copy(built, &next).expect("a copy of the binary");
        }
        self.exchange(&next);
    }

    /// A script in its place; its first line says for whom.
    pub(crate) fn put_script(&self, text: &str, mode: u32) {
        let next = self.file("next");
        std::fs::write(&next, text).expect("a script");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&next, permissions).expect("permissions");
        self.exchange(&next);
    }

    /// Another program in its place.
    pub(crate) fn put_link(&self, program: &str) {
        let next = self.file("next");
        std::os::unix::fs::symlink(program, &next).expect("a link");
        self.exchange(&next);
    }

    /// Nothing in its place.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.path()).expect("the program was there");
    }

    /// As a package manager does: whoever runs the old one keeps it.
    fn exchange(&self, next: &Path) {
        std::fs::rename(next, self.path()).expect("one program instead of another");
    }

    /// Writes a file beside it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}
