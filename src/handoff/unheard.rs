//! Signals that a successor is not to hear before it can.
//!
//! What is sent to all processes of a service (`systemctl kill -s USR2`) meets one that was
//! started a moment ago, too, and ends it: it has not said yet what it wants. So the elder
//! starts a launcher for which these wait, and the launcher ignores them, as does what it
//! starts, until that says otherwise.

#![expect(unsafe_code, reason = "what becomes of a signal is said to the kernel")]

use std::mem::MaybeUninit;

use libc::{SIG_BLOCK, SIG_IGN, SIG_UNBLOCK, SIGHUP, SIGUSR1, SIGUSR2, c_int};

/// Those that never end a process that serves.
const SIGNALS: [c_int; 3] = [SIGHUP, SIGUSR1, SIGUSR2];

/// Starts something for which they wait until [`ignore`]. Not by what is done between fork
/// and exec, for which all the memory of this process would be copied.
pub(super) fn waiting<T>(spawn: impl FnOnce() -> T) -> T {
    mask(SIG_BLOCK);
    let spawned = spawn();
    mask(SIG_UNBLOCK);
    spawned
}

/// Ignores them from now on, and those that have waited.
pub(super) fn ignore() {
    for number in SIGNALS {
        // SAFETY: no handler is set but one of the kernel's own.
        unsafe { libc::signal(number, SIG_IGN) };
    }
    mask(SIG_UNBLOCK);
}

/// Whether they wait while this thread runs; other threads take them.
fn mask(how: c_int) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes a set of what is none yet, and only such a set is used;
    // the old one is not asked for.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in SIGNALS {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}
