//! Descriptors that came with the process; what children inherit.
//!
//! A descriptor that is named in the environment is only a number, and to make
//! something of a number is `unsafe`: nobody else may own what it stands for. What
//! makes it safe is that every descriptor that this program opens is closed to other
//! programs (`FD_CLOEXEC`, as std, tokio and rustix open them). So one that is open and
//! not closed to them was here before the program, belongs to nobody yet, and is closed
//! to them in the same step, which makes it nobody's a second time. The only one that
//! opens our own again is `passed_on`, for the time of a spawn and under the same lock.

#![expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::sockopt::socket_type;

use crate::limits::LISTEN_FDS_MAX;

/// Held while it matters which descriptors are closed to other programs.
static LOCK: Mutex<()> = Mutex::new(());

/// The first descriptor behind stdin, stdout and stderr.
const FIRST: RawFd = 3;

/// Makes the inherited descriptor of this number ours.
///
/// # Errors
///
/// If it is not open, was not inherited, or has been adopted before.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if number < FIRST {
        return Err(io::Error::other(format!("descriptor {number} is stdin, stdout or stderr")));
    }
    // SAFETY: it is only asked for its flags, and is neither closed nor kept. A number
    // that is not open is an error; -1, which must not be borrowed, is refused above.
    let seen = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(seen)
        .map_err(|_| io::Error::other(format!("descriptor {number} is not open")))?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::other(format!("descriptor {number} was not inherited")));
    }
    fcntl_setfd(seen, flags | FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and nobody owns it: whatever this program opens or has
    // adopted is `CLOEXEC`, except in `passed_on`, which holds the lock.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the inherited socket of this number ours.
///
/// # Errors
///
/// See [`adopt`]; and if it is no socket, which is then closed.
pub fn adopt_socket(number: RawFd) -> io::Result<OwnedFd> {
    let fd = adopt(number)?;
    match socket_type(&fd) {
        Ok(_) => Ok(fd),
        Err(_) => Err(io::Error::other(format!("descriptor {number} is no socket"))),
    }
}

/// The sockets that a service manager has opened for us, with their names: those of
/// `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`. None if they are for another process.
///
/// # Errors
///
/// If what they say is not so.
pub fn activated(
    variable: impl Fn(&str) -> Option<OsString>,
) -> io::Result<Vec<(String, OwnedFd)>> {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    if text("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let Some(count) = text("LISTEN_FDS") else { return Ok(Vec::new()) };
    let Some(count) = count.parse().ok().filter(|count| *count <= LISTEN_FDS_MAX) else {
        return Err(io::Error::other(format!("LISTEN_FDS is {count}")));
    };
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for number in (FIRST..).take(count) {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
        sockets.push((name, adopt(number)?));
    }
    Ok(sockets)
}

/// Lets `fds` go over to the program that `spawn` starts. Another child that were started
/// at the same time would get them, too.
///
/// # Errors
///
/// Those of `spawn`; or if it cannot be said of a descriptor.
pub(super) fn passed_on<T>(
    fds: &[BorrowedFd<'_>],
    spawn: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = fds.iter().try_for_each(|fd| fcntl_setfd(fd, FdFlags::empty()));
    let spawned = opened.map_err(io::Error::from).and_then(|()| spawn());
    for fd in fds {
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    spawned
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _};

    use super::*;

    /// As if it had been inherited.
    fn inherited(fd: OwnedFd) -> RawFd {
        fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        fd.into_raw_fd()
    }

    #[test]
    fn what_was_inherited_is_adopted_once() {
        let number = inherited(File::open("/dev/null").unwrap().into());
        let ours = adopt(number).unwrap();
        assert_eq!(ours.as_raw_fd(), number);
        assert!(fcntl_getfd(&ours).unwrap().contains(FdFlags::CLOEXEC));
        let error = adopt(number).unwrap_err().to_string();
        assert!(error.contains("not inherited"), "{error}");
    }

    #[test]
    fn nothing_else_is_adopted() {
        for number in [-1, 0, 2] {
            assert!(adopt(number).is_err());
        }
        assert!(adopt(900_000).unwrap_err().to_string().contains("not open"));
        let ours = File::open("/dev/null").unwrap();
        assert!(adopt(ours.as_raw_fd()).is_err());
        let number = inherited(File::open("/dev/null").unwrap().into());
        assert!(adopt_socket(number).unwrap_err().to_string().contains("no socket"));
    }

    #[test]
    fn sockets_for_somebody_else_are_not_ours() {
        let mine = std::process::id().to_string();
        let none = |_: &str| None;
        assert!(activated(none).unwrap().is_empty());
        let others =
            |name: &str| Some(if name == "LISTEN_PID" { "1".into() } else { OsString::from("1") });
        assert!(activated(others).unwrap().is_empty());
        for wrong in ["x", "-1", "9999999"] {
            let wrong = |name: &str| {
                Some(if name == "LISTEN_PID" { mine.clone().into() } else { wrong.into() })
            };
            assert!(activated(wrong).is_err());
        }
    }

    #[test]
    fn what_is_passed_on_is_closed_to_others_again() {
        let file = File::open("/dev/null").unwrap();
        let failed = passed_on(&[file.as_fd()], || {
            assert!(!fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
            Err::<(), _>(io::Error::other("no"))
        });
        failed.unwrap_err();
        assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
    }
}
