//! Ending with another process: who started this one, or its elder.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, kill_process, pidfd_open};

/// Sends this process a SIGTERM when the one with this number ends. A successor is not
/// its child, but somebody's who was: only of any other process is that asked for.
///
/// Not by the kernel's signal for it (PR_SET_PDEATHSIG), which means the parent, and of
/// that the thread that has started us.
///
/// # Errors
///
/// If there is no such process, or if it is not the parent and has to be.
pub fn stop_with(number: i32, is_successor: bool) -> io::Result<()> {
    let pid = if number > 0 { Pid::from_raw(number) } else { None };
    let pid = pid.ok_or_else(|| io::Error::other("it is no process"))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        Errno::SRCH => io::Error::other(format!("process {number} has ended")),
        error => error.into(),
    })?;
    // Who is our parent after it was found is not a later process of the same number.
    let parent = getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    if parent != number && !is_successor {
        let text = format!("the parent of this process is {parent}, not {number}");
        return Err(io::Error::other(text));
    }
    thread::Builder::new().name("parent".into()).spawn(move || watch(&process))?;
    Ok(())
}

fn watch(process: &OwnedFd) {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            Err(_) => return,
            Ok(_) => {
                let _sent = kill_process(getpid(), Signal::TERM);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_successor_may_end_with_somebody_elses_child() {
        let ours = getpid().as_raw_nonzero().get();
        let error = stop_with(ours, false).unwrap_err().to_string();
        assert!(error.contains(&format!("not {ours}")), "{error}");
        stop_with(ours, true).unwrap();
        for nobody in [0, -1, i32::MAX] {
            stop_with(nobody, true).unwrap_err();
        }
    }
}
