//! The account of each request: whether it reached the app, and how often the app
//! executed it.
//!
//! Clients open an entry and close it when they know what became of the request, so
//! that only what is under way, or in doubt, takes memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the app knows of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its head has come.
    pub reached: bool,
    /// How often it has come whole, and was worked on.
    pub executed: u32,
}

/// Shared by an app and the clients that ask it through a proxy.
#[derive(Debug, Default)]
pub struct Ledger {
    issued: AtomicU64,
    open: Mutex<HashMap<u64, Record>>,
    repeated: AtomicU64,
}

impl Ledger {
    /// Opens the entry of a new request; returns its id.
    pub fn issue(&self) -> u64 {
        let id = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        self.entries().insert(id, Record::default());
        id
    }

    /// What is known so far; nothing of an entry that is closed.
    pub fn look(&self, id: u64) -> Record {
        self.entries().get(&id).copied().unwrap_or_default()
    }

    /// Closes an entry: what was known at its end.
    pub fn close(&self, id: u64) -> Record {
        self.entries().remove(&id).unwrap_or_default()
    }

    /// How often the app executed a request that it had executed before, or that its
    /// client had done with.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// The app has the head of a request.
    pub(super) fn reached(&self, id: u64) {
        if let Some(record) = self.entries().get_mut(&id) {
            record.reached = true;
        }
    }

    /// The app has the whole of a request, and works on it.
    pub(super) fn executed(&self, id: u64) {
        let is_first = self.entries().get_mut(&id).is_some_and(|record| {
            record.executed += 1;
            record.executed == 1
        });
        if !is_first {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Record>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_kept_until_it_is_closed() {
        let ledger = Ledger::default();
        let (one, two) = (ledger.issue(), ledger.issue());
        assert_ne!(one, two);
        ledger.reached(one);
        assert_eq!(ledger.look(one), Record { reached: true, executed: 0 });
        ledger.executed(one);
        assert_eq!(ledger.close(one).executed, 1);
        assert_eq!(ledger.look(one), Record::default());
        assert_eq!(ledger.look(two), Record::default());
        assert_eq!(ledger.repeated(), 0);
    }

    #[test]
    fn a_second_execution_is_noticed_also_when_the_first_is_forgotten() {
        let ledger = Ledger::default();
        let id = ledger.issue();
        ledger.executed(id);
        ledger.executed(id);
        assert_eq!((ledger.look(id).executed, ledger.repeated()), (2, 1));
        ledger.close(id);
        ledger.executed(id);
        assert_eq!(ledger.repeated(), 2);
    }
}
