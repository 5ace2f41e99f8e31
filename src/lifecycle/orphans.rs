//! Reaping orphans: whoever loses its parent becomes a child of process 1, and stays in
//! the table of processes until that has asked for its end.

use std::io;

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this is process 1 of its container (or machine): its end is the end of all.
#[must_use]
pub fn is_pid_one() -> bool {
    std::process::id() == 1
}

/// Reaps for ever. Only for process 1, which starts no child of its own that anybody
/// waits for: an upgrade in place is refused there.
///
/// # Errors
///
/// If the signal cannot be heard.
pub async fn reap() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        // Several ends may be one signal, and some were before the first.
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
        if ended.recv().await.is_none() {
            return Ok(());
        }
    }
}
