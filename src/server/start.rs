//! From a configuration to a serving process.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use super::activation::Passed;
use super::control::Control;
use super::descriptors;
use super::overview::Overview;
use super::platform;
use super::signals::Signals;
use crate::admin;
use crate::config::{Config, Loaded};
use crate::drain::Scope;
use crate::lifecycle::orphans;
use crate::lifecycle::{Plans, State};
use crate::limits::{
    ACCESS_LOG_QUEUE_MAX, DELIVERIES, DEPARTURES, LAST_WORDS, REPORT_CUT_MAX, REPORTS,
};
use crate::net::{BindError, Listener};
use crate::serve::{self, Admission, Delivery, Departure, Start};
use crate::telemetry::{Counters, CutRequest, Event, Events, Level, Sink, Tunnels};
use crate::tls::{self, certs};

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener.
    #[error("cannot listen on admin {address}")]
    Admin {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Certificates that were good when the configuration was checked.
    #[error("{0}")]
    Certificates(String),
    /// A thread, a runtime, a signal handler.
    #[error("cannot {what}")]
    System {
        /// What could not be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// Serves until a signal has ended the process; returns its exit status.
pub fn run(loaded: Loaded) -> Result<u8, StartError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(system("start the control runtime"))?;
    runtime.block_on(async {
        // Before anything else: a signal during the start must not be lost.
        let signals = Signals::register().map_err(system("register signals"))?;
        if orphans::is_pid_one() {
            tokio::task::spawn_local(orphans::reap());
        }
        let control = start(loaded, signals).await?;
        Ok(control.run().await)
    })
}

/// The workers' side of what the control thread holds.
pub(super) struct Workers {
    pub(super) deliveries: Vec<mpsc::Sender<Delivery>>,
    /// Connections that leave for a successor.
    pub(super) departures: mpsc::Receiver<Departure>,
    /// Ends when no worker accepts any more.
    pub(super) accepting: mpsc::Receiver<()>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// What each worker, by its number, says of its start and its end.
    pub(super) reports: Vec<(usize, mpsc::Receiver<io::Result<()>>)>,
    pub(super) cuts: std::sync::mpsc::Receiver<CutRequest>,
    /// How many connections there are descriptors for.
    pub(super) fits: usize,
}

async fn start(loaded: Loaded, signals: Signals) -> Result<Control, StartError> {
    let events = Events::stderr().map_err(system("write to stderr"))?;
    let access =
        Sink::stdout("access_log", ACCESS_LOG_QUEUE_MAX).map_err(system("write to stdout"))?;
    let listeners = loaded.config.listen.len() + loaded.config.tls.listen.len();
    let fits = descriptors::connections(loaded.config.workers, listeners);
    let config = Arc::new(loaded.config);
    let taken = Passed::from_environment().map_err(system("take the sockets of systemd"));
    let bound = taken.and_then(|mut passed| {
        let tls = both_tls(&config)?;
        let bound = bind(&config, &mut passed);
        passed.close_rest(&events);
        Ok((tls, bound?))
    });
    let (tls, (listeners, admin)) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            events.flush(Instant::now() + LAST_WORDS);
            return Err(error);
        }
    };
    let plans = Plans { stop: config.stop.clone(), upgrade: config.stop.clone() };
    let overview = Rc::new(Overview {
        scope: Scope::new(Instant::now()),
        counters: (0..config.workers).map(|_| Arc::new(Counters::default())).collect(),
        access: access.clone(),
        tunnels: Tunnels::default(),
        state: RefCell::new(State::new(plans, Instant::now())),
        shutdown_start: Cell::new(None),
        errors: RefCell::default(),
    });
    let workers = start_workers(&config, &overview, tls, &events, fits);
    let workers = match workers.await.and_then(|workers| workers.open(&listeners)) {
        Ok(workers) => workers,
        Err(error) => {
            events.flush(Instant::now() + LAST_WORDS);
            return Err(error);
        }
    };
    for warning in &loaded.warnings {
        let event = Event::new(Level::Warn, "config_warning");
        events.emit(event.with("key", warning.key).with("message", warning.to_string()));
    }
    announce(&config, &events);
    for listener in &listeners {
        let proto = if listener.is_secure() { "https" } else { "http" };
        events.emit(Event::listening(listener.to_string(), proto));
    }
    if let Some(admin) = &admin {
        events.emit(Event::listening(admin.address(), "admin"));
    }
    Control::new(config, overview, workers, listeners, admin, signals, events)
        .map_err(system("start the watchdog"))
}

/// What TLS sessions with clients are made with, and those with app servers.
type BothTls = (Option<tls::Settings>, Option<tls::Calls>);

fn both_tls(config: &Config) -> Result<BothTls, StartError> {
    Ok((tls_settings(config)?, tls_calls(config)?))
}

/// What TLS sessions with app servers are made with, if there are any.
fn tls_calls(config: &Config) -> Result<Option<tls::Calls>, StartError> {
    let upstream = &config.upstream;
    if !upstream.has_tls() {
        return Ok(None);
    }
    let roots = tls::Roots::load(upstream.tls_ca.as_deref())
        .map_err(|wrong| StartError::Certificates(wrong.join("; ")))?;
    let calls = tls::Calls::new(&roots, upstream.tls_name.as_deref()).map_err(io::Error::other);
    Ok(Some(calls.map_err(system("set TLS to app servers up"))?))
}

/// What TLS sessions with clients are made with, if there are any. The files were read and
/// found good a moment ago, but a moment ago is not now.
fn tls_settings(config: &Config) -> Result<Option<tls::Settings>, StartError> {
    if config.tls.listen.is_empty() {
        return Ok(None);
    }
    let loaded = certs::load(&config.tls.pairs(), SystemTime::now()).map_err(|remarks| {
        let remarks: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        StartError::Certificates(remarks.join("; "))
    })?;
    let tickets = tls::Tickets::new().map_err(io::Error::other);
    let tickets = Arc::new(tickets.map_err(system("make the keys of session tickets"))?);
    let settings = tls::Settings::new(&loaded.identities, tickets).map_err(io::Error::other);
    Ok(Some(settings.map_err(system("set TLS up"))?))
}

type Bound = (Vec<Listener>, Option<admin::AdminListener>);

/// Takes what was passed, and binds the rest.
fn bind(config: &Config, passed: &mut Passed) -> Result<Bound, StartError> {
    let mut listeners = Vec::new();
    for (addresses, secure) in [(&config.listen, false), (&config.tls.listen, true)] {
        for listen in addresses {
            listeners.extend(passed.open(listen, secure)?);
        }
    }
    let admin = config.admin.as_ref().map(|listen| {
        passed
            .open_admin(listen)
            .map_err(|source| StartError::Admin { address: listen.to_string(), source })
    });
    Ok((listeners, admin.transpose()?))
}

/// Starts all workers, and waits until each of them has: one that cannot must
/// be known before anybody is told that the process is ready.
async fn start_workers(
    config: &Arc<Config>,
    overview: &Overview,
    (tls, calls): BothTls,
    events: &Events,
    fits: usize,
) -> Result<Workers, StartError> {
    let limit = config.limits.connections.unwrap_or(fits);
    let admission = Admission::new(limit, config.limits.connections_per_address);
    let (_, accepting) = mpsc::channel(1);
    let (departs, departures) = mpsc::channel(DEPARTURES);
    let (cut, cuts) = sync_channel(REPORT_CUT_MAX);
    let mut deliveries = Vec::new();
    let mut threads = Vec::new();
    let mut reports = Vec::new();
    for (index, counters) in overview.counters.iter().enumerate() {
        let (sender, receiver) = mpsc::channel(DELIVERIES);
        let (report, reported) = mpsc::channel(REPORTS);
        let start = Start {
            config: Arc::clone(config),
            branch: overview.scope.branch(),
            tls: tls.clone(),
            calls: calls.clone(),
            deliveries: receiver,
            departures: departs.clone(),
            reports: report,
            admission: Arc::clone(&admission),
            counters: Arc::clone(counters),
            access: overview.access.clone(),
            tunnels: overview.tunnels.clone(),
            events: events.clone(),
            cuts: cut.clone(),
        };
        threads.push(serve::spawn(index, start).map_err(system("start a worker"))?);
        deliveries.push(sender);
        reports.push((index, reported));
    }
    for (_, reported) in &mut reports {
        let started = reported.recv().await.unwrap_or_else(|| Err(panicked()));
        started.map_err(system("start a worker"))?;
    }
    Ok(Workers { deliveries, departures, accepting, threads, reports, cuts, fits })
}

/// What is known of a worker that ended without a word.
fn panicked() -> io::Error {
    io::Error::other("its thread panicked")
}

impl Workers {
    /// Has all of them accept from these listeners.
    pub(super) fn open(mut self, listeners: &[Listener]) -> Result<Self, StartError> {
        let (accepts, accepting) = mpsc::channel(1);
        for (listener, worker) in
            listeners.iter().flat_map(|one| self.deliveries.iter().map(move |to| (one, to)))
        {
            let listener = listener.share().map_err(system("share a listener"))?;
            let delivery = Delivery::Listener { listener, accepting: accepts.clone() };
            // There is room: nothing else has been delivered yet.
            let _dead = worker.try_send(delivery);
        }
        self.accepting = accepting;
        Ok(self)
    }

    /// A worker that ended although nobody asked it to, and why; each is named once.
    pub(super) async fn lost(workers: &mut Option<Self>) -> (usize, io::Error) {
        let Some(workers) = workers else { return std::future::pending().await };
        std::future::poll_fn(|cx| {
            for at in 0..workers.reports.len() {
                let (index, reports) = &mut workers.reports[at];
                if let Poll::Ready(report) = reports.poll_recv(cx) {
                    let why = report.and_then(Result::err).unwrap_or_else(panicked);
                    let index = *index;
                    workers.reports.swap_remove(at);
                    return Poll::Ready((index, why));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// One line that names what a stop takes and what it must fit into.
fn announce(config: &Config, events: &Events) {
    let mut event = Event::new(Level::Info, "stop_plan").with("message", config.stop.sum_line());
    if let Some((platform, seconds)) = platform::grace() {
        event = event.with("platform", platform).with("platform_default_grace_s", seconds);
    }
    events.emit(event);
}
