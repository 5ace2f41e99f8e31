//! What there is to be seen at one moment, and the words for it.

use std::time::Duration;

use super::clients::Tally;
use crate::drain::Phase;
use crate::telemetry::ConnectionCounts;

/// How the proxy is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is told to (SIGTERM), and drains.
    Drain,
    /// It is ended (SIGKILL), as SIGTERM ends a program that has no handler for it: the
    /// kernel closes everything.
    Naive,
}

/// Where the demo stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The clients work; the stop comes in this time.
    Loading(Duration),
    /// The stop began so long ago.
    Stopping(Duration),
    /// The proxy has ended, so long after the stop began.
    Over(Duration),
}

/// One moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) stop: Stop,
    /// Since the load began.
    pub(super) at: Duration,
    pub(super) moment: Moment,
    /// What the proxy says of itself.
    pub(super) phase: Phase,
    /// The time to the hard deadline, once there is one.
    pub(super) left: Option<Duration>,
    pub(super) connections: ConnectionCounts,
    /// The most connections that were in any one state, for bars of one scale.
    pub(super) most: usize,
    pub(super) tally: Tally,
}

impl View {
    /// What is shown.
    pub(super) const fn title(&self) -> &'static str {
        match self.stop {
            Stop::Drain => "a proxy is told to stop while its clients go on",
            Stop::Naive => "a proxy is killed while its clients go on",
        }
    }

    /// Whether nothing but the kernel ends the connections.
    pub(super) const fn is_killed(&self) -> bool {
        matches!((self.stop, self.moment), (Stop::Naive, Moment::Stopping(_) | Moment::Over(_)))
    }

    /// The name of what goes on.
    pub(super) fn stage(&self) -> String {
        if self.is_killed() { "killed".to_owned() } else { self.phase.name().replace('_', " ") }
    }

    /// What that means, for somebody who hears of it for the first time.
    pub(super) const fn explanation(&self) -> &'static str {
        if self.is_killed() {
            return "the kernel closes every connection, whatever is under way";
        }
        match self.phase {
            Phase::Starting => "the proxy starts",
            Phase::Serving => "clients of all kinds ask an app through the proxy",
            Phase::LameDuck => "it still serves, but balancers are told to look elsewhere",
            Phase::Closing => "the listener closes; who already waits in it is still served",
            Phase::Draining => "what was begun is finished; connections are told to end",
            Phase::Cutting => "there is no time left: what is left is cut, and named",
            Phase::Finishing => "nothing is left to do; the report is written",
            Phase::Stopped => "the proxy has ended",
        }
    }

    /// Where it stands in time.
    pub(super) fn time(&self) -> String {
        let left = self.left.filter(|_| self.phase <= Phase::Draining);
        match (self.moment, left) {
            (Moment::Loading(left), _) => format!("the stop comes in {}", seconds(left)),
            (Moment::Stopping(since), None) => format!("{} since the signal", seconds(since)),
            (Moment::Stopping(since), Some(left)) => {
                let (since, left) = (seconds(since), seconds(left));
                format!("{since} since the signal, {left} left to the hard deadline")
            }
            (Moment::Over(took), _) => format!("{} after the signal", seconds(took)),
        }
    }
}

/// A duration for a person.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::demo::clients::Kind;
    use crate::demo::clients::tests::tally;

    /// In the middle of a drain, with three requests lost.
    pub(in crate::demo) fn view() -> View {
        View {
            stop: Stop::Drain,
            at: Duration::from_millis(4500),
            moment: Moment::Stopping(Duration::from_millis(1500)),
            phase: Phase::Draining,
            left: Some(Duration::from_millis(8500)),
            connections: ConnectionCounts::default(),
            most: 20,
            tally: tally(Kind::Get, 2, 3, 1),
        }
    }

    #[test]
    fn every_stage_has_its_words() {
        for phase in Phase::ALL {
            let view = View { phase, ..view() };
            assert!(!view.stage().contains('_') && !view.explanation().is_empty());
        }
        let killed = View { stop: Stop::Naive, ..view() };
        assert_eq!(killed.stage(), "killed");
        assert_eq!(View { moment: Moment::Loading(Duration::ZERO), ..killed }.stage(), "draining");
    }

    #[test]
    fn no_time_is_left_once_the_deadline_is_over() {
        let view = View { phase: Phase::Cutting, ..view() };
        assert_eq!(view.time(), "1.5 s since the signal");
    }
}
