//! The watchdog: a thread outside every runtime that ends the process when a
//! stop has outlived all its bounds, even if a thread is stuck.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use crate::drain::Deadline;

/// Ends the process unless it is dropped before the deadline it was armed with.
pub struct Watchdog {
    arm: Sender<Deadline>,
}

impl Watchdog {
    /// Starts the thread. `expire` is called at most once, on that thread, and
    /// is expected not to return.
    pub fn start(expire: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (arm, armed) = channel();
        thread::Builder::new().name("watchdog".into()).spawn(move || watch(&armed, expire))?;
        Ok(Watchdog { arm })
    }

    /// From now on the process has until `deadline`, whatever it had before;
    /// [`Deadline::NEVER`] calls it off.
    pub fn arm(&self, deadline: Deadline) {
        // The thread ends before us only by ending the process.
        let _ended = self.arm.send(deadline);
    }
}

fn watch(armed: &Receiver<Deadline>, expire: impl FnOnce()) {
    let mut deadline = Deadline::NEVER;
    loop {
        let next = match deadline.left(Instant::now()) {
            None => armed.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(left) => armed.recv_timeout(left),
        };
        match next {
            Ok(other) => deadline = other,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => break expire(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_fires_at_its_deadline_and_not_when_it_was_dropped_before() {
        let (fired, waiter) = channel();
        let watchdog = Watchdog::start(move || fired.send(()).unwrap()).unwrap();
        watchdog.arm(Deadline::after(Instant::now(), Duration::from_secs(3600)));
        watchdog.arm(Deadline::NEVER);
        watchdog.arm(Deadline::after(Instant::now(), Duration::from_millis(10)));
        waiter.recv_timeout(Duration::from_secs(10)).unwrap();

        let (fired, waiter) = channel();
        let watchdog = Watchdog::start(move || fired.send(()).unwrap()).unwrap();
        watchdog.arm(Deadline::after(Instant::now(), Duration::from_secs(3600)));
        drop(watchdog);
        assert!(waiter.recv_timeout(Duration::from_secs(10)).is_err());
    }
}
