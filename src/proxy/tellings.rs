//! When endless streams are told to end, so that their clients do not all come back at once.
//!
//! One row for a worker's tunnels and its endless responses: who comes back is a client
//! that connects, whatever it was told by.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use super::Proxy;
use crate::drain::{Orders, Stage};
use crate::limits::TELL_EVERY;

const NEVER: u64 = u64::MAX;

/// A worker's endless streams, each with the time at which it is told.
#[derive(Default)]
pub struct Tellings {
    streams: RefCell<Slab<Rc<Place>>>,
}

/// A stream's place in the row.
struct Place {
    /// How long after draining has begun it may be told; none: as the plan says.
    after: Option<Duration>,
    /// When it is told, by the worker's clock.
    due: Cell<u64>,
}

/// One stream's place among them, until it is dropped.
pub struct Telling<'a> {
    tellings: &'a Tellings,
    key: usize,
    place: Rc<Place>,
}

impl Tellings {
    /// A place for a stream that is told so long after draining has begun, or after
    /// `stream_close_after`. One that comes while the process drains is told as soon as
    /// that has passed.
    pub fn enter(&self, proxy: &Proxy, after: Option<Duration>) -> Telling<'_> {
        let draining = proxy.stage() >= Stage::Draining;
        let after_all = after.unwrap_or(proxy.plan().stream_close_after);
        let due = if draining { first(proxy, after_all).min(last(proxy)) } else { NEVER };
        let place = Rc::new(Place { after, due: Cell::new(due) });
        let key = self.streams.borrow_mut().insert(Rc::clone(&place));
        Telling { tellings: self, key, place }
    }

    /// Gives each stream its time: the first at once, the others evenly over `spread`,
    /// none later than `close_timeout` before the hard deadline. If that has been done for
    /// an upgrade and is now for a stop, the nearer time holds; if nothing drains any more,
    /// none does.
    pub fn spread(&self, proxy: &Proxy) {
        let streams = self.streams.borrow();
        if proxy.stage() < Stage::Draining {
            streams.iter().for_each(|(_, place)| place.due.set(NEVER));
            return;
        }
        let plan = proxy.plan();
        let pause = pause(plan.spread, streams.len());
        let last = last(proxy);
        for (number, (_, place)) in streams.iter().enumerate() {
            let wait = pause.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            let after = place.after.unwrap_or(plan.stream_close_after);
            let due = first(proxy, after.saturating_add(wait));
            place.due.set(place.due.get().min(due).min(last));
        }
    }
}

/// When this has passed since draining began.
fn first(proxy: &Proxy, after: Duration) -> u64 {
    let Orders { since, .. } = proxy.orders.get();
    proxy.clock.millis(since).saturating_add(millis(after))
}

/// When the last of them is told: a WebSocket in time to answer before the hard deadline,
/// an event stream in time to end the event that is under way.
pub fn last(proxy: &Proxy) -> u64 {
    let Orders { deadline, .. } = proxy.orders.get();
    let answer = millis(proxy.plan().close_timeout);
    deadline.instant().map_or(NEVER, |at| proxy.clock.millis(at).saturating_sub(answer))
}

/// From one to the next, if there are so many.
fn pause(spread: Duration, count: usize) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    (spread / count).min(TELL_EVERY)
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl Telling<'_> {
    /// When it is told, by the worker's clock.
    pub fn due(&self) -> u64 {
        self.place.due.get()
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.tellings.streams.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_spread_evenly_and_at_most_ten_milliseconds_apart() {
        let spread = Duration::from_secs(2);
        assert_eq!(pause(spread, 1), TELL_EVERY);
        assert_eq!(pause(spread, 200), TELL_EVERY);
        assert_eq!(pause(spread, 2000), Duration::from_millis(1));
        assert_eq!(pause(Duration::ZERO, 5), Duration::ZERO);
    }
}
