//! A task's place among those that the tick and the drain wake.

use std::rc::Rc;

use super::worker::Worker;
use crate::net::Alarm;

/// A task's alarm, rung by the tick and by the drain until it is dropped.
pub(super) struct Seat<'a> {
    worker: &'a Worker,
    key: usize,
    pub(super) alarm: Rc<Alarm>,
}

impl<'a> Seat<'a> {
    /// One more seat.
    pub(super) fn take(worker: &'a Worker) -> Self {
        let (key, alarm) = worker.take_seat();
        Seat { worker, key, alarm }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.worker.seats.borrow_mut().try_remove(self.key);
    }
}
