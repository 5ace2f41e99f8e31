//! Who has to be polled in this turn of a connection's task.
//!
//! h2 and every stream are polled with a bell of their own, so that a turn polls
//! only who has rung. A bell that is rung while the task runs, by a stream that
//! has written something or by h2 that has read something, is heard in the same
//! turn: without that each of them would cost another one.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The turns of one task.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The task runs and will look at the bells itself.
    busy: AtomicBool,
    /// Bells that have rung and were not answered.
    rung: AtomicUsize,
    task: Mutex<Option<Waker>>,
}

impl Turns {
    /// A turn begins: bells need not wake the task.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        drop(task);
        self.busy.store(true, Ordering::SeqCst);
    }

    /// A turn ends. Whoever has rung meanwhile and was not heard gets another.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::SeqCst);
        if self.is_called() {
            self.wake();
        }
    }

    /// Whether some bell waits for an answer.
    pub(super) fn is_called(&self) -> bool {
        self.rung.load(Ordering::SeqCst) > 0
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

/// One who is polled.
#[derive(Debug)]
pub(super) struct Bell {
    state: AtomicU8,
    turns: Arc<Turns>,
}

const STILL: u8 = 0;
const RUNG: u8 = 1;
/// Its owner is gone. Whoever still holds its waker rings for nobody.
const DUMB: u8 = 2;

impl Bell {
    /// A bell that has rung.
    pub(super) fn new(turns: &Arc<Turns>) -> Arc<Self> {
        let bell = Bell { state: AtomicU8::new(STILL), turns: Arc::clone(turns) };
        bell.ring();
        Arc::new(bell)
    }

    /// Whether it has rung since this was last asked.
    pub(super) fn answer(&self) -> bool {
        self.leave(STILL)
    }

    /// Nobody will answer any more.
    pub(super) fn take_down(&self) {
        self.leave(DUMB);
    }

    fn leave(&self, state: u8) -> bool {
        let rung = self.state.swap(state, Ordering::SeqCst) == RUNG;
        if rung {
            self.turns.rung.fetch_sub(1, Ordering::SeqCst);
        }
        rung
    }

    /// Asks for a turn.
    pub(super) fn ring(&self) {
        let (before, after) = (Ordering::SeqCst, Ordering::SeqCst);
        // Counted first: what is answered is never less than nothing.
        self.turns.rung.fetch_add(1, Ordering::SeqCst);
        if self.state.compare_exchange(STILL, RUNG, before, after).is_err() {
            self.turns.rung.fetch_sub(1, Ordering::SeqCst);
        } else if !self.turns.busy.load(Ordering::SeqCst) {
            self.turns.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_bell_wakes_the_task_once_and_never_while_it_runs() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::SeqCst);
        let turns = Arc::new(Turns::default());
        turns.begin(&Context::from_waker(&waker));
        let bell = Bell::new(&turns);
        assert!(bell.answer() && !bell.answer() && !turns.is_called());
        turns.end();
        assert_eq!(woken(), 0);
        bell.ring();
        bell.ring();
        assert_eq!(woken(), 1);
        turns.begin(&Context::from_waker(&waker));
        assert!(bell.answer());
        bell.ring();
        assert_eq!(woken(), 1, "it is heard in this turn");
        turns.end();
        assert_eq!(woken(), 2, "or gets another");
    }

    #[test]
    fn a_bell_that_is_gone_calls_nobody() {
        let turns = Arc::new(Turns::default());
        let bell = Bell::new(&turns);
        let held = Waker::from(Arc::clone(&bell));
        bell.take_down();
        assert!(!turns.is_called());
        held.wake_by_ref();
        assert!(!turns.is_called(), "though somebody still holds its waker");
    }
}
