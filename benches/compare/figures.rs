//! Many figures of one kind in few words: median and quartiles.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::{Value, json};

/// Median, quartiles, and how many figures they come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// Not numbers without figures.
    pub(crate) fn of(figures: &[f64]) -> Self {
        let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(figures, part));
        Self { low, median, high, count: figures.len() }
    }

    /// Ratios formed pair by pair: both figures of a pair come from the same round.
    pub(crate) fn of_ratios(own: &[f64], other: &[f64]) -> Self {
        let ratios: Vec<_> = own.iter().zip(other).map(|(own, other)| own / other).collect();
        Self::of(&ratios)
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "low": self.low, "median": self.median, "high": self.high, "n": self.count })
    }

    /// A ratio is never shown without the number of its pairs.
    pub(crate) fn as_ratio(&self) -> String {
        format!("{:.2} ({:.2}–{:.2}, {} pairs)", self.median, self.low, self.high, self.count)
    }
}

/// Median and quartiles, with three digits where they matter.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = match self.median {
            median if median < 1.0 => 3,
            median if median < 10.0 => 2,
            median if median < 1000.0 => 1,
            _ => 0,
        };
        write!(f, "{:.places$} ({:.places$}–{:.places$})", self.median, self.low, self.high)
    }
}

/// Interpolated between neighbours; not a number without figures.
fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().saturating_sub(1) as f64;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    at(place.floor()) + (at(place.ceil()) - at(place.floor())) * place.fract()
}

/// The numbers below `count` in random order, so that no proxy always follows
/// the same one.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let random = RandomState::new();
    let mut order: Vec<_> = (0..count).collect();
    order.sort_by_key(|index| random.hash_one(index));
    order
}
