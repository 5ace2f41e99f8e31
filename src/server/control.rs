//! The control loop: turns what happens into events of the state machine, and
//! its actions into deeds.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::close::{Deliverer, close};
use super::manager::{Manager, vitals};
use super::overview::Overview;
use super::signals::{Asked, Signals};
use super::start::Workers;
use super::stop::{self, Remains, Stopping};
use crate::admin::{self, AdminListener};
use crate::config::Config;
use crate::drain::{Deadline, Orders, Phase, Plan, Rule, Stage, kept};
use crate::lifecycle::watchdog::Watchdog;
use crate::lifecycle::{Action, Event as Happened, step};
use crate::limits::{CLOSING, HOUSEKEEPING, LAST_MOMENT};
use crate::net::Listener;
use crate::telemetry::{Event, Events, Level};

type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// What the control thread holds.
pub(super) struct Control {
    config: Arc<Config>,
    overview: Rc<Overview>,
    events: Events,
    signals: Signals,
    listeners: Vec<Listener>,
    workers: Option<Workers>,
    watchdog: Watchdog,
    manager: Manager,
    stopping: Stopping,
    /// Closing the listeners, while it is under way; tells what went wrong.
    closing: Option<Running<Vec<String>>>,
    /// Stopping the workers, while it is under way.
    finishing: Option<Running<()>>,
    admin: Option<oneshot::Sender<()>>,
    signals_seen: u32,
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All phases are through.
    Stopped,
    /// A third signal.
    Aborted,
}

impl Control {
    pub(super) fn new(
        config: Arc<Config>,
        overview: Rc<Overview>,
        workers: Workers,
        listeners: Vec<Listener>,
        admin: Option<AdminListener>,
        signals: Signals,
        events: Events,
    ) -> io::Result<Self> {
        let admin = admin.map(|listener| {
            let (stop, stopped) = oneshot::channel::<()>();
            let view = Rc::clone(&overview);
            let stopped = async {
                let _dropped = stopped.await;
            };
            let service = admin::Service {
                commands: Rc::clone(&view) as Rc<dyn admin::Commands>,
                view,
                names: config.admin_names.clone(),
            };
            let (_door, door) = tokio::sync::watch::channel(admin::Door::Open);
            tokio::task::spawn_local(admin::serve(
                listener,
                service,
                events.clone(),
                door,
                stopped,
            ));
            stop
        });
        Ok(Control {
            watchdog: Watchdog::start(stop::expire)?,
            manager: Manager::new(false, config.workers, &events),
            config,
            overview,
            events,
            signals,
            listeners,
            workers: Some(workers),
            stopping: Stopping::default(),
            closing: None,
            finishing: None,
            admin,
            signals_seen: 0,
            exit: None,
        })
    }

    /// Runs to the end of the process; returns its exit status.
    pub(super) async fn run(mut self) -> u8 {
        self.happened(Happened::Ready);
        self.manager.store(self.config.store, &mut self.listeners);
        self.events.emit(Event::ready());
        let exit = loop {
            let event = self.next().await;
            if let Some(event) = event {
                self.happened(event);
            }
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
        self.manager.notifier.flush(Instant::now() + LAST_MOMENT);
        // Last of all: whoever watches has seen every phase.
        drop(self.admin.take());
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
        let emptying = matches!(phase, Phase::Draining | Phase::Cutting) && self.closing.is_none();
        tokio::select! {
            biased;
            asked = self.signals.next() => self.asked(asked),
            errors = done(&mut self.closing) => {
                self.closed(errors);
                Some(Happened::ListenersClosed)
            }
            () = done(&mut self.finishing) => Some(Happened::Finished),
            (index, why) = Workers::lost(&mut self.workers) => Some(self.lost(index, &why)),
            () = self.overview.scope.empty(), if emptying => Some(Happened::Empty),
            () = due(tick) => Some(Happened::Tick),
            () = due(self.manager.due()) => {
                let workers = self.workers.as_ref().map_or(&[][..], |workers| &workers.deliveries);
                self.manager.beat(&self.overview, workers);
                self.manager.store(self.config.store, &mut self.listeners);
                None
            }
            () = tokio::time::sleep(HOUSEKEEPING) => {
                self.events.tick();
                self.events.watch(&self.overview.access);
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

    fn happened(&mut self, event: Happened) {
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
            Action::TellOpen => self.tell(Stage::Open, Plan::Stop, now, Deadline::NEVER),
            Action::TellCut => self.tell(Stage::Cut, Plan::Stop, now, Deadline::at(now)),
            Action::CloseListeners => self.close_listeners(),
            Action::Finish => self.finishing = Some(self.finish()),
            Action::Exit => self.exit = Some(Exit::Stopped),
            Action::Abort => self.exit = Some(Exit::Aborted),
        }
    }

    fn tell(&self, stage: Stage, plan: Plan, now: Instant, deadline: Deadline) {
        // A cut does not begin the drain anew.
        let since = match stage {
            Stage::Cut => self.stopping.since.get().unwrap_or(now),
            _ => now,
        };
        self.stopping.since.set(Some(since));
        self.overview.scope.tell(Orders { stage, plan, moves: false, since, deadline });
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
        let Some(workers) = &mut self.workers else {
            return;
        };
        let now = Instant::now();
        let hard = self.overview.state.borrow().hard_deadline().unwrap_or(Deadline::NEVER);
        let (_closed, nobody) = tokio::sync::mpsc::channel(1);
        let accepting = std::mem::replace(&mut workers.accepting, nobody);
        let deliverer = Deliverer {
            overview: Rc::clone(&self.overview),
            workers: workers.deliveries.clone(),
            fits: workers.fits,
            patience: Deadline::after(hard.instant().unwrap_or(now).max(now), CLOSING),
            events: self.events.clone(),
        };
        let listeners = std::mem::take(&mut self.listeners);
        self.closing = Some(Box::pin(close(listeners, accepting, Rc::new(deliverer))));
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
        while !kept(Rule::ControlGoesOn) {
            std::thread::park();
        }
        self.stopping.cuts = Some(cuts);
        Box::pin(stop::join(threads))
    }
}

/// Ends when what is under way is done; never if nothing is.
async fn done<T>(running: &mut Option<Running<T>>) -> T {
    match running {
        Some(future) => {
            let outcome = future.await;
            *running = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

async fn due(deadline: Deadline) {
    match deadline.instant() {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
