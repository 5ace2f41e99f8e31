//! How many were told when.

use std::fmt;
use std::time::Duration;

/// Bars over the time in which they are to be told; more if they took longer.
const BARS: u32 = 20;

/// The widest bar.
const WIDTH: usize = 60;

/// Moments after the signal.
#[derive(Debug)]
pub(crate) struct Histogram {
    moments: Vec<Duration>,
    spread: Duration,
}

impl Histogram {
    /// Of moments that are to be spread over this time.
    pub(crate) fn of(moments: impl Iterator<Item = Duration>, spread: Duration) -> Histogram {
        let mut moments: Vec<Duration> = moments.collect();
        moments.sort();
        Histogram { moments, spread }
    }

    /// At no moment more were told than an even row asks for, and this part of all.
    #[track_caller]
    pub(crate) fn assert_never_ahead_by(&self, part: f64) {
        let all = self.moments.len() as f64;
        for (told, at) in self.moments.iter().enumerate() {
            let even = at.as_secs_f64() / self.spread.as_secs_f64();
            let ahead = (told + 1) as f64 / all - even;
            assert!(ahead <= part, "{} of {all} were told within {at:?}\n{self}", told + 1);
        }
    }

    /// No bar has more than this part of all.
    #[track_caller]
    pub(crate) fn assert_never_at_once(&self, part: f64) {
        let most = self.bars().into_iter().max().unwrap_or(0);
        let all = self.moments.len();
        assert!(most as f64 <= part * all as f64, "{most} of {all} at once\n{self}");
    }

    /// How many fall into each bar.
    fn bars(&self) -> Vec<usize> {
        let step = (self.spread / BARS).as_nanos();
        let bar_of = |at: &Duration| usize::try_from(at.as_nanos() / step).unwrap_or(usize::MAX);
        let mut bars = vec![0; self.moments.last().map_or(0, |last| bar_of(last) + 1)];
        self.moments.iter().for_each(|at| bars[bar_of(at)] += 1);
        bars
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bars = self.bars();
        let most = bars.iter().max().copied().unwrap_or(0).max(1);
        for (bar, count) in (0..).zip(&bars) {
            let from = (self.spread / BARS * bar).as_millis();
            writeln!(f, "{from:>6} ms {count:>6} {}", "#".repeat(count * WIDTH / most))?;
        }
        Ok(())
    }
}
