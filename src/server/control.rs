//! The control loop: turns what happens into events of the state machine, and
//! its actions into deeds.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc;

use super::close::{Deliverer, close};
use super::door::{Admin, Request};
use super::manager::{Manager, vitals};
use super::overview::Overview;
use super::signals::{Asked, Signals};
use super::stop::{self, Remains, Stopping};
use super::upgrade::elders::Elders;
use super::upgrade::program::Program;
use super::upgrade::succession::Succession;
use super::workers::Workers;
use crate::admin::Progress;
use crate::config::Config;
use crate::drain::{Deadline, Orders, Phase, Plan, Rule, Stage, kept};
use crate::handoff::channel::Peer;
use crate::handoff::{Channel, Takeover};
use crate::lifecycle::watchdog::Watchdog;
use crate::lifecycle::{Action, Event as Happened, step};
use crate::limits::{CLOSING, HOUSEKEEPING, LAST_MOMENT, STRANGERS_EVERY};
use crate::net::Listener;
use crate::serve::Departure;
use crate::telemetry::{Event, Events, Level};
use crate::tls::Tickets;

pub(super) type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// What the control thread holds.
pub(super) struct Control {
    pub(super) config: Arc<Config>,
    pub(super) overview: Rc<Overview>,
    pub(super) events: Events,
    signals: Signals,
    pub(super) program: Program,
    /// Its copies: also after the workers have closed theirs, as long as a successor may
    /// be lost.
    pub(super) listeners: Vec<Listener>,
    pub(super) workers: Option<Workers>,
    /// Connections that leave for a successor; taken while there is one.
    pub(super) departures: Option<mpsc::Receiver<Departure>>,
    /// Connections that did not get there.
    pub(super) returned: Vec<Departure>,
    watchdog: Watchdog,
    pub(super) manager: Manager,
    pub(super) stopping: Stopping,
    /// Closing the listeners, while it is under way; tells what went wrong.
    closing: Option<Running<Vec<String>>>,
    /// Stopping the workers, while it is under way.
    finishing: Option<Running<()>>,
    pub(super) admin: Option<Admin>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) takeover: Option<Takeover>,
    pub(super) tickets: Option<Arc<Tickets>>,
    pub(super) elders: Elders,
    pub(super) succession: Succession,
    /// Who wants to know how a replacement goes on.
    pub(super) watchers: Vec<mpsc::Sender<Progress>>,
    signals_seen: u32,
    /// When the logs are looked after next.
    housekeeping: Deadline,
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All phases are through.
    Stopped,
    /// A third signal.
    Aborted,
}

/// What a process that is about to serve is made of.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) overview: Rc<Overview>,
    pub(super) workers: Workers,
    pub(super) departures: mpsc::Receiver<Departure>,
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<(Admin, mpsc::Receiver<Request>)>,
    pub(super) takeover: Option<Takeover>,
    pub(super) tickets: Option<Arc<Tickets>>,
    pub(super) elders: Elders,
    /// An elder has started this process, in whose service it is.
    pub(super) launched: bool,
    pub(super) program: Program,
    pub(super) signals: Signals,
    pub(super) events: Events,
}

impl Control {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let (admin, requests) = parts.admin.unzip();
        Ok(Control {
            watchdog: Watchdog::start(stop::expire)?,
            manager: Manager::new(parts.launched, parts.config.workers, &parts.events),
            config: parts.config,
            stopping: Stopping::new(parts.overview.generation),
            overview: parts.overview,
            events: parts.events,
            signals: parts.signals,
            program: parts.program,
            listeners: parts.listeners,
            workers: Some(parts.workers),
            departures: Some(parts.departures),
            returned: Vec::new(),
            closing: None,
            finishing: None,
            admin,
            // Without an admin listener nobody asks.
            requests: requests.unwrap_or_else(|| mpsc::channel(1).1),
            takeover: parts.takeover,
            tickets: parts.tickets,
            elders: parts.elders,
            succession: Succession::default(),
            watchers: Vec::new(),
            signals_seen: 0,
            housekeeping: Deadline::at(Instant::now()),
            exit: None,
        })
    }

    /// Runs to the end of the process; returns its exit status.
    pub(super) async fn run(mut self) -> u8 {
        self.happened(Happened::Ready);
        self.manager.store(self.config.store, &mut self.listeners);
        self.events.emit(Event::ready());
        if !self.elders.are_there() {
            self.own_doors();
        }
        let others = self.config.upgrade.max_generations.saturating_sub(1);
        for generation in self.elders.limit(others).await {
            let event = Event::new(Level::Warn, "generation_told_to_leave");
            self.events.emit(event.with("generation", generation));
        }
        let exit = loop {
            let event = self.next().await;
            if let Some(event) = event {
                self.happened(event);
            }
            self.redeliver().await;
            if let Some(exit) = self.exit {
                break exit;
            }
        };
        if exit == Exit::Aborted {
            self.last_moment().await;
        }
        let remains = Remains {
            overview: &self.overview,
            config: &self.config,
            events: &self.events,
            aborted: exit == Exit::Aborted,
        };
        let status = self.stopping.conclude(&remains).await;
        self.bid_farewell().await;
        self.manager.notifier.flush(Instant::now() + LAST_MOMENT).await;
        // Last of all: whoever watches has seen every phase.
        let watches = !std::mem::take(&mut self.watchers).is_empty();
        if let Some(admin) = self.admin.take() {
            admin.end(watches).await;
        }
        status
    }

    /// A third signal ends the process, but not before the workers have had a
    /// moment to write down what they cut.
    async fn last_moment(&mut self) {
        let now = Instant::now();
        let (phase, entered) = {
            let state = self.overview.state.borrow();
            (state.phase, state.entered)
        };
        self.stopping.report.add_phase(phase, now.saturating_duration_since(entered));
        self.tell(Stage::Cut, Plan::Stop, now, Deadline::at(now));
        let _left = self.overview.scope.drained(Deadline::after(now, LAST_MOMENT)).await;
        if let Some(workers) = self.workers.take() {
            self.stopping.cuts = Some(workers.cuts);
        }
    }

    /// The next thing that matters to the state machine, or nothing but time.
    async fn next(&mut self) -> Option<Happened> {
        let (phase, tick) = {
            let state = self.overview.state.borrow();
            (state.phase, state.next_tick())
        };
        // What is in the queue of a closing listener is not alive yet, but will be.
        let emptying = matches!(phase, Phase::Draining | Phase::Cutting)
            && self.closing.is_none()
            && self.succession.is_settled(Instant::now());
        let let_go = self.succession.has_let_go();
        let step = self.succession.next(self.take_back_until(), self.config.upgrade.commit_after);
        tokio::select! {
            biased;
            asked = self.signals.next() => self.asked(asked),
            errors = done(&mut self.closing) => {
                self.closed(errors);
                self.bind_missing();
                Some(Happened::ListenersClosed)
            }
            () = done(&mut self.finishing) => Some(Happened::Finished),
            (index, why) = Workers::lost(&mut self.workers) => Some(self.lost(index, &why)),
            step = step => self.step(step).await,
            (generation, word) = self.elders.next() => self.heard(generation, word).await,
            departure = stray(&mut self.departures) => {
                self.returned.push(departure);
                None
            }
            asked = successor(&self.takeover, &self.events), if !let_go => {
                self.asked_for(asked);
                None
            }
            Some(request) = self.requests.recv() => {
                self.requested(request);
                None
            }
            () = self.overview.scope.empty(), if emptying => Some(Happened::Empty),
            () = due(tick) => Some(Happened::Tick),
            () = due(self.manager.due()) => {
                let workers = self.workers.as_ref().map_or(&[][..], |workers| &workers.deliveries);
                self.manager.beat(&self.overview, workers);
                self.manager.store(self.config.store, &mut self.listeners);
                None
            }
            // At a fixed instant: something else happens more often than this is due.
            () = due(self.housekeeping) => {
                self.housekeeping = Deadline::after(Instant::now(), HOUSEKEEPING);
                self.events.tick();
                self.events.watch(&self.overview.access);
                self.settle_doubts();
                self.bind_missing();
                None
            }
        }
    }

    fn asked(&mut self, asked: Asked) -> Option<Happened> {
        match asked {
            Asked::Stop(name) => {
                self.signals_seen += 1;
                self.stopping.reason.get_or_insert(name);
                let event = Event::new(Level::Info, "signal").with("signal", name);
                self.events.emit(event.with("count", self.signals_seen));
                Some(Happened::Signal)
            }
            Asked::Upgrade => {
                self.signalled();
                None
            }
            Asked::Nothing(name) => {
                let event = Event::new(Level::Warn, "signal_ignored").with("signal", name);
                self.events.emit(event.with("message", "this version has no use for it"));
                None
            }
        }
    }

    /// A worker ended unasked. What it served is lost; the others can still end
    /// well, and whoever watches over the process starts a whole one.
    fn lost(&mut self, index: usize, why: &io::Error) -> Happened {
        self.stopping.lost = true;
        self.stopping.reason.get_or_insert("worker_lost");
        let phase = self.overview.phase();
        self.overview.count_error(phase);
        self.stopping.report.add_error(phase, format!("worker {index} ended: {why}"));
        let event = Event::new(Level::Error, "worker_lost").with("worker", index);
        self.events.emit(event.with("error", why.to_string()));
        Happened::WorkerLost
    }

    pub(super) fn happened(&mut self, event: Happened) {
        let now = Instant::now();
        let state = self.overview.state.borrow().clone();
        let before = state.longest();
        let (state, actions) = step(state, event, now);
        if state.longest() != before {
            let began = self.overview.shutdown_start.get();
            let wall = state.stop.map(|_| began.unwrap_or_else(SystemTime::now));
            self.overview.shutdown_start.set(wall);
            self.watchdog.arm(state.longest().unwrap_or(Deadline::NEVER));
        }
        *self.overview.state.borrow_mut() = state;
        for action in actions {
            self.act(action, now);
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Announce { from, to, elapsed } => {
                let remaining = self.overview.connections();
                self.events.emit(Event::phase(from, to, elapsed, &remaining));
                self.manager.notifier.enters(to, vitals(&self.overview));
                if from > Phase::Serving {
                    self.stopping.report.add_phase(from, elapsed);
                }
            }
            Action::Overrun(phase) => self.overrun(phase),
            Action::TellLameDuck => {
                self.tell(Stage::LameDuck, Plan::Stop, now, Deadline::NEVER);
            }
            Action::TellDraining(plan, deadline) => {
                self.tell(Stage::Draining, plan, now, deadline);
            }
            Action::TellOpen => {
                self.tell(Stage::Open, Plan::Stop, now, Deadline::NEVER);
                self.open_again();
            }
            Action::TellCut => self.tell(Stage::Cut, Plan::Stop, now, Deadline::at(now)),
            Action::CloseListeners => self.close_listeners(),
            Action::Finish => self.finishing = Some(self.finish()),
            Action::Exit => self.exit = Some(Exit::Stopped),
            Action::Abort => self.exit = Some(Exit::Aborted),
        }
    }

    fn tell(&mut self, stage: Stage, plan: Plan, now: Instant, deadline: Deadline) {
        // A cut does not begin the drain anew.
        let since = match stage {
            Stage::Cut => self.stopping.since.get().unwrap_or(now),
            _ => now,
        };
        self.stopping.since.set(Some(since));
        let moves = self.succession.moves();
        self.overview.scope.tell(Orders { stage, plan, moves, since, deadline });
        if stage == Stage::Draining {
            self.close_released();
        }
    }

    /// There is nobody any more to whom connections could go.
    pub(super) fn tell_to_stay(&self) {
        let told = matches!(self.overview.phase(), Phase::Closing | Phase::Draining);
        let Some(stop) = self.overview.state.borrow().stop.filter(|_| told) else { return };
        let (stage, since) = (Stage::Draining, self.stopping.since.get());
        let since = since.unwrap_or_else(Instant::now);
        let deadline = stop.hard_deadline;
        self.overview.scope.tell(Orders { stage, plan: stop.by, moves: false, since, deadline });
    }

    fn overrun(&mut self, phase: Phase) {
        let remaining = self.overview.connections();
        let left = remaining.total();
        let message = format!("{phase} took longer than it may; {left} connections are left");
        self.overview.count_error(phase);
        self.events.emit(
            Event::new(Level::Warn, "phase_overrun")
                .with("phase", phase.name())
                .with("message", message.clone())
                .with_struct("remaining", &remaining),
        );
        self.stopping.report.add_error(phase, message);
    }

    fn close_listeners(&mut self) {
        let listeners = std::mem::take(&mut self.listeners);
        let names = listeners.iter().map(|listener| listener.name().to_owned()).collect();
        let called_off = self.succession.call_off();
        if called_off.is_none() && self.succession.has_let_go() {
            // They are the successor's.
            return self.close_some(listeners, std::future::ready(false));
        }
        let (released, overview) = (self.elders.release(names), Rc::clone(&self.overview));
        self.close_some(listeners, async move {
            let ours = match called_off {
                Some(ended) => ended.await.unwrap_or(true),
                None => true,
            };
            // Somebody may have come to have them meanwhile.
            ours && released.await && !overview.is_outgoing()
        });
    }

    /// Closes listeners without a reset, once the workers have been told and `released`
    /// says which of them nobody else holds.
    pub(super) fn close_some(
        &mut self,
        mut listeners: Vec<Listener>,
        released: impl Future<Output = bool> + 'static,
    ) {
        let Some(workers) = &mut self.workers else {
            return;
        };
        let now = Instant::now();
        let hard = self.overview.state.borrow().hard_deadline().unwrap_or(Deadline::NEVER);
        let accepting = std::mem::take(&mut workers.accepting);
        let deliverer = Deliverer {
            overview: Rc::clone(&self.overview),
            workers: workers.deliveries.clone(),
            fits: workers.fits,
            patience: Deadline::after(hard.instant().unwrap_or(now).max(now), CLOSING),
            events: self.events.clone(),
        };
        let in_doubt = self.succession.is_in_doubt();
        let before = self.closing.take();
        self.closing = Some(Box::pin(async move {
            let mut errors = match before {
                Some(closing) => closing.await,
                None => Vec::new(),
            };
            let ours = released.await && !in_doubt;
            for listener in &mut listeners {
                listener.set_held(!ours);
            }
            errors.extend(close(listeners, accepting, Rc::new(deliverer)).await);
            errors
        }));
    }

    /// Whether listeners are being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Takes over what went wrong while listeners were closed.
    fn closed(&mut self, errors: Vec<String>) {
        let phase = self.overview.phase();
        // A client that was told "connected" may have lost its request.
        self.stopping.lost |= !errors.is_empty();
        for error in errors {
            self.overview.count_error(phase);
            self.stopping.report.add_error(phase, error);
        }
    }

    /// Ends the workers: they leave when nothing can be delivered any more.
    fn finish(&mut self) -> Running<()> {
        if self.closing.take().is_some() {
            let message = "the listeners were not closed in time; who waited in them was reset";
            let event = Event::new(Level::Error, "listeners_unswept");
            self.events.emit(event.with("message", message));
            self.closed(vec![message.to_owned()]);
        }
        let Some(workers) = self.workers.take() else {
            return Box::pin(async {});
        };
        let Workers { deliveries, threads, cuts, .. } = workers;
        drop(deliveries);
        self.elders.leave();
        while !kept(Rule::ControlGoesOn) {
            std::thread::park();
        }
        self.stopping.cuts = Some(cuts);
        Box::pin(stop::join(threads))
    }
}

/// Ends when what is under way is done; never if nothing is.
pub(super) async fn done<T>(running: &mut Option<Running<T>>) -> T {
    match running {
        Some(future) => {
            let outcome = future.await;
            *running = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

/// A connection that leaves while there is nobody to take it.
async fn stray(departures: &mut Option<mpsc::Receiver<Departure>>) -> Departure {
    match departures {
        Some(departures) => match departures.recv().await {
            Some(departure) => departure,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Somebody who asks to be our successor.
async fn successor(takeover: &Option<Takeover>, events: &Events) -> io::Result<Channel> {
    let refused = |stranger: Peer| {
        let event = Event::new(Level::Warn, "takeover_peer_refused").with("uid", stranger.uid);
        events.limited("takeover_peer_refused", STRANGERS_EVERY, event);
    };
    match takeover {
        Some(takeover) => takeover.accept(refused).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn due(deadline: Deadline) {
    match deadline.instant() {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
