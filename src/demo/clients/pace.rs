//! Time as clients spend it: at random, but the same in each run.

use std::time::Duration;

/// A small generator (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// A generator that gives the same row for the same seed.
    pub(super) const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another generator, which gives another row.
    pub(super) fn fork(&mut self) -> Rng {
        Rng(self.next())
    }

    /// A time between these two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
        least + Duration::from_micros(self.next() % span.saturating_add(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_between_their_bounds_and_differ() {
        let (least, most) = (Duration::from_millis(2), Duration::from_millis(9));
        let mut rng = Rng::new(1);
        let times: Vec<_> = (0..100).map(|_| rng.between(least, most)).collect();
        assert!(times.iter().all(|time| (least..=most).contains(time)));
        assert!(times.windows(2).any(|pair| pair[0] != pair[1]));
        assert_eq!(rng.between(least, least), least);
    }
}
