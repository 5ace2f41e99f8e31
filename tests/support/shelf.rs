//! The place on disk from which a proxy is started, and what lies there later.

use std::path::{Path, PathBuf};
use std::process::Command;

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
            install(built, &next, 0o755);
        }
        self.exchange(&next);
    }

    /// A script in its place; its first line says for whom.
    pub(crate) fn put_script(&self, text: &str, mode: u32) {
        let (draft, next) = (self.write("draft", text), self.file("next"));
        install(&draft, &next, mode);
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

/// Copies a program, by a process of its own: what this one has open for writing, a child
/// that another test has just forked has open too, and nobody may execute it until then.
fn install(from: &Path, to: &Path, mode: u32) {
    let mut command = Command::new("install");
    let copied = command.arg("-m").arg(format!("{mode:o}")).arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "a copy of {}", from.display());
}
