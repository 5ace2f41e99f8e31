//! Another process, which stays the same one as long as this is kept.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use tokio::io::Interest;

use super::watch::watch;

/// Another process (pidfd_open(2)).
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The process of this number now; none if there is none that can be seen from here.
    #[must_use]
    pub fn of(pid: u32) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::NONBLOCK).ok().map(Process)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let mut asked = [PollFd::new(&self.0, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Waits until it has ended, so long; whether it has. Needs a runtime around it.
    pub async fn ends(&self, patience: Duration) -> bool {
        let ended = async {
            let copy = watch(self.0.try_clone()?, Interest::READABLE)?;
            let _readable = copy.readable().await?;
            Ok::<_, io::Error>(())
        };
        let waited = tokio::time::timeout(patience, ended).await;
        matches!(waited, Ok(Ok(()))) || self.is_gone()
    }

    /// Kills it, and waits so long for its end; whether it has ended.
    pub async fn kill(&self, patience: Duration) -> bool {
        // One that is gone already needs no signal; one of another user takes none.
        let _gone = pidfd_send_signal(&self.0, Signal::KILL);
        self.ends(patience).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn a_process_is_there_until_it_is_killed() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(!process.is_gone());
        assert!(!process.ends(Duration::from_millis(1)).await);
        assert!(process.kill(Duration::from_secs(10)).await);
        assert!(process.is_gone());
        child.wait().unwrap();
        assert!(process.is_gone(), "its number may be another's by now");
        assert!(Process::of(0).is_none() && Process::of(u32::MAX).is_none());
    }
}
