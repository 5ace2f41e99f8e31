//! A process that may still have copies of our listeners, although it is no successor any
//! more: as long as it has, nothing is done to them that it would feel.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::handoff::{Channel, Process};

/// One that was lost, and is not known to have ended.
pub(super) struct Doubt {
    /// Our end of the channel to it, which nobody reads any more; none where it shows
    /// nothing.
    channel: Option<Channel>,
    /// The process itself; none where it is not to be seen from here.
    process: Option<Process>,
}

impl Doubt {
    pub(super) fn new(channel: Option<Channel>, process: Option<Process>) -> Doubt {
        Doubt { channel, process }
    }

    /// Whether it has ended, or left: then it has closed its end.
    pub(super) fn is_over(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_gone)
            || self.channel.as_ref().is_some_and(is_closed)
    }
}

/// Whether nobody has the other end any more. Only to be asked where we have stopped to
/// read, and not to write.
fn is_closed(channel: &Channel) -> bool {
    let mut asked = [PollFd::new(channel, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use rustix::net::{Shutdown, shutdown};

    use super::*;
    use crate::handoff::Message;

    #[tokio::test]
    async fn it_lasts_until_the_other_end_is_closed() {
        let (channel, theirs) = Channel::pair().unwrap();
        channel.send(&Message::Begin, &[], &[]).await.unwrap();
        shutdown(&channel, Shutdown::Read).unwrap();
        let doubt = Doubt::new(Some(channel), None);
        assert!(!doubt.is_over());
        let copy = theirs.try_clone().unwrap();
        drop(theirs);
        assert!(!doubt.is_over(), "somebody else has it, too");
        drop(copy);
        assert!(doubt.is_over());
    }

    #[tokio::test]
    async fn it_lasts_until_the_process_has_ended() {
        let (channel, _theirs) = Channel::pair().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let doubt = Doubt::new(Some(channel), Process::of(child.id()));
        assert!(!doubt.is_over());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(doubt.is_over());
    }
}
