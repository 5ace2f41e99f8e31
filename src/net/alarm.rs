//! One coarse timer for each connection, rung by its worker's tick.
//!
//! A timeout on the request path is a store, not a timer registration. The
//! clock moves with the tick; an alarm is therefore set one tick late and never
//! rings early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::limits::TICK;

/// What a clock shows when it begins: what is older than its process, a connection that has
/// moved, has its time on it too.
const BEGINNING: u64 = 2 * 365 * 24 * 3600 * 1000;

/// A worker's clock: milliseconds, as of its last turn.
#[derive(Debug)]
pub struct Clock {
    epoch: Instant,
    now: Cell<u64>,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Rc<Self> {
        Rc::new(Clock { epoch: Instant::now(), now: Cell::new(BEGINNING) })
    }

    /// Moves the clock to the present and returns that.
    pub fn refresh(&self) -> Instant {
        let now = Instant::now();
        // Rounded down, as instants are rounded up: nothing is due early.
        self.now.set(BEGINNING + millis(now.saturating_duration_since(self.epoch)));
        now
    }

    /// The time of the last turn.
    #[inline]
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// An instant on this clock, rounded up; what was before it began is when it began.
    pub fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        BEGINNING + millis(since + Duration::from_micros(999))
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

const NEVER: u64 = u64::MAX;

/// A connection's timer, and the way to wake its task.
#[derive(Debug)]
pub struct Alarm {
    clock: Rc<Clock>,
    due: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// An alarm that is not set.
    pub fn new(clock: Rc<Clock>) -> Self {
        Alarm { clock, due: Cell::new(NEVER), waker: RefCell::new(None) }
    }

    /// The clock it goes by.
    pub fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// Rings when `after` has passed, or never for a duration without end.
    #[inline]
    pub fn set(&self, after: Duration) {
        let wait = millis(after).saturating_add(millis(TICK));
        self.due.set(self.clock.now().saturating_add(wait));
    }

    /// Rings at this time of the clock, and not a tick later.
    #[inline]
    pub fn set_at(&self, due: u64) {
        self.due.set(due);
    }

    /// Rings at this time of the clock if that is before it would ring anyhow.
    #[inline]
    pub fn set_by(&self, due: u64) {
        self.due.set(self.due.get().min(due));
    }

    /// Does not ring any more.
    #[inline]
    pub fn clear(&self) {
        self.due.set(NEVER);
    }

    /// Whether it has rung since it was set.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.due.get() <= self.clock.now()
    }

    /// Notes whom to wake. A task's waker stays the same, so this is a comparison.
    #[inline]
    pub fn attach(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the task, that it may look at the alarm and at what it is told.
    pub fn ring(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_instant_is_reached_before_it_has_come() {
        let clock = Clock::new();
        for _ in 0..2_000 {
            let at = Instant::now() + Duration::from_micros(300);
            let due = clock.millis(at);
            clock.refresh();
            let reached = clock.now() >= due;
            assert!(!reached || Instant::now() >= at);
        }
    }

    #[test]
    fn an_alarm_never_rings_early_and_one_without_end_never() {
        let clock = Clock::new();
        let alarm = Alarm::new(Rc::clone(&clock));
        alarm.set(Duration::MAX);
        assert!(!alarm.is_due());
        alarm.set(Duration::from_millis(10));
        assert!(!alarm.is_due());
        clock.now.set(clock.now() + 10 + millis(TICK));
        assert!(alarm.is_due());
        alarm.clear();
        assert!(!alarm.is_due());
    }
}
