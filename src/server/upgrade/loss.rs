//! What becomes of this process when the channel to its successor has ended, as a pure
//! function.
//!
//! | we | it accepts | its end | fate |
//! | --- | --- | --- | --- |
//! | serve, or are in lame duck | no | whatever it is | [`Fate::GoOn`] |
//! | are in lame duck | yes | it lives, or was about to stop | [`Fate::Stay`] |
//! | are in lame duck | yes | any other | [`Fate::GoOn`] |
//! | leave by the plan of an upgrade | yes | it lives, or was about to stop | [`Fate::Stay`] |
//! | leave by the plan of an upgrade | yes | any other, and it is in time | [`Fate::TakeBack`] |
//! | leave by the plan of an upgrade | yes | any other, too late | [`Fate::Stay`] |
//! | stop | either | whatever it is | [`Fate::Stay`] |
//!
//! None of them waits for the certainty that the other has ended: it is told, or will read,
//! that it is no successor any more. What is not certain only says whether our listeners
//! are ours alone.

use super::outgoing::Over;
use crate::drain::{Phase, Plan};

/// How this process stands when it loses its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum We {
    /// Nothing has moved yet.
    Serve,
    /// About to stop, but open.
    LameDuck,
    /// By the plan of an upgrade: the successor has the listeners.
    Leave,
    /// By the stop plan, from closing on.
    Stop,
}

impl We {
    pub(super) fn new(phase: Phase, by: Option<Plan>) -> We {
        match (phase, by) {
            (Phase::Starting | Phase::Serving, _) => We::Serve,
            (Phase::LameDuck, _) => We::LameDuck,
            (Phase::Draining, Some(Plan::Upgrade)) => We::Leave,
            _ => We::Stop,
        }
    }
}

/// How the channel to it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is closed on the other side.
    Closed,
    /// The other side has refused to take more: it goes on.
    Declined,
    /// It was not to be understood, or was late, or not wanted: it may live.
    Broken,
}

impl From<&Over> for End {
    fn from(over: &Over) -> End {
        match over {
            Over::Ended => End::Closed,
            Over::Declined(_) => End::Declined,
            Over::Bye | Over::Refused(_) | Over::Broken(_) | Over::OutOfTurn(_) | Over::Late(_) => {
                End::Broken
            }
        }
    }
}

/// A successor that is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) we: We,
    /// It has said that it accepts.
    pub(super) serving: bool,
    pub(super) end: End,
    /// It was about to stop, and has said so.
    pub(super) dismissed: bool,
    /// `upgrade.take_back` is not over, our copies of the listeners are still there, and
    /// no service manager would end us with the one it knows.
    pub(super) in_time: bool,
}

/// What becomes of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing had moved: it is as it was before.
    GoOn,
    /// It serves again.
    TakeBack,
    /// It ends as it was about to, without anybody to whom connections could go.
    Stay,
}

impl Loss {
    pub(super) fn fate(self) -> Fate {
        let lives_on = self.serving && (self.end == End::Declined || self.dismissed);
        match self.we {
            We::Serve => Fate::GoOn,
            We::LameDuck if !lives_on => Fate::GoOn,
            We::Leave if !lives_on && self.in_time => Fate::TakeBack,
            We::LameDuck | We::Leave | We::Stop => Fate::Stay,
        }
    }

    /// Whether it must not come back: it has never accepted, or we go on in its place.
    pub(super) fn must_end(self) -> bool {
        !self.serving || self.fate() != Fate::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [End; 3] = [End::Closed, End::Declined, End::Broken];
    const BOTH: [bool; 2] = [false, true];

    fn all() -> impl Iterator<Item = Loss> {
        let we = [We::Serve, We::LameDuck, We::Leave, We::Stop].into_iter();
        we.flat_map(|we| ENDS.map(|end| (we, end)))
            .flat_map(|(we, end)| BOTH.map(|serving| (we, end, serving)))
            .flat_map(|(we, end, serving)| BOTH.map(|dismissed| (we, end, serving, dismissed)))
            .flat_map(|(we, end, serving, dismissed)| {
                BOTH.map(|in_time| Loss { we, serving, end, dismissed, in_time })
            })
    }

    #[test]
    fn before_it_accepts_nothing_is_lost_with_it() {
        let open =
            all().filter(|loss| !loss.serving && matches!(loss.we, We::Serve | We::LameDuck));
        let mut seen = 0;
        for loss in open {
            assert_eq!((loss.fate(), loss.must_end()), (Fate::GoOn, true), "{loss:?}");
            seen += 1;
        }
        assert_eq!(seen, 2 * 3 * 2 * 2);
    }

    #[test]
    fn one_who_stops_goes_on_stopping_and_leaves_only_one_that_serves() {
        for loss in all().filter(|loss| loss.we == We::Stop) {
            assert_eq!((loss.fate(), loss.must_end()), (Fate::Stay, !loss.serving), "{loss:?}");
        }
    }

    #[test]
    fn one_that_lives_or_is_about_to_stop_is_left_alone() {
        let lives = |loss: &Loss| loss.end == End::Declined || loss.dismissed;
        let we = |loss: &Loss| matches!(loss.we, We::LameDuck | We::Leave);
        for loss in all().filter(|loss| loss.serving && lives(loss) && we(loss)) {
            assert_eq!((loss.fate(), loss.must_end()), (Fate::Stay, false), "{loss:?}");
        }
    }

    #[test]
    fn one_that_is_lost_in_time_is_followed_by_us() {
        for end in [End::Closed, End::Broken] {
            for in_time in BOTH {
                let loss = Loss { we: We::Leave, serving: true, end, dismissed: false, in_time };
                let fate = if in_time { Fate::TakeBack } else { Fate::Stay };
                assert_eq!((loss.fate(), loss.must_end()), (fate, in_time), "{loss:?}");
                let loss = Loss { we: We::LameDuck, ..loss };
                assert_eq!((loss.fate(), loss.must_end()), (Fate::GoOn, true), "{loss:?}");
            }
        }
    }

    #[test]
    fn what_we_do_is_what_the_state_machine_says() {
        let upgrade = Some(Plan::Upgrade);
        let stop = Some(Plan::Stop);
        assert_eq!(We::new(Phase::Serving, None), We::Serve);
        assert_eq!(We::new(Phase::LameDuck, stop), We::LameDuck);
        assert_eq!(We::new(Phase::Draining, upgrade), We::Leave);
        for (phase, by) in [
            (Phase::Closing, stop),
            (Phase::Draining, stop),
            (Phase::Cutting, upgrade),
            (Phase::Finishing, upgrade),
            (Phase::Stopped, stop),
        ] {
            assert_eq!(We::new(phase, by), We::Stop, "{phase}");
        }
    }
}
