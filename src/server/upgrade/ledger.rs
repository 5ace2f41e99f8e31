//! What all generations have counted.
//!
//! Each process counts for itself from zero, and tells its successor. The sum never
//! goes backwards: what a process that is gone has said last is kept.

use std::collections::BTreeMap;

use crate::handoff::Tally;
use crate::telemetry::tally::add;

/// The generation under which those that are gone are added up.
const GONE: u32 = 0;

/// What each other generation has counted, as far as is known.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Ledger(BTreeMap<u32, Tally>);

impl Ledger {
    /// What a predecessor knew.
    pub(super) fn new(counted: Vec<(u32, Tally)>) -> Self {
        Ledger(counted.into_iter().collect())
    }

    /// A generation has counted so much since it began. What it has said before is never
    /// more.
    pub(super) fn note(&mut self, generation: u32, counted: Tally) {
        let known = self.0.entry(generation).or_default();
        for (name, count) in counted {
            let before = known.entry(name).or_default();
            *before = count.max(*before);
        }
    }

    /// A generation is gone.
    pub(super) fn close(&mut self, generation: u32) {
        let counted = self.0.remove(&generation).unwrap_or_default();
        add(self.0.entry(GONE).or_default(), &counted);
    }

    /// The sum of all of them.
    pub(in crate::server) fn sum(&self) -> Tally {
        let mut sum = Tally::new();
        self.0.values().for_each(|counted| add(&mut sum, counted));
        sum
    }

    /// What a successor is told, with what this process has counted.
    pub(super) fn with(&self, generation: u32, counted: Tally) -> Vec<(u32, Tally)> {
        let others = self.0.iter().map(|(generation, counted)| (*generation, counted.clone()));
        others.chain([(generation, counted)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(count: u64) -> Tally {
        [("x".to_owned(), count)].into()
    }

    #[test]
    fn the_sum_never_goes_backwards_whoever_ends() {
        let mut ledger = Ledger::new(vec![(GONE, tally(5)), (1, tally(10))]);
        assert_eq!(ledger.sum(), tally(15));
        ledger.note(1, tally(12));
        ledger.note(1, tally(11));
        assert_eq!(ledger.sum(), tally(17));
        ledger.close(1);
        assert_eq!(ledger.sum(), tally(17));
        let told = ledger.with(2, tally(3));
        assert_eq!(Ledger::new(told).sum(), tally(20));
    }
}
