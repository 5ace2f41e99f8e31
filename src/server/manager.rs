//! What the control thread tells the service manager: how many there are, and that
//! every thread still turns.

use std::os::fd::AsFd as _;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::activation::stored_name;
use super::overview::Overview;
use crate::drain::Deadline;
use crate::handoff::Keeper;
use crate::lifecycle::notify::{Environment, Notifier, Vitals};
use crate::net::Listener;
use crate::serve::Delivery;
use crate::telemetry::{Event, Events, Level};

/// The service manager as the control thread sees it.
pub(super) struct Manager {
    /// What it is told of upgrades is up to whoever does them.
    pub(super) notifier: Notifier,
    questions: Vec<Question>,
    /// How many descriptors it stores, if it says so (`FDSTORE`, since systemd 254).
    room: usize,
    full: bool,
    events: Events,
}

/// What a worker was asked last.
#[derive(Default)]
struct Question {
    /// Since when there is no answer.
    open: Option<(Instant, Option<oneshot::Receiver<()>>)>,
    named: bool,
}

impl Manager {
    /// There may be none: then all of this is idle.
    pub(super) fn new(is_successor: bool, workers: usize, events: &Events) -> Self {
        let environment = Environment::read();
        Manager {
            notifier: Notifier::new(&environment, is_successor, events.clone()),
            questions: std::iter::repeat_with(Question::default).take(workers).collect(),
            room: environment.room().unwrap_or(usize::MAX),
            full: false,
            events: events.clone(),
        }
    }

    /// When [`Manager::beat`] is due.
    pub(super) fn due(&self) -> Deadline {
        self.notifier.due()
    }

    /// Tells the manager what it has to hear from time to time. The workers are asked
    /// only where somebody wants to know; those that have ended well are not.
    pub(super) fn beat(&mut self, overview: &Overview, workers: &[mpsc::Sender<Delivery>]) {
        let turns = self.ask(workers);
        self.notifier.beat(vitals(overview), turns);
    }

    /// The successor is to stay. Says whether it has to be told that it is the main process
    /// now.
    pub(super) fn committed(&mut self, successor: u32) -> bool {
        if !is_ours(successor) {
            self.notifier.went_elsewhere(successor);
            return false;
        }
        self.notifier.committed(successor)
    }

    /// Gives the manager copies of the listeners that it has not, if it is to have them
    /// (`systemd.store`). To be called when the process serves and at each beat: a successor
    /// is not listened to before it is the main process.
    pub(super) fn store(&mut self, wanted: bool, listeners: &mut [Listener]) {
        if !wanted {
            // What was stored before the configuration said so.
            return self.forget(listeners);
        }
        let is_stored = |listener: &&Listener| listener.keeper() == Some(Keeper::Store);
        let mut stored = listeners.iter().filter(is_stored).count();
        let missing = |listener: &&mut Listener| listener.keeper().is_none();
        for listener in listeners.iter_mut().filter(missing) {
            if stored >= self.room {
                return self.is_full();
            }
            if self.notifier.store(&stored_name(listener.name()), listener.as_fd()) {
                listener.set_keeper(Some(Keeper::Store));
                stored += 1;
            }
        }
    }

    fn is_full(&mut self) {
        if !std::mem::replace(&mut self.full, true) {
            let event = Event::new(Level::Warn, "store_full").with("room", self.room);
            let message = "systemd stores fewer listeners than there are: FileDescriptorStoreMax=";
            self.events.emit(event.with("message", message));
        }
    }

    /// Has the manager close its copies of listeners that are not used any more, so that
    /// they can be closed without a reset. Only the main process can: from any other one
    /// they stay with the manager.
    pub(super) fn forget(&mut self, listeners: &mut [Listener]) {
        let stored = |listener: &&mut Listener| listener.keeper() == Some(Keeper::Store);
        for listener in listeners.iter_mut().filter(stored) {
            if self.notifier.forget(&stored_name(listener.name())) {
                listener.set_keeper(None);
            }
        }
    }

    /// Asks every worker that has answered the last question, and says whether none
    /// has left one open for a quarter of the time that the manager gives us.
    fn ask(&mut self, workers: &[mpsc::Sender<Delivery>]) -> bool {
        let Some(patience) = self.notifier.watchdog() else { return true };
        let now = Instant::now();
        let mut turns = true;
        for (index, (worker, question)) in workers.iter().zip(&mut self.questions).enumerate() {
            question.look();
            let (since, answer) = question.open.get_or_insert((now, None));
            if answer.is_none() {
                let (answers, asked) = oneshot::channel();
                // One whose deliveries are full is asked later, and is late meanwhile.
                if worker.try_send(Delivery::Question(answers)).is_ok() {
                    *answer = Some(asked);
                }
            }
            let silent = now.saturating_duration_since(*since);
            if silent >= patience / 4 {
                turns = false;
                if !std::mem::replace(&mut question.named, true) {
                    let event = Event::new(Level::Error, "worker_stuck").with("worker", index);
                    let event = event.with("silent_ms", silent.as_millis() as u64);
                    let message = "the service manager hears nothing of us until it turns again";
                    self.events.emit(event.with("message", message));
                }
            }
        }
        turns
    }
}

impl Question {
    fn look(&mut self) {
        let Some((_, Some(answer))) = &mut self.open else { return };
        // One that has ended is not stuck, and is seen to end elsewhere.
        if !matches!(answer.try_recv(), Err(TryRecvError::Empty)) {
            *self = Question::default();
        }
    }
}

/// Whether a process belongs to the same service as this one: the manager of another one
/// knows it already, and ours must not know it.
fn is_ours(pid: u32) -> bool {
    let group = |of: &str| std::fs::read(format!("/proc/{of}/cgroup"));
    group(&pid.to_string()).is_ok_and(|its| group("self").is_ok_and(|ours| its == ours))
}

/// How the process is.
pub(super) fn vitals(overview: &Overview) -> Vitals {
    let state = overview.state.borrow();
    let elders = overview.elders_left();
    Vitals {
        connections: overview.connections().total(),
        in_flight: overview.totals().in_flight.iter().sum(),
        left: state.hard_deadline().and_then(|deadline| deadline.left(Instant::now())),
        outgoing: state.is_outgoing(),
        elders: elders.iter().filter(|(_, left)| *left > 0).count(),
        with_elders: elders.iter().map(|(_, left)| left).sum(),
    }
}
