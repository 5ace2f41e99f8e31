//! When tunnels are told to end, so that their clients do not all come back at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::drain::{Orders, Stage};
use crate::limits::TELL_EVERY;
use crate::proxy::Proxy;
use crate::serve::worker::millis;

const NEVER: u64 = u64::MAX;

/// A worker's tunnels, each with the time at which it is told.
#[derive(Default)]
pub(in crate::serve) struct Tellings {
    tunnels: RefCell<Slab<Rc<Cell<u64>>>>,
}

/// One tunnel's place among them, until it is dropped.
pub(super) struct Telling<'a> {
    tellings: &'a Tellings,
    key: usize,
    due: Rc<Cell<u64>>,
}

impl Tellings {
    /// A place for a tunnel. One that comes while the process drains is told at once.
    pub(super) fn enter(&self, proxy: &Proxy) -> Telling<'_> {
        let draining = proxy.stage() >= Stage::Draining;
        let due = if draining { first(proxy).min(last(proxy)) } else { NEVER };
        let due = Rc::new(Cell::new(due));
        let key = self.tunnels.borrow_mut().insert(Rc::clone(&due));
        Telling { tellings: self, key, due }
    }

    /// Gives each tunnel its time: the first at once, the others evenly over
    /// `drain.stop.spread`, none later than `close_timeout` before the hard deadline.
    pub(in crate::serve) fn spread(&self, proxy: &Proxy) {
        let tunnels = self.tunnels.borrow();
        let pause = pause(proxy.config.stop.spread, tunnels.len());
        let (first, last) = (first(proxy), last(proxy));
        for (place, (_, due)) in tunnels.iter().enumerate() {
            let after = pause.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
            due.set(due.get().min(first.saturating_add(millis(after)).min(last)));
        }
    }
}

/// When the first of them is told.
fn first(proxy: &Proxy) -> u64 {
    let Orders { since, .. } = proxy.orders.get();
    proxy.clock.millis(since).saturating_add(millis(proxy.config.stop.stream_close_after))
}

/// When the last of them is told: in time to answer before the hard deadline.
pub(super) fn last(proxy: &Proxy) -> u64 {
    let Orders { deadline, .. } = proxy.orders.get();
    let answer = millis(proxy.config.stop.close_timeout);
    deadline.instant().map_or(NEVER, |at| proxy.clock.millis(at).saturating_sub(answer))
}

/// From one to the next, if there are so many.
fn pause(spread: Duration, count: usize) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    (spread / count).min(TELL_EVERY)
}

impl Telling<'_> {
    /// When it is told, by the worker's clock.
    pub(super) fn due(&self) -> u64 {
        self.due.get()
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.tellings.tunnels.borrow_mut().remove(self.key);
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
