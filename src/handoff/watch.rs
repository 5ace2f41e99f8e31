//! A descriptor whose readiness the runtime of this thread watches.

#![expect(unsafe_code, reason = "tokio leaves it to its caller that a descriptor stays open")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `fd`. Needs a runtime around it.
///
/// # Errors
///
/// If it is a file, or there is no memory.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, always by the same number,
    // and only whoever takes it out of the `AsyncFd`, which ends the watching, can end it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
