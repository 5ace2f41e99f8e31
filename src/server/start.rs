//! From a configuration to a serving process.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use super::activation::Passed;
use super::bind::{Bound, bind};
use super::control::{Control, Parts};
use super::descriptors;
use super::door::Admin;
use super::overview::{FIRST_GENERATION, Overview};
use super::platform;
use super::signals::Signals;
use super::upgrade::elders::{Elders, Port};
use super::upgrade::predecessor::{Inheritance, Predecessor, Refusal};
use super::upgrade::probe::probe;
use super::upgrade::program::Program;
use super::workers::{Workers, start_workers};
use crate::admin::AdminListener;
use crate::config::{Config, Loaded};
use crate::drain::Scope;
use crate::handoff::{Channel, Message, takeover};
use crate::lifecycle::orphans;
use crate::lifecycle::{Plans, State};
use crate::limits::{ACCESS_LOG_QUEUE_MAX, LAST_WORDS};
use crate::net::{BindError, Listener};
use crate::serve::Departure;
use crate::telemetry::{Counters, Event, Events, Level, Sink, Tunnels};
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
    /// What the takeover listener needs.
    #[error("cannot listen for successors on {path}")]
    Takeover {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The process to take over from cannot be asked.
    #[error("cannot ask at {path} to hand over")]
    Ask {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// There is a process to take over from, and it does not hand over.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A thread, a runtime, a signal handler.
    #[error("cannot {what}")]
    System {
        /// What could not be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// With its cause, as a person is told.
    pub fn whole(&self) -> String {
        let cause = std::error::Error::source(self);
        cause.map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// Serves until a signal has ended the process, or a successor goes on with its work;
/// returns its exit status. `inherited` is the channel to the process that has started
/// this one to be its successor.
pub fn run(loaded: Loaded, inherited: Option<OwnedFd>) -> Result<u8, StartError> {
    let runtime = runtime()?;
    runtime.block_on(async {
        // Before anything else: a signal during the start must not be lost.
        let mut signals = Signals::register().map_err(system("register signals"))?;
        if orphans::is_pid_one() {
            tokio::task::spawn_local(orphans::reap());
        }
        let events = Events::stderr().map_err(system("write to stderr"))?;
        let launched = inherited.is_some();
        let follows = launched || loaded.config.upgrade.takeover.is_some();
        let mut predecessor = None;
        let ready = tokio::select! {
            biased;
            // Until then nothing is ours, and whoever stops us need not wait for an elder.
            name = signals.stop(), if follows => {
                let event = Event::new(Level::Info, "signal").with("signal", name);
                events.emit(event.with("message", TOLD));
                end(&events, predecessor, TOLD.to_owned()).await;
                return Ok(0);
            }
            ready = prepare(loaded, &events, inherited, &mut predecessor) => ready,
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                end(&events, predecessor, error.whole()).await;
                return Err(error);
            }
        };
        let inheritance = predecessor.map(Predecessor::inheritance).unwrap_or_default();
        match open(ready, inheritance, launched, signals, &events).await {
            Ok(control) => Ok(control.run().await),
            Err(error) => {
                events.flush(Instant::now() + LAST_WORDS);
                Err(error)
            }
        }
    })
}

/// Why there is no successor, if somebody has stopped it.
const TOLD: &str = "it was told to stop before it served";

/// Says why this process does not come to serve.
async fn end(events: &Events, predecessor: Option<Predecessor>, why: String) {
    if let Some(predecessor) = predecessor {
        predecessor.fail(why).await;
    }
    events.flush(Instant::now() + LAST_WORDS);
}

/// Tells the process that has started this one to be its successor why it is none.
pub fn decline(inherited: OwnedFd, why: &str) {
    let Ok(runtime) = runtime() else { return };
    runtime.block_on(async {
        if let Ok(channel) = Channel::from_fd(inherited) {
            let failed = Message::Failed { error: why.to_owned() };
            // One that does not listen sees our end.
            let _gone = channel.send(&failed, &[], &[]).await;
        }
    });
}

fn runtime() -> Result<LocalRuntime, StartError> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(system("start the control runtime"))
}

/// Finds the process whose work this one is to take over, if there is any, and takes what
/// it gives.
async fn find_predecessor(
    config: &Config,
    inherited: Option<OwnedFd>,
    found: &mut Option<Predecessor>,
    events: &Events,
) -> Result<(), StartError> {
    let (channel, asked) = match (inherited, &config.upgrade.takeover) {
        (Some(fd), _) => {
            (Channel::from_fd(fd).map_err(system("hear from the running process"))?, false)
        }
        (None, Some(path)) => {
            let asked = takeover::connect(path);
            let refused = |source| StartError::Ask { path: path.display().to_string(), source };
            match asked.map_err(refused)? {
                Some(channel) => (channel, true),
                None => return Ok(()),
            }
        }
        (None, None) => return Ok(()),
    };
    let predecessor = found.insert(Predecessor::new(channel, asked));
    predecessor.greet(config.upgrade.timeout).await?;
    if let Some(given) = predecessor.has_ended() {
        let generation = predecessor.generation().unwrap_or(FIRST_GENERATION);
        let event = Event::new(Level::Warn, "predecessor_gone").with("given", given);
        let message = "the old process ended before it had given everything: this one starts \
                       with what has come";
        events.emit(event.with("generation", generation).with("message", message));
    }
    Ok(())
}

/// A process that can serve, and does not yet.
struct Ready {
    config: Arc<Config>,
    overview: Rc<Overview>,
    bound: Bound,
    workers: Workers,
    departures: mpsc::Receiver<Departure>,
    tickets: Option<Arc<tls::Tickets>>,
    program: Program,
}

/// Everything but to accept. What is taken over of a predecessor is its own as long as this
/// has not ended well; until then the predecessor serves. May be dropped at any time.
async fn prepare(
    loaded: Loaded,
    events: &Events,
    inherited: Option<OwnedFd>,
    predecessor: &mut Option<Predecessor>,
) -> Result<Ready, StartError> {
    find_predecessor(&loaded.config, inherited, predecessor, events).await?;
    let program = Program::of_this_process();
    let access =
        Sink::stdout("access_log", ACCESS_LOG_QUEUE_MAX).map_err(system("write to stdout"))?;
    let listeners = loaded.config.listen.len() + loaded.config.tls.listen.len();
    let fits = descriptors::connections(loaded.config.workers, listeners);
    let config = Arc::new(loaded.config);
    let keys = predecessor.as_ref().and_then(Predecessor::tickets);
    let (tickets, tls) = both_tls(&config, keys)?;
    let passed = Passed::from_environment().map_err(system("take the sockets of systemd"))?;
    let bound = bind(&config, predecessor.as_mut(), passed, events)?;
    let generation = predecessor.as_ref().and_then(Predecessor::generation);
    let overview = overview(&config, generation.unwrap_or(FIRST_GENERATION), &access);
    let (workers, departures) = start_workers(&config, &overview, tls, events, fits).await?;
    for warning in &loaded.warnings {
        let event = Event::new(Level::Warn, "config_warning");
        events.emit(event.with("key", warning.key).with("message", warning.to_string()));
    }
    announce(&config, events);
    if let Some(predecessor) = predecessor {
        let port = Port { overview: Rc::clone(&overview), workers: workers.deliveries.clone() };
        probe(&port).await.map_err(system("serve a request of its own"))?;
        predecessor.ready(config.upgrade.timeout).await?;
    }
    Ok(Ready { config, overview, bound, workers, departures, tickets, program })
}

/// The process may serve: it takes over what is left to it, and accepts.
async fn open(
    ready: Ready,
    inheritance: Inheritance,
    launched: bool,
    signals: Signals,
    events: &Events,
) -> Result<Control, StartError> {
    let Ready { config, overview, bound, mut workers, departures, tickets, program } = ready;
    let Bound { mut listeners, mut admin, takeover } = bound;
    let port = Port { overview: Rc::clone(&overview), workers: workers.deliveries.clone() };
    *overview.ledger.borrow_mut() = inheritance.ledger;
    let mut elders = Elders::new(inheritance.elders, inheritance.states, port);
    overview.elders.replace(elders.states());
    let shared = elders.are_there();
    elders.resume();
    elders.older_release().await;
    let mut paths = listeners.iter_mut().map(Listener::set_mode);
    paths.try_for_each(|set| set).map_err(system("set the mode of a listener"))?;
    admin.as_mut().map_or(Ok(()), AdminListener::set_mode).map_err(system("set its mode"))?;
    // Not a moment before it says so: who is called off until then has let nobody in.
    let admin_at = admin.as_ref().map(AdminListener::address);
    let serve = |listener| Admin::serve(listener, &config, &overview, events, shared);
    let admin = admin.map(serve).transpose().map_err(system("serve the admin listener"))?;
    workers.open(&listeners).await.map_err(system("start a worker"))?;
    say_listening(events, &listeners, admin_at);
    elders.say_serving().await;
    let parts = Parts {
        config,
        overview,
        workers,
        departures,
        listeners,
        admin,
        takeover,
        tickets,
        launched: launched && shared,
        elders,
        program,
        signals,
        events: events.clone(),
    };
    Control::new(parts).map_err(system("start the watchdog"))
}

/// Names each address, once somebody accepts there.
fn say_listening(events: &Events, listeners: &[Listener], admin: Option<String>) {
    for listener in listeners {
        let proto = if listener.is_secure() { "https" } else { "http" };
        events.emit(Event::listening(listener.to_string(), proto));
    }
    if let Some(address) = admin {
        events.emit(Event::listening(address, "admin"));
    }
}

/// What is counted and known of a process that starts.
fn overview(config: &Config, generation: u32, access: &Sink) -> Rc<Overview> {
    let plans = Plans { stop: config.stop.clone(), upgrade: config.upgrade.plan.clone() };
    Rc::new(Overview {
        scope: Scope::new(Instant::now()),
        counters: (0..config.workers).map(|_| Arc::new(Counters::default())).collect(),
        counted_here: Arc::default(),
        access: access.clone(),
        tunnels: Tunnels::default(),
        state: RefCell::new(State::new(plans, Instant::now())),
        generation,
        ledger: RefCell::default(),
        elders: RefCell::default(),
        succession: Cell::new(None),
        no_successor: platform::no_successor(),
        shutdown_start: Cell::new(None),
        errors: RefCell::default(),
    })
}

/// What TLS sessions with clients are made with, and those with app servers.
pub(super) type BothTls = (Option<tls::Settings>, Option<tls::Calls>);

type Tls = (Option<Arc<tls::Tickets>>, BothTls);

/// With the ticket keys of a predecessor, if it had any.
fn both_tls(config: &Config, keys: Option<tls::TicketKeys>) -> Result<Tls, StartError> {
    let (tickets, settings) = tls_settings(config, keys)?.unzip();
    Ok((tickets, (settings, tls_calls(config)?)))
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
fn tls_settings(
    config: &Config,
    keys: Option<tls::TicketKeys>,
) -> Result<Option<(Arc<tls::Tickets>, tls::Settings)>, StartError> {
    if config.tls.listen.is_empty() {
        return Ok(None);
    }
    let loaded = certs::load(&config.tls.pairs(), SystemTime::now()).map_err(|remarks| {
        let remarks: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        StartError::Certificates(remarks.join("; "))
    })?;
    let tickets = match keys {
        Some(keys) => tls::Tickets::with(keys),
        None => tls::Tickets::new(),
    };
    let tickets = tickets.map_err(io::Error::other);
    let tickets = Arc::new(tickets.map_err(system("make the keys of session tickets"))?);
    let settings = tls::Settings::new(&loaded.identities, Arc::clone(&tickets));
    let settings = settings.map_err(io::Error::other).map_err(system("set TLS up"))?;
    Ok(Some((tickets, settings)))
}

/// One line that names what a stop takes and what it must fit into.
fn announce(config: &Config, events: &Events) {
    let mut event = Event::new(Level::Info, "stop_plan").with("message", config.stop.sum_line());
    if let Some((platform, seconds)) = platform::grace() {
        event = event.with("platform", platform).with("platform_default_grace_s", seconds);
    }
    events.emit(event);
}
