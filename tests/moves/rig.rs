//! A process without its control thread: one worker, and the test in the place of those
//! who tell it what to do.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ebbtide::config::{self, Sources};
use ebbtide::drain::{Deadline, Orders, Plan, Scope, Stage};
use ebbtide::handoff::{Batch, Message, parcels, wire};
use ebbtide::net::Listener;
use ebbtide::serve::{self, Admission, Delivery, Departure, Start};
use ebbtide::telemetry::event::Style;
use ebbtide::telemetry::{
    ConnectionState, Counters, Events, MovedKind, Sink, Totals, TunnelStatus, Tunnels,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::support::wire::Place;
use crate::support::{PATIENCE, pause, within};

/// A worker and what is on both sides of it.
pub(crate) struct Side {
    scope: Scope<ConnectionState>,
    deliveries: Option<mpsc::Sender<Delivery>>,
    departures: mpsc::Receiver<Departure>,
    counters: Arc<Counters>,
    tunnels: Tunnels,
    place: Place,
    access: Sink,
    log: std::fs::File,
    thread: Option<JoinHandle<()>>,
    _accepting: mpsc::Receiver<()>,
}

/// How many connections may be on the way, unless a test says so.
pub(crate) const ROOM: usize = 256;

impl Side {
    /// One before this app server, with these keys set.
    pub(crate) fn before(app: &Place, set: &[&str]) -> Side {
        Side::with_room(app, set, ROOM)
    }

    /// The same with room for so many connections that leave.
    pub(crate) fn with_room(app: &Place, set: &[&str], room: usize) -> Side {
        let mut all = vec!["listen=127.0.0.1:0".to_owned(), format!("upstream.endpoints={app}")];
        all.extend(set.iter().map(|&set| set.to_owned()));
        let loaded = config::load(&Sources { set: all, ..Sources::default() });
        let config = Arc::new(loaded.expect("a configuration").config);
        let scope = Scope::new(Instant::now());
        let (deliveries, incoming) = mpsc::channel(16_384);
        let (outgoing, departures) = mpsc::channel(room);
        let (report, mut reports) = mpsc::channel(2);
        let (cuts, _) = sync_channel(64);
        let log = tempfile::tempfile().expect("a file");
        let copy = || log.try_clone().expect("the same file");
        let access = Sink::new("access", copy(), 1 << 20).expect("a sink");
        let events = tempfile::tempfile().expect("a file");
        let events = Sink::new("events", events, 1 << 20).expect("a sink");
        let (counters, tunnels) = (Arc::new(Counters::default()), Tunnels::default());
        let listener = Listener::bind(&config.listen[0], false).expect("a listener");
        let port = listener.port().expect("a port");
        let start = Start {
            branch: scope.branch(),
            tls: None,
            calls: None,
            deliveries: incoming,
            departures: outgoing,
            reports: report,
            admission: Admission::new(100_000, config.limits.connections_per_address),
            counters: Arc::clone(&counters),
            access: access.clone(),
            tunnels: tunnels.clone(),
            events: Events::new(events, Style::Json),
            cuts,
            config,
        };
        let thread = serve::spawn(0, start).expect("a worker");
        reports.blocking_recv().expect("a report").expect("a worker that works");
        let (accepting, accepts) = mpsc::channel(1);
        let (opened, mut answer) = mpsc::channel(1);
        let delivery = Delivery::Listener { listener, accepting, opened };
        deliveries.try_send(delivery).expect("room");
        answer.blocking_recv().expect("an answer").expect("a worker that accepts");
        Side {
            scope,
            deliveries: Some(deliveries),
            departures,
            counters,
            tunnels,
            place: Place::Tcp(([127, 0, 0, 1], port).into()),
            access,
            log,
            thread: Some(thread),
            _accepting: accepts,
        }
    }

    /// Where it listens.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn tell(&self, stage: Stage, plan: Plan, moves: bool) {
        let since = Instant::now();
        let deadline = match stage {
            Stage::Open => Deadline::NEVER,
            _ => Deadline::after(since, Duration::from_secs(600)),
        };
        self.scope.tell(Orders { stage, plan, moves, since, deadline });
        // What is delivered is looked at only by orders that have been heard.
        let (heard, hears) = oneshot::channel();
        let to = self.deliveries.as_ref().expect("a worker");
        assert!(to.try_send(Delivery::Question(heard)).is_ok(), "no room");
        hears.blocking_recv().expect("a worker that turns");
    }

    /// A successor serves: whoever can go there goes.
    pub(crate) fn tell_moves(&self) {
        self.tell(Stage::Draining, Plan::Upgrade, true);
    }

    /// Nobody moves any more; what is left drains by the upgrade plan.
    pub(crate) fn tell_stays(&self) {
        self.tell(Stage::Draining, Plan::Upgrade, false);
    }

    /// The successor is gone: all is as before.
    pub(crate) fn tell_open(&self) {
        self.tell(Stage::Open, Plan::Stop, false);
    }

    /// A stop.
    pub(crate) fn tell_stop(&self) {
        self.tell(Stage::Draining, Plan::Stop, false);
    }

    /// How many connections are alive, those on the way included.
    pub(crate) fn alive(&self) -> usize {
        self.scope.alive()
    }

    /// How many are in this state.
    pub(crate) fn in_state(&self, state: ConnectionState) -> usize {
        self.scope.census().of(state)
    }

    /// Waits until so many are in this state.
    pub(crate) fn wait_state(&self, state: ConnectionState, count: usize) {
        within(PATIENCE, "connections in a state", || {
            (self.in_state(state) == count).then_some(())
        });
    }

    /// Waits until so many are alive.
    pub(crate) fn wait_alive(&self, count: usize) {
        within(PATIENCE, "connections alive", || (self.alive() == count).then_some(()));
    }

    /// What it has counted.
    pub(crate) fn totals(&self) -> Totals {
        Totals::sum(&[Arc::clone(&self.counters)])
    }

    /// How many connections it has closed.
    pub(crate) fn closed(&self) -> u64 {
        self.totals().by_reason().map(|(_, count)| count).sum()
    }

    /// Its tunnels.
    pub(crate) fn tunnels(&self) -> Vec<TunnelStatus> {
        self.tunnels.oldest()
    }

    /// The next connection that leaves.
    pub(crate) fn departure(&mut self) -> Departure {
        within(PATIENCE, "a departure", || self.departures.try_recv().ok())
    }

    /// A connection that leaves, if one has.
    pub(crate) fn try_departure(&mut self) -> Option<Departure> {
        self.departures.try_recv().ok()
    }

    /// Delivers a connection as it comes out of a message.
    pub(crate) fn deliver(&self, departure: Departure) {
        let Departure { parcel, hold: elder, .. } = departure;
        let mut batch = Batch::default();
        batch.push(parcel).expect("a connection that fits into a message");
        let (message, fds, octets) = batch.message(1);
        let mut packet = wire::encode(&message, fds.len(), octets.len()).expect("a packet");
        packet.extend_from_slice(octets);
        let (message, at) = wire::decode(&packet, fds.len()).expect("the same message");
        let Message::Connections { connections, .. } = message else { panic!("{message:?}") };
        let copies = fds.iter().map(|fd| fd.try_clone_to_owned().expect("a copy")).collect();
        let mut parcels = parcels(connections, copies, &packet[at..]).expect("what belongs to it");
        let parcel = parcels.pop().expect("a connection");
        let hold = self.scope.hold();
        let to = self.deliveries.as_ref().expect("a worker");
        assert!(to.try_send(Delivery::Arrival { parcel, hold }).is_ok(), "no room");
        // The elder's copies are closed behind the acknowledgement.
        drop(elder);
    }

    /// Takes so many and delivers them to another; what they were.
    pub(crate) fn hand_over(&mut self, to: &Side, count: usize) -> Vec<MovedKind> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            let departure = self.departure();
            kinds.push(departure.kind);
            to.deliver(departure);
        }
        kinds
    }

    /// Hands everybody over who leaves, until `over` or for ever; how many.
    pub(crate) fn hand_over_until(&mut self, to: &Side, over: &AtomicBool) -> usize {
        let mut count = 0;
        while !over.load(Ordering::SeqCst) {
            match self.try_departure() {
                Some(departure) => {
                    to.deliver(departure);
                    count += 1;
                }
                None => pause(Duration::from_micros(200)),
            }
        }
        count
    }

    /// Takes everybody back who has left, or is just leaving.
    pub(crate) fn take_back(&mut self) {
        // Only who has left is alive and in no state.
        within(PATIENCE, "nobody on the way", || {
            while let Some(departure) = self.try_departure() {
                self.deliver(departure);
            }
            (self.scope.census().total() == self.alive()).then_some(())
        });
    }

    /// Ends it; the lines of its access log.
    pub(crate) fn end(mut self) -> Vec<Value> {
        self.stop();
        assert!(self.access.flush(Instant::now() + PATIENCE), "the log is written");
        let mut text = String::new();
        std::io::Seek::rewind(&mut self.log).expect("a file");
        self.log.read_to_string(&mut text).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn stop(&mut self) {
        drop(self.deliveries.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the worker does not panic");
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}
