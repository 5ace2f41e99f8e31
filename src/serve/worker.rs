//! A worker: one thread, one runtime, and the connections that live on it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use slab::Slab;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, spawn_local};

use super::accept::accept;
use super::admission::Admission;
use super::announce::Hearing;
use super::delivery::{Delivery, Departure};
use super::h2;
use super::kept::{Door, Kept};
use super::lot::{Happened, Lot, Parked};
use super::session::{End, Session};
use crate::config::{AccessFormat, Address, Config};
use crate::drain::{Branch, Orders, Plan, Rule, Shard, Stage, Watch, kept};
use crate::http1::Buffer;
use crate::limits::{CUT_SEND, DRAIN_TICK, EVENT_INTERVAL, POOL_SWEEP, RETIRE_LINGER, TICK};
use crate::net::{Alarm, Clock, Socket};
use crate::proxy::h1::Client;
use crate::proxy::{Proxy, RequestIds, Stamp, Tellings};
use crate::telemetry::access::Format;
use crate::telemetry::{
    AccessLog, CloseReason, ConnectionState, Counters, CutRequest, Events, Sink, Tunnels,
};
use crate::tls::{Calls, Settings};
use crate::upstream::{Pool, Spare};

/// Everything a worker is started with.
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its part of the drain.
    pub branch: Branch<ConnectionState>,
    /// What TLS sessions are made with; there must be some if a listener is secure.
    pub tls: Option<Settings>,
    /// What TLS sessions with app servers are made with, if there are any.
    pub calls: Option<Calls>,
    /// Listeners, and connections that were accepted or served elsewhere.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// Where connections go that move to a successor.
    pub departures: mpsc::Sender<Departure>,
    /// Told once that it has started, or why not; later why it ended unasked.
    /// Dropped without a word if it panics.
    pub reports: mpsc::Sender<io::Result<()>>,
    /// The connection limits.
    pub admission: Arc<Admission>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Where access log lines go.
    pub access: Sink,
    /// The tunnels of all workers.
    pub tunnels: Tunnels,
    /// Events on stderr.
    pub events: Events,
    /// Where cut requests are named.
    pub cuts: SyncSender<CutRequest>,
}

/// Starts a worker's thread. It ends when the sender of its deliveries is dropped.
pub fn spawn(index: usize, start: Start) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    thread.spawn(move || {
        let reports = start.reports.clone();
        if let Err(error) = work(start) {
            // There is room: a worker reports its start and its end, no more.
            let _nobody_asks = reports.try_send(Err(error));
        }
    })
}

fn work(start: Start) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        // Who always has something to do must not keep the news of others away.
        .event_interval(EVENT_INTERVAL)
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())?;
    let ended = runtime.block_on(run(start));
    // Not by a drop: that waits for name look-ups which may hang for long.
    runtime.shutdown_background();
    ended
}

/// A worker's shared state. Lives on its thread.
pub struct Worker {
    pub(super) proxy: Proxy,
    pub(super) admission: Arc<Admission>,
    pub(super) tls: Option<Settings>,
    /// What an HTTP/1.0 request without `Host` is asked for.
    pub(super) fallback_host: Box<str>,
    pub(super) shard: Rc<Shard<ConnectionState>>,
    /// Alarms of the tasks, see `seat`.
    pub(super) seats: RefCell<Slab<Rc<Alarm>>>,
    /// The tunnels of all workers, for the status.
    pub(super) tunnels: Tunnels,
    /// HTTP/2 connections that could make room.
    pub(super) idlers: h2::Idlers,
    pub(super) lot: RefCell<Lot>,
    /// What is read before anybody knows whether it is worth a buffer.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Where connections go that move to a successor.
    pub(super) departures: mpsc::Sender<Departure>,
    /// Wakes whoever sends parked connections there.
    pub(super) leaving: Notify,
    /// Wakes the tick: there is something to look after again, or it has become urgent.
    stir: Notify,
    resting: Cell<bool>,
}

async fn run(start: Start) -> io::Result<()> {
    let Start { branch, mut deliveries, .. } = start;
    let (shard, watch) = branch.open();
    let clock = Clock::new();
    let spare = Rc::new(Spare::default());
    let upstream = &start.config.upstream;
    let pool = Pool::new(upstream, start.calls, Rc::clone(&clock), Rc::clone(&spare));
    let format = match start.config.log.access {
        AccessFormat::Json => Format::Json,
        AccessFormat::Combined => Format::Combined,
        AccessFormat::Off => Format::Off,
    };
    let fallback_host = match upstream.endpoints.first().map(|endpoint| &endpoint.address) {
        Some(address @ Address::Tcp { .. }) => address.to_string().into(),
        _ => "localhost".into(),
    };
    let proxy = Proxy {
        orders: Cell::new(watch.orders()),
        clock,
        spare,
        pool,
        ids: RequestIds::new(),
        stamp: Stamp::new(start.config.forwarding.via),
        tellings: Tellings::default(),
        counters: start.counters,
        access: RefCell::new(AccessLog::new(format, start.config.log.query, start.access)),
        events: start.events,
        cuts: start.cuts,
        config: start.config,
    };
    let worker = Rc::new(Worker {
        proxy,
        admission: start.admission,
        tls: start.tls,
        fallback_host,
        shard,
        seats: RefCell::default(),
        tunnels: start.tunnels,
        idlers: h2::Idlers::default(),
        lot: RefCell::new(Lot::new()?),
        scratch: RefCell::new(vec![0; 16 * 1024].into()),
        departures: start.departures,
        leaving: Notify::new(),
        stir: Notify::new(),
        resting: Cell::new(false),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn_local(Rc::clone(&worker).follow(watch.clone()));
    tasks.spawn_local(Rc::clone(&worker).tick());
    tasks.spawn_local(Rc::clone(&worker).look_after_lot());
    tasks.spawn_local(Rc::clone(&worker).send_parked_away());
    let _nobody_asks = start.reports.try_send(Ok(()));
    let ended = worker.receive(&mut deliveries, tasks, &watch).await;
    worker.proxy.pool.close().await;
    worker.proxy.access.borrow_mut().flush();
    ended
}

impl Worker {
    /// Takes in what is delivered until nothing can be any more.
    async fn receive(
        self: &Rc<Self>,
        deliveries: &mut mpsc::Receiver<Delivery>,
        mut tasks: JoinSet<()>,
        watch: &Watch,
    ) -> io::Result<()> {
        loop {
            let delivery = tokio::select! {
                delivery = deliveries.recv() => delivery,
                // A task that died leaves a worker that seems to live: no clock, or no ear.
                Some(ended) = tasks.join_next() => {
                    ended.map_err(io::Error::other)?;
                    continue;
                }
            };
            // By the orders that hold when it was delivered: who comes back when nobody moves
            // any more must not be sent away again.
            while delivery.is_some() && self.proxy.orders.get() != watch.orders() {
                tokio::task::yield_now().await;
            }
            match delivery {
                None => return Ok(()),
                Some(Delivery::Listener { listener, accepting, opened }) => {
                    let (worker, watch) = (Rc::clone(self), watch.clone());
                    let door =
                        Door { port: listener.port().unwrap_or(0), secure: listener.is_secure() };
                    let acceptor = listener.acceptor().map(|acceptor| {
                        tasks.spawn_local(async move {
                            accept(worker, acceptor, door, watch).await;
                            drop(accepting);
                        });
                    });
                    // There is room for each.
                    let _nobody_asks = opened.try_send(acceptor);
                }
                Some(Delivery::Question(answer)) => {
                    // Whoever asked may have stopped listening.
                    let _unheard = answer.send(());
                }
                Some(Delivery::Connection { fd, peer, port, secure, hold }) => {
                    let door = Door { port, secure };
                    if let Ok(socket) = Socket::adopt(fd, peer.transport(), None) {
                        self.admit(socket, peer, door);
                    }
                    drop(hold);
                }
                Some(Delivery::Arrival { parcel, hold }) => {
                    self.arrive(parcel);
                    drop(hold);
                }
            }
        }
    }

    /// Serves a connection, of which octets may have been read ahead, in a task of its own
    /// until it is parked or closed, or leaves.
    /// What the task owns is captured, not passed: a waiting connection costs
    /// what its task holds.
    pub(super) fn serve(
        self: &Rc<Self>,
        socket: Socket,
        mut kept: Kept,
        ahead: Buffer,
        mut woken: bool,
    ) {
        let (worker, (key, alarm)) = (Rc::clone(self), self.take_seat());
        let mut client = Client { buffer: ahead, ..self.client(socket, &kept) };
        spawn_local(async move {
            let mut unheard = None;
            if kept.may_announce {
                let (client, kept) = (&mut client, &mut kept);
                let hearing = Hearing { worker: &worker, alarm: &alarm, client, kept };
                // Boxed, so that those who have nothing to announce do not carry it.
                unheard = Box::pin(hearing.run(std::mem::take(&mut woken))).await;
            }
            let mut session = Session {
                worker: &worker,
                alarm: &alarm,
                client: &mut client,
                guard: &kept.guard,
                secure: kept.door.secure,
                accepted: kept.accepted,
                since: kept.since,
                asks_head: false,
                woken,
                served: false,
                tunnel: None,
            };
            let end = match unheard {
                Some(end) => end,
                None => session.run().await,
            };
            let (since, served) = (session.since, session.served);
            let tunnel = session.tunnel.take();
            let kept = Kept { since, ..kept };
            if let Some(tunnel) = tunnel {
                // Boxed, so that a connection of HTTP does not carry it.
                Box::pin(worker.relay(&alarm, client, kept, (tunnel, None))).await;
            } else if let End::Multiplex = end {
                // Boxed, so that a connection of HTTP/1 does not carry it.
                match Box::pin(h2::serve(&worker, &alarm, client, &kept)).await {
                    (end, Some(mut client)) => {
                        let end = worker.end(&alarm, &mut client, end).await;
                        worker.after(client, kept, end);
                    }
                    (_, None) => worker.proxy.counters.closed(CloseReason::Error),
                }
            } else {
                let end = worker.end(&alarm, &mut client, end).await;
                match end {
                    End::Park => worker.pause(client, kept, served),
                    _ => worker.after(client, kept, end),
                }
            }
            worker.seats.borrow_mut().remove(key);
        });
    }

    /// An alarm for a task, rung by the tick and by the drain.
    pub(super) fn take_seat(&self) -> (usize, Rc<Alarm>) {
        let alarm = Rc::new(Alarm::new(Rc::clone(&self.proxy.clock)));
        let key = self.seats.borrow_mut().insert(Rc::clone(&alarm));
        self.wake_tick();
        (key, alarm)
    }

    pub(super) fn client(&self, socket: Socket, kept: &Kept) -> Client {
        Client {
            socket,
            buffer: Buffer::default(),
            peer: kept.peer,
            address: kept.address(),
            port: kept.door.port,
            trusted: kept.trusted,
            half_line: kept.half_line,
            ended: false,
            aged: false,
        }
    }

    /// Ends our side of a connection that is to linger: a client that does not
    /// take even that is left.
    pub(super) async fn end(&self, alarm: &Alarm, client: &mut Client, end: End) -> End {
        let End::Linger(reason) = end else { return end };
        let mut bound = Duration::MAX;
        let ended = poll_fn(|cx| {
            alarm.attach(cx);
            let cut = self.proxy.stage() == Stage::Cut;
            let now = if cut { CUT_SEND } else { self.proxy.config.timeouts.send };
            if now < bound {
                bound = now;
                alarm.set(bound);
            }
            match client.socket.poll_end(cx) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending if alarm.is_due() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        if ended.await { End::Linger(reason) } else { End::Drop(reason) }
    }

    /// Parks, retires or closes a connection whose session is over.
    pub(super) fn after(&self, client: Client, kept: Kept, end: End) {
        let Client { socket, buffer, half_line, .. } = client;
        let kept = Kept { half_line, ..kept };
        self.proxy.spare.give(buffer);
        let now = self.proxy.clock.now();
        match end {
            End::Drop(reason) => self.proxy.counters.closed(reason),
            // What has become something else has been served before it comes here.
            End::Multiplex | End::Tunnel => self.proxy.counters.closed(CloseReason::Error),
            End::Linger(reason) => {
                self.proxy.counters.closed(reason);
                if crate::drain::kept(Rule::Linger) {
                    kept.guard.shift(kept.guard.kind().closing());
                    let until = now.saturating_add(millis(self.proxy.plan().linger));
                    self.park(socket, Kept { since: now, ..kept }, until);
                }
            }
            End::Park => {
                let until = self.patience_of(&kept);
                self.park(socket, kept, until);
            }
        }
    }

    fn park(&self, socket: Socket, kept: Kept, until: u64) {
        let Ok((fd, tls)) = socket.release() else { return };
        // After the end nothing is said or understood any more.
        let tls = tls.filter(|_| !kept.guard.kind().is_closing());
        self.put_down(Parked { fd, tls, kept, until, retired: false });
    }

    /// Puts a connection into the lot.
    pub(super) fn put_down(&self, parked: Parked) {
        if self.proxy.moves() {
            self.leaving.notify_one();
        }
        if self.lot.borrow_mut().park(parked).is_err() {
            self.proxy.counters.closed(CloseReason::Error);
        }
        self.wake_tick();
    }

    /// Whether a connection has been silent long enough to be parked. If octets have
    /// woken it, that takes a moment even while the process drains.
    pub(super) fn may_park(&self, alarm: &Alarm, woken: bool) -> bool {
        let draining = self.proxy.stage() >= Stage::Draining;
        alarm.is_due() || (draining && !woken)
    }

    /// How long this one may go on waiting, by the clock: one that moves as long as ever.
    pub(super) fn patience_of(&self, kept: &Kept) -> u64 {
        let Kept { accepted, since, .. } = *kept;
        if self.proxy.moves() && kept.can_move() {
            return self.lasting_patience(accepted, since);
        }
        self.patience(kept.guard.kind(), accepted, since)
    }

    /// How long a connection of this state may go on waiting, by the clock.
    pub(super) fn patience(&self, state: ConnectionState, accepted: u64, since: u64) -> u64 {
        let Orders { stage, since: began, .. } = self.proxy.orders.get();
        if stage == Stage::Cut {
            return since;
        }
        if stage >= Stage::Draining {
            let (plan, began) = (self.proxy.plan(), self.proxy.clock.millis(began));
            let (from, grace) = match state {
                ConnectionState::H1Fresh if !kept(Rule::FirstRequestGrace) => (0, Duration::ZERO),
                ConnectionState::H1Fresh => (since, plan.first_request_grace),
                _ => (since, plan.idle_grace),
            };
            // What the clock has noted is rounded down: a millisecond more is never less.
            return from.saturating_add(1).max(began).saturating_add(millis(grace));
        }
        self.lasting_patience(accepted, since)
    }

    fn lasting_patience(&self, accepted: u64, since: u64) -> u64 {
        let config = &self.proxy.config;
        let idle = since.saturating_add(millis(config.timeouts.idle));
        let age = config.limits.connection_age.map_or(u64::MAX, millis);
        idle.min(accepted.saturating_add(age).max(since))
    }

    /// Does what the drain asks, whenever that changes.
    async fn follow(self: Rc<Self>, mut watch: Watch) {
        let mut orders = self.proxy.orders.get();
        loop {
            orders = watch.changed_from(orders).await;
            self.proxy.clock.refresh();
            self.proxy.orders.set(orders);
            // Also when nothing drains any more: what was to end goes on.
            self.proxy.tellings.spread(&self.proxy);
            self.retime();
            if self.proxy.moves() {
                self.leaving.notify_one();
            }
            for (_, alarm) in self.seats.borrow().iter() {
                alarm.ring();
            }
            self.stir.notify_one();
        }
    }

    /// Gives every parked connection the time that the drain leaves it.
    fn retime(self: &Rc<Self>) {
        let cut = self.proxy.stage() == Stage::Cut;
        let leaving = self.lot.borrow_mut().extract(|parked| {
            if !parked.state().is_closing() {
                parked.until = self.patience_of(&parked.kept);
            }
            cut
        });
        for mut parked in leaving {
            if parked.state().is_closing() {
                continue;
            }
            if parked.has_octets() {
                self.unpark(parked);
            } else {
                self.proxy.counters.closed(CloseReason::Drain);
                parked.end();
            }
        }
    }

    fn unpark(self: &Rc<Self>, parked: Parked) {
        let Parked { fd, tls, kept, .. } = parked;
        match Socket::adopt(fd, kept.transport, tls) {
            Ok(socket) => self.serve(socket, kept, Buffer::default(), true),
            Err(_) => self.proxy.counters.closed(CloseReason::Error),
        }
    }

    /// Lets time pass: rings alarms, retires who waited too long, hands over the log.
    async fn tick(self: Rc<Self>) {
        let mut swept = 0;
        let mut pooled = false;
        loop {
            let Orders { stage, plan, .. } = self.proxy.orders.get();
            if self.seats.borrow().is_empty() && self.lot.borrow().len() == 0 && !pooled {
                self.resting.set(true);
                self.stir.notified().await;
            } else {
                // With a successor nobody waits for us to be gone.
                let hurries = stage >= Stage::Draining && plan == Plan::Stop;
                let pause = if hurries { DRAIN_TICK } else { TICK };
                let _stirred = tokio::time::timeout(pause, self.stir.notified()).await;
            }
            self.resting.set(false);
            let dies = !kept(Rule::WorkerLives) && !self.seats.borrow().is_empty();
            assert!(!dies, "told to die");
            while !kept(Rule::WorkerTurns) && !self.seats.borrow().is_empty() {
                std::thread::park();
            }
            self.proxy.clock.refresh();
            let now = self.proxy.clock.now();
            for (_, alarm) in self.seats.borrow().iter() {
                if alarm.is_due() {
                    alarm.ring();
                }
            }
            self.retire_due(now);
            if now.saturating_sub(swept) >= millis(POOL_SWEEP) {
                swept = now;
                pooled = self.proxy.pool.sweep();
            } else {
                pooled = true;
            }
            self.proxy.access.borrow_mut().flush();
        }
    }

    /// A tick that rests is woken once; one that ticks looks by itself.
    fn wake_tick(&self) {
        if self.resting.replace(false) {
            self.stir.notify_one();
        }
    }

    /// Retires parked connections whose time is over, after a last look.
    fn retire_due(self: &Rc<Self>, now: u64) {
        let linger = now + millis(RETIRE_LINGER);
        let reason = if self.proxy.stage() >= Stage::Draining {
            CloseReason::Drain
        } else {
            CloseReason::Idle
        };
        let leaving = self.lot.borrow_mut().extract(|parked| {
            if parked.until > now {
                return false;
            }
            if parked.state().is_closing() {
                return true;
            }
            if kept(Rule::LastLook) && parked.has_octets() {
                return true;
            }
            self.proxy.counters.closed(reason);
            parked.retire(now, linger);
            !kept(Rule::Linger)
        });
        for parked in leaving {
            if !parked.state().is_closing() {
                self.unpark(parked);
            }
        }
    }

    /// Retires whoever has been idle longest, to make room for a newcomer.
    pub(super) fn make_room(&self) {
        let now = self.proxy.clock.now();
        let grace = millis(self.proxy.plan().first_request_grace);
        if let Some(parked) = self.lot.borrow_mut().least_missed(now.saturating_sub(grace)) {
            parked.until = now;
            self.stir.notify_one();
        } else {
            self.idlers.ask_oldest();
        }
    }

    /// Serves parked connections on which something happens.
    async fn look_after_lot(self: Rc<Self>) {
        loop {
            poll_fn(|cx| self.lot.borrow().poll_ready(cx)).await;
            self.proxy.clock.refresh();
            while self.lot.borrow_mut().fetch() {
                let mut waking = Vec::new();
                let counters = &self.proxy.counters;
                let scratch = &mut self.scratch.borrow_mut()[..];
                self.lot.borrow_mut().each(scratch, |happened| match happened {
                    Happened::Wakes(parked) => waking.push(parked),
                    Happened::Left(parked) => {
                        drop(parked);
                        counters.closed(CloseReason::Client);
                    }
                    Happened::Raced => counters.raced(),
                    Happened::Closed => {}
                });
                for parked in waking {
                    self.unpark(parked);
                }
            }
        }
    }
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
