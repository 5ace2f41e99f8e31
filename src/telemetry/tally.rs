//! What is counted, by name, as generations tell it each other.
//!
//! Owns the names, which are the same in every version: what a process does not know it
//! keeps and passes on. Gauges are not among them, they die with their process.

use super::counters::{CloseReason, Totals};
use super::moved::MovedKind;
use crate::handoff::Tally;

/// Adds what another process has counted.
pub fn add(to: &mut Tally, more: &Tally) {
    for (name, count) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

impl Totals {
    /// Its counters, those that are not 0.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::new();
        let mut note = |name: String, count| {
            if count > 0 {
                tally.insert(name, count);
            }
        };
        for (code, count) in self.by_code() {
            note(format!("code.{code}"), count);
        }
        for (reason, count) in self.by_reason() {
            note(format!("closed.{}", reason.name()), count);
        }
        for (kind, count) in self.by_kind() {
            note(format!("moved.{}", kind.name()), count);
        }
        note("raced".to_owned(), self.raced);
        note("cut".to_owned(), self.cut);
        note("told".to_owned(), self.told);
        note("cancelled".to_owned(), self.cancelled);
        tally
    }

    /// Adds what other processes have counted, as far as it is known here.
    pub fn add(&mut self, tally: &Tally) {
        for (name, count) in tally {
            if let Some(place) = self.place(name) {
                *place = place.saturating_add(*count);
            }
        }
    }

    fn place(&mut self, name: &str) -> Option<&mut u64> {
        let (family, label) = name.split_once('.').unwrap_or((name, ""));
        match family {
            "code" => Some(self.code_mut(label.parse().ok()?)),
            "closed" => {
                let reason = CloseReason::ALL.into_iter().find(|reason| reason.name() == label)?;
                Some(self.closed_mut(reason))
            }
            "moved" => {
                let kind = MovedKind::ALL.into_iter().find(|kind| kind.name() == label)?;
                Some(&mut self.moved[kind as usize])
            }
            "raced" => Some(&mut self.raced),
            "cut" => Some(&mut self.cut),
            "told" => Some(&mut self.told),
            "cancelled" => Some(&mut self.cancelled),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::{Counters, Family};

    #[test]
    fn what_one_has_counted_is_added_to_what_another_has() {
        let counters = Arc::new(Counters::default());
        for code in [100, 200, 200, 599, 7] {
            counters.request(code);
        }
        for reason in CloseReason::ALL {
            counters.closed(reason);
        }
        for kind in MovedKind::ALL {
            counters.moved(kind);
        }
        counters.raced();
        counters.cut();
        counters.told();
        counters.cancelled();
        let totals = Totals::sum(&[Arc::clone(&counters)]);
        let mut twice = Totals::default();
        twice.add(&totals.tally());
        assert_eq!(twice, totals, "every counter has its name");
        let mut sum = totals.tally();
        add(&mut sum, &totals.tally());
        assert_eq!((sum["code.200"], sum["code.0"], sum["closed.drain"]), (4, 2, 2));
        twice.add(&totals.tally());
        assert_eq!(twice.tally(), sum);
    }

    #[test]
    fn gauges_are_left_out_and_what_is_not_known_is_kept() {
        let counters = Arc::new(Counters::default());
        counters.in_flight_add(Family::H1);
        counters.endless_add(Family::H2);
        let totals = Totals::sum(&[counters]);
        assert!(totals.tally().is_empty());
        let mut tally = totals.tally();
        let other = ["later", "closed.later", "code.later"].map(|name| (name.to_owned(), 3));
        add(&mut tally, &Tally::from(other));
        assert_eq!(tally["closed.later"], 3);
        let mut known = Totals::default();
        known.add(&tally);
        assert_eq!(known, Totals::default());
    }
}
