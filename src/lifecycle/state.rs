//! The state machine of a stop, and of leaving for a successor, as a pure function.
//!
//! | phase | left when | bound |
//! | --- | --- | --- |
//! | `starting` | ready | – |
//! | `serving` | a signal, a worker that died, or a successor that serves | – |
//! | `lame_duck` | its pause is over | `lame_duck` |
//! | `closing` | the listeners are closed | 1 s |
//! | `draining` | nothing is alive | `drain_timeout`, from the start of closing |
//! | `cutting` | nothing is alive | `cut_timeout` |
//! | `finishing` | all is flushed | `finish_timeout` |
//! | `stopped` | – | – |
//!
//! `total_timeout` bounds all of them. A second signal, more than a second
//! after the first, skips to cutting; the one after that ends the process. A
//! stop that something else began counts no signal yet.
//!
//! When a successor serves, the process goes from `serving` straight to `draining`, by
//! the plan of an upgrade: the listeners are the successor's. A signal then makes the
//! plan that of a stop, and the nearer deadline counts; a successor that dies soon
//! enough makes the process serve again. A successor that serves while this process is in
//! lame duck or closing has the work all the same: nobody is told that the service stops.
//! A process whose elder goes on in its place leaves by the plan of a stop, and closes
//! nothing: it goes to `draining` at once.

use std::time::{Duration, Instant};

use crate::config::Plan;
use crate::drain::{self, Deadline, Phase};
use crate::limits::{CLOSING, SAME_SIGNAL};

/// Where the process stands, and the instants that were fixed when its stop began.
#[derive(Clone, Debug)]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// When the phase began.
    pub entered: Instant,
    /// The stop under way, if there is one.
    pub stop: Option<Stop>,
    plans: Plans,
}

/// What a drain takes, and how long, whatever its cause.
#[derive(Clone, Debug)]
pub struct Plans {
    /// Nobody goes on.
    pub stop: Plan,
    /// A successor does.
    pub upgrade: Plan,
}

impl Plans {
    /// The values of a plan.
    pub fn of(&self, by: drain::Plan) -> &Plan {
        match by {
            drain::Plan::Stop => &self.stop,
            drain::Plan::Upgrade => &self.upgrade,
        }
    }
}

/// A stop under way, or a leave.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// By which plan.
    pub by: drain::Plan,
    /// When it began.
    pub began: Instant,
    /// The end of the present phase, if nothing ends it before.
    pub bound: Deadline,
    /// When what is left is cut; fixed when closing begins.
    pub hard_deadline: Deadline,
    total: Deadline,
    handed_over: bool,
    first_signal: Option<Instant>,
    second_signal: bool,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Listeners are bound and workers accept.
    Ready,
    /// SIGTERM, SIGINT or SIGQUIT.
    Signal,
    /// A worker ended unasked: what is left has to end well.
    WorkerLost,
    /// Time has passed: a bound may be over.
    Tick,
    /// Every listener is closed.
    ListenersClosed,
    /// No connection is alive.
    Empty,
    /// Everything is flushed and written.
    Finished,
    /// A successor serves.
    HandedOver,
    /// It is gone, and it was not too late to go on.
    TakenBack,
    /// It wants us gone soon.
    Leave,
    /// An elder goes on in the place of this process.
    Replaced,
}

/// What is to be done now, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say which phase follows which; `elapsed` is how long the left one took.
    Announce {
        /// The phase that was left.
        from: Phase,
        /// The phase that begins.
        to: Phase,
        /// How long the left one took.
        elapsed: Duration,
    },
    /// The phase overran its bound: warn, record, go on.
    Overrun(Phase),
    /// Connections: serve on, but say that the end is near.
    TellLameDuck,
    /// Close the listeners without a reset, and begin to ask connections to end.
    CloseListeners,
    /// Connections: end by the rule of your state, at the latest at the deadline.
    TellDraining(drain::Plan, Deadline),
    /// Connections: go on as always.
    TellOpen,
    /// Connections: end now.
    TellCut,
    /// Flush logs, write the report.
    Finish,
    /// Nothing is left to do.
    Exit,
    /// The third signal: end the process now, whatever is left.
    Abort,
}

impl State {
    /// A process that has not begun to serve.
    pub fn new(plans: Plans, now: Instant) -> Self {
        State { phase: Phase::Starting, entered: now, stop: None, plans }
    }

    /// Whether a successor goes on with the work.
    pub fn is_outgoing(&self) -> bool {
        self.stop.is_some_and(|stop| stop.handed_over)
    }

    /// How long the drain under way may take in all, with the time before it is forced.
    pub fn longest(&self) -> Option<Deadline> {
        let stop = self.stop?;
        Some(stop.total.plus(self.plans.of(stop.by).force_timeout))
    }

    /// When [`Event::Tick`] is due.
    pub fn next_tick(&self) -> Deadline {
        self.stop.map_or(Deadline::NEVER, |stop| stop.bound)
    }

    /// When what is left will be cut, once that is known.
    pub fn hard_deadline(&self) -> Option<Deadline> {
        self.stop.filter(|_| self.phase >= Phase::Closing).map(|stop| stop.hard_deadline)
    }
}

/// What follows when `event` happens in `state`. Never goes backwards, but where the
/// successor is lost, and ends in [`Phase::Stopped`] whatever comes, if ticks come when
/// they are due.
pub fn step(state: State, event: Event, now: Instant) -> (State, Vec<Action>) {
    let mut machine = Machine { state, actions: Vec::new(), now };
    machine.take(event);
    (machine.state, machine.actions)
}

struct Machine {
    state: State,
    actions: Vec<Action>,
    now: Instant,
}

impl Machine {
    fn take(&mut self, event: Event) {
        use Phase::*;
        match (self.state.phase, event) {
            (Starting, Event::Ready) => self.enter(Serving),
            (_, Event::Signal) => self.signal(),
            (_, Event::WorkerLost) if self.state.stop.is_none() => self.begin(None),
            (Serving, Event::HandedOver) => self.leave(),
            (LameDuck | Closing, Event::HandedOver) => self.handed_over(true),
            (Draining, Event::TakenBack) => self.take_back(),
            (LameDuck, Event::TakenBack) => self.handed_over(false),
            (Draining, Event::Leave | Event::Replaced) => self.hurry(None),
            (Serving | LameDuck, Event::Replaced) => self.make_room(),
            (Closing, Event::Replaced) => self.handed_over(true),
            (Closing, Event::ListenersClosed) => self.enter(Draining),
            (Draining | Cutting, Event::Empty) => self.enter(Finishing),
            (Finishing, Event::Finished) => self.enter(Stopped),
            (_, Event::Tick) => self.tick(),
            _ => {}
        }
    }

    fn signal(&mut self) {
        let Some(stop) = &mut self.state.stop else {
            return self.begin(Some(self.now));
        };
        if stop.by == drain::Plan::Upgrade && self.state.phase == Phase::Draining {
            return self.hurry(Some(self.now));
        }
        if self.now < *stop.first_signal.get_or_insert(self.now) + SAME_SIGNAL {
            return;
        }
        if std::mem::replace(&mut stop.second_signal, true) {
            self.actions.push(Action::Abort);
        } else if self.state.phase < Phase::Cutting {
            self.enter(Phase::Cutting);
        }
    }

    fn begin(&mut self, first_signal: Option<Instant>) {
        self.state.stop = Some(self.drain_by(drain::Plan::Stop, first_signal));
        if self.state.plans.stop.lame_duck.is_zero() {
            self.enter(Phase::Closing);
        } else {
            self.enter(Phase::LameDuck);
        }
    }

    fn drain_by(&self, by: drain::Plan, first_signal: Option<Instant>) -> Stop {
        let total = Deadline::after(self.now, self.state.plans.of(by).total_timeout);
        Stop {
            by,
            began: self.now,
            bound: total,
            hard_deadline: total,
            total,
            handed_over: by == drain::Plan::Upgrade,
            first_signal,
            second_signal: false,
        }
    }

    /// The successor has the listeners: what is left has much time.
    fn leave(&mut self) {
        let mut stop = self.drain_by(drain::Plan::Upgrade, None);
        let length = self.state.plans.upgrade.drain_timeout;
        stop.hard_deadline = Deadline::after(self.now, length).nearer(stop.total);
        self.state.stop = Some(stop);
        self.enter(Phase::Draining);
        self.actions.push(Action::TellDraining(drain::Plan::Upgrade, stop.hard_deadline));
    }

    /// Somebody else serves, or does so no more, while this process stops.
    fn handed_over(&mut self, handed_over: bool) {
        if let Some(stop) = &mut self.state.stop {
            stop.handed_over = handed_over;
        }
    }

    /// The elder has the listeners again, and what this process still has is all that is
    /// left of it: nothing needs to be closed first.
    fn make_room(&mut self) {
        let fresh = self.drain_by(drain::Plan::Stop, None);
        let mut stop = self.state.stop.unwrap_or(fresh);
        let length = self.state.plans.stop.drain_timeout;
        stop.handed_over = true;
        stop.hard_deadline = Deadline::after(self.now, length).nearer(stop.total);
        self.state.stop = Some(stop);
        self.enter(Phase::Draining);
        self.actions.push(Action::TellDraining(drain::Plan::Stop, stop.hard_deadline));
    }

    /// What is left has no more time than a stop gives.
    fn hurry(&mut self, first_signal: Option<Instant>) {
        let Some(before) = self.state.stop else { return };
        if before.by == drain::Plan::Stop {
            return;
        }
        let mut stop = self.drain_by(drain::Plan::Stop, first_signal);
        let within = Deadline::after(self.now, self.state.plans.stop.drain_timeout);
        stop.began = before.began;
        stop.handed_over = before.handed_over;
        stop.total = stop.total.nearer(before.total);
        stop.hard_deadline = within.nearer(before.hard_deadline).nearer(stop.total);
        stop.bound = stop.hard_deadline;
        self.state.stop = Some(stop);
        self.actions.push(Action::TellDraining(drain::Plan::Stop, stop.hard_deadline));
    }

    fn take_back(&mut self) {
        if self.state.stop.is_none_or(|stop| stop.by == drain::Plan::Stop) {
            return;
        }
        self.state.stop = None;
        self.enter(Phase::Serving);
        self.actions.push(Action::TellOpen);
    }

    fn tick(&mut self) {
        let Some(stop) = self.state.stop else { return };
        if !stop.bound.is_over(self.now) {
            return;
        }
        let phase = self.state.phase;
        if matches!(phase, Phase::Closing | Phase::Cutting | Phase::Finishing) {
            self.actions.push(Action::Overrun(phase));
        }
        match phase {
            Phase::LameDuck => self.enter(Phase::Closing),
            Phase::Closing => self.enter(Phase::Draining),
            Phase::Draining => self.enter(Phase::Cutting),
            Phase::Cutting => self.enter(Phase::Finishing),
            Phase::Finishing => self.enter(Phase::Stopped),
            Phase::Starting | Phase::Serving | Phase::Stopped => {}
        }
    }

    /// Leaves the present phase for `to` and fixes the bound of `to`.
    fn enter(&mut self, to: Phase) {
        let from = self.state.phase;
        let elapsed = self.now.saturating_duration_since(self.state.entered);
        self.actions.push(Action::Announce { from, to, elapsed });
        self.state.phase = to;
        self.state.entered = self.now;
        let by = self.state.stop.map_or(drain::Plan::Stop, |stop| stop.by);
        let plan = self.state.plans.of(by);
        let within = |length| Deadline::after(self.now, length);
        if let Some(stop) = &mut self.state.stop {
            let bound = match to {
                Phase::LameDuck => within(plan.lame_duck),
                Phase::Closing => {
                    stop.hard_deadline = within(plan.drain_timeout).nearer(stop.total);
                    within(CLOSING).nearer(stop.hard_deadline)
                }
                Phase::Draining => stop.hard_deadline,
                Phase::Cutting => within(plan.cut_timeout),
                Phase::Finishing => within(plan.finish_timeout),
                Phase::Starting | Phase::Serving | Phase::Stopped => Deadline::NEVER,
            };
            stop.bound = bound.nearer(stop.total.later(Deadline::at(self.now)));
        }
        match to {
            Phase::LameDuck => self.actions.push(Action::TellLameDuck),
            Phase::Closing => self.close(),
            Phase::Cutting => self.cut(from),
            Phase::Finishing => self.actions.push(Action::Finish),
            Phase::Stopped => self.actions.push(Action::Exit),
            Phase::Starting | Phase::Serving | Phase::Draining => {}
        }
    }

    /// Connections already accepted are told while the listeners still close.
    fn close(&mut self) {
        let deadline = self.state.stop.map_or(Deadline::NEVER, |stop| stop.hard_deadline);
        self.actions.push(Action::TellDraining(drain::Plan::Stop, deadline));
        self.actions.push(Action::CloseListeners);
    }

    /// A stop cut short in lame duck still closes its listeners.
    fn cut(&mut self, from: Phase) {
        if from < Phase::Closing {
            self.actions.push(Action::CloseListeners);
        }
        self.actions.push(Action::TellCut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(lame_duck: u64) -> Plan {
        let seconds = Duration::from_secs;
        Plan {
            lame_duck: seconds(lame_duck),
            first_request_grace: seconds(2),
            idle_grace: seconds(1),
            goaway_grace: Duration::from_millis(200),
            stream_close_after: Duration::ZERO,
            spread: Duration::from_secs(2),
            close_timeout: Duration::from_secs(5),
            linger: seconds(1),
            drain_timeout: seconds(20),
            cut_timeout: seconds(2),
            finish_timeout: seconds(3),
            total_timeout: seconds(26 + lame_duck),
            force_timeout: seconds(2),
        }
    }

    fn plans(lame_duck: u64) -> Plans {
        let upgrade = Plan {
            drain_timeout: Duration::from_secs(3_600),
            total_timeout: Duration::from_secs(3_606),
            ..plan(0)
        };
        Plans { stop: plan(lame_duck), upgrade }
    }

    struct Run {
        state: State,
        start: Instant,
    }

    impl Run {
        fn serving(lame_duck: u64) -> Run {
            let start = Instant::now();
            let (state, _) = step(State::new(plans(lame_duck), start), Event::Ready, start);
            Run { state, start }
        }

        fn at(&mut self, millis: u64, event: Event) -> Vec<Action> {
            let now = self.start + Duration::from_millis(millis);
            let (state, actions) = step(self.state.clone(), event, now);
            self.state = state;
            actions
        }
    }

    #[test]
    fn a_stop_with_nothing_to_do_sleeps_no_bound() {
        let mut run = Run::serving(0);
        assert!(run.at(10, Event::Signal).contains(&Action::CloseListeners));
        run.at(12, Event::ListenersClosed);
        assert!(run.at(12, Event::Empty).contains(&Action::Finish));
        assert!(run.at(13, Event::Finished).contains(&Action::Exit));
        assert_eq!(run.state.phase, Phase::Stopped);
    }

    #[test]
    fn phases_follow_each_other_at_their_bounds() {
        let mut run = Run::serving(5);
        assert!(run.at(0, Event::Signal).contains(&Action::TellLameDuck));
        assert!(run.at(4_999, Event::Tick).is_empty());
        let expected = Deadline::after(run.start, Duration::from_secs(25));
        assert!(
            run.at(5_000, Event::Tick).contains(&Action::TellDraining(drain::Plan::Stop, expected))
        );
        assert!(run.at(6_000, Event::Tick).contains(&Action::Overrun(Phase::Closing)));
        assert!(run.at(24_999, Event::Tick).is_empty());
        assert!(run.at(25_000, Event::Tick).contains(&Action::TellCut));
        assert!(run.at(27_000, Event::Tick).contains(&Action::Finish));
        assert!(run.at(30_000, Event::Tick).contains(&Action::Exit));
    }

    #[test]
    fn signals_within_a_second_are_one_the_next_cuts_and_the_one_after_aborts() {
        let mut run = Run::serving(0);
        run.at(0, Event::Signal);
        run.at(1, Event::ListenersClosed);
        assert!(run.at(999, Event::Signal).is_empty());
        assert!(run.at(1_001, Event::Signal).contains(&Action::TellCut));
        assert_eq!(run.at(1_002, Event::Signal), [Action::Abort]);
    }

    #[test]
    fn a_lost_worker_begins_a_stop_that_counts_no_signal() {
        let mut run = Run::serving(0);
        assert!(run.at(0, Event::WorkerLost).contains(&Action::CloseListeners));
        assert!(run.at(10, Event::WorkerLost).is_empty());
        assert!(run.at(5_000, Event::Signal).is_empty());
        assert!(run.at(5_900, Event::Signal).is_empty());
        assert!(run.at(6_100, Event::Signal).contains(&Action::TellCut));
        assert_eq!(run.at(6_200, Event::Signal), [Action::Abort]);
    }

    #[test]
    fn a_successor_has_the_listeners_and_what_is_left_has_much_time() {
        let mut run = Run::serving(5);
        let expected = Deadline::after(run.start, Duration::from_secs(3_601));
        let actions = run.at(1_000, Event::HandedOver);
        assert!(actions.contains(&Action::TellDraining(drain::Plan::Upgrade, expected)));
        assert!(!actions.contains(&Action::CloseListeners) && run.state.is_outgoing());
        assert!(run.at(2_000, Event::Empty).contains(&Action::Finish));
        assert!(run.at(2_001, Event::Finished).contains(&Action::Exit));
    }

    #[test]
    fn the_first_signal_to_one_that_leaves_hurries_it_the_next_cuts() {
        let mut run = Run::serving(0);
        run.at(0, Event::HandedOver);
        let expected = Deadline::after(run.start, Duration::from_secs(25));
        let actions = run.at(5_000, Event::Signal);
        assert_eq!(actions, [Action::TellDraining(drain::Plan::Stop, expected)]);
        assert!(run.at(5_900, Event::Signal).is_empty());
        assert!(run.at(6_100, Event::Signal).contains(&Action::TellCut));
        assert_eq!(run.at(6_200, Event::Signal), [Action::Abort]);
    }

    #[test]
    fn who_is_asked_to_leave_soon_keeps_the_nearer_deadline_and_counts_no_signal() {
        let mut run = Run::serving(0);
        run.at(0, Event::HandedOver);
        let expected = Deadline::after(run.start, Duration::from_secs(3_600));
        let actions = run.at(3_590_000, Event::Leave);
        assert_eq!(actions, [Action::TellDraining(drain::Plan::Stop, expected)]);
        assert!(run.at(3_590_001, Event::Leave).is_empty());
        assert!(run.at(3_592_000, Event::Signal).is_empty());
        assert!(run.at(3_593_001, Event::Signal).contains(&Action::TellCut));
    }

    #[test]
    fn a_lost_successor_makes_it_serve_again_but_not_once_it_stops() {
        let mut run = Run::serving(0);
        run.at(0, Event::HandedOver);
        assert!(run.at(10, Event::TakenBack).contains(&Action::TellOpen));
        assert_eq!((run.state.phase, run.state.next_tick()), (Phase::Serving, Deadline::NEVER));
        assert!(!run.state.is_outgoing() && run.state.longest().is_none());
        run.at(20, Event::HandedOver);
        run.at(30, Event::Signal);
        assert!(run.at(40, Event::TakenBack).is_empty());
        assert!(run.at(50, Event::Empty).contains(&Action::Finish));
    }

    #[test]
    fn a_successor_that_serves_during_a_stop_has_the_work_as_long_as_it_lives() {
        let mut run = Run::serving(5);
        run.at(0, Event::Signal);
        assert!(!run.state.is_outgoing());
        assert!(run.at(10, Event::HandedOver).is_empty() && run.state.is_outgoing());
        assert!(run.at(20, Event::TakenBack).is_empty() && !run.state.is_outgoing());
        assert_eq!(run.state.phase, Phase::LameDuck, "it is not cut short");
        assert!(run.at(5_000, Event::Tick).contains(&Action::CloseListeners));
        assert!(run.at(5_010, Event::HandedOver).is_empty() && run.state.is_outgoing());
        assert_eq!(run.state.phase, Phase::Closing);
    }

    #[test]
    fn whose_elder_goes_on_drains_at_once_and_closes_nothing() {
        for lame_duck in [0, 5] {
            let mut run = Run::serving(lame_duck);
            if lame_duck > 0 {
                run.at(0, Event::Signal);
            }
            let expected = Deadline::after(run.start, Duration::from_secs(21));
            let actions = run.at(1_000, Event::Replaced);
            assert!(actions.contains(&Action::TellDraining(drain::Plan::Stop, expected)));
            assert!(!actions.contains(&Action::CloseListeners));
            assert!(run.state.is_outgoing() && run.state.phase == Phase::Draining);
            assert!(run.at(1_100, Event::Replaced).is_empty(), "once");
            assert!(run.at(1_200, Event::TakenBack).is_empty(), "for good");
            assert!(run.at(2_000, Event::Empty).contains(&Action::Finish));
        }
    }

    #[test]
    fn a_signal_before_ready_stops_the_start() {
        let start = Instant::now();
        let (state, actions) = step(State::new(plans(0), start), Event::Signal, start);
        assert_eq!(state.phase, Phase::Closing);
        assert!(actions.contains(&Action::CloseListeners));
    }

    #[test]
    fn whatever_comes_the_phase_never_goes_back_and_the_end_is_reached() {
        let events = [
            Event::Ready,
            Event::Signal,
            Event::WorkerLost,
            Event::Tick,
            Event::ListenersClosed,
            Event::Empty,
            Event::Finished,
            Event::HandedOver,
            Event::TakenBack,
            Event::Leave,
            Event::Replaced,
        ];
        let mut seed = 1u64;
        for _ in 0..2_000 {
            let mut run = Run::serving(seed % 3);
            let mut millis = 0;
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let before = run.state.phase;
                millis += (seed >> 33) % 700;
                let event = events[(seed >> 59) as usize % events.len()];
                let tells = run.at(millis, event);
                let back = event == Event::TakenBack && tells.contains(&Action::TellOpen);
                assert!(run.state.phase >= before || back);
            }
            run.at(millis + 1, Event::Signal);
            for _ in 0..8 {
                millis += 60_000;
                run.at(millis, Event::Tick);
            }
            assert_eq!(run.state.phase, Phase::Stopped);
        }
    }
}
