//! The watchdog: a thread outside every runtime that ends the process when a
//! stop has outlived all its bounds, even if a thread is stuck.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use crate::drain::Deadline;

/// Ends the process unless it is dropped before the deadline it was armed with.
pub struct Watchdog {
    arm: SyncSender<Deadline>,
}

impl Watchdog {
    /// Starts the thread. `expire` is called at most once, on that thread, and
    /// is expected not to return.
    pub fn start(expire: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (arm, armed) = sync_channel(1);
        thread::Builder::new().name("watchdog".into()).spawn(move || watch(&armed, expire))?;
        Ok(Watchdog { arm })
    }

    /// From now on the process has until `deadline`. Arming again changes nothing:
    /// the bound of a stop is made once.
    pub fn arm(&self, deadline: Deadline) {
        // A full channel means that it is armed already.
        let _already_armed = self.arm.try_send(deadline);
    }
}

fn watch(armed: &Receiver<Deadline>, expire: impl FnOnce()) {
    let Ok(deadline) = armed.recv() else { return };
    let Some(at) = deadline.instant() else { return };
    loop {
        let left = at.saturating_duration_since(std::time::Instant::now());
        match armed.recv_timeout(left) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => break expire(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    #[test]
    fn it_fires_at_its_deadline_and_not_when_it_was_dropped_before() {
        let (fired, waiter) = channel();
        let watchdog = Watchdog::start(move || fired.send(()).unwrap()).unwrap();
        watchdog.arm(Deadline::after(Instant::now(), Duration::from_millis(10)));
        watchdog.arm(Deadline::after(Instant::now(), Duration::from_secs(3600)));
        waiter.recv_timeout(Duration::from_secs(10)).unwrap();

        let (fired, waiter) = channel();
        let watchdog = Watchdog::start(move || fired.send(()).unwrap()).unwrap();
        watchdog.arm(Deadline::after(Instant::now(), Duration::from_secs(3600)));
        drop(watchdog);
        assert!(waiter.recv_timeout(Duration::from_secs(10)).is_err());
    }
}
