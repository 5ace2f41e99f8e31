//! An HTTP/2 connection: its streams, its timers, and how it leaves.
//!
//! One task drives it all: h2 reads and writes frames, every stream is a future
//! beside it, and nothing is spawned. What the loop owns itself is what h2 has
//! no say in:
//!
//! | what | bounded by |
//! | --- | --- |
//! | the preface | `timeouts.h2_preface`, the first-request grace of a drain |
//! | the client's settings behind it | `timeouts.h2_preface` |
//! | a connection without streams | `timeouts.idle`, `limits.connection_age` |
//! | a client that is silent while streams are open | `timeouts.h2_ping`, twice |
//! | a client that takes no octets | `timeouts.send` |
//! | a client that resets what it has asked for | [`RESETS_MAX`] in [`RESETS_WINDOW`] |
//! | the wait of a drain for WebSockets | `close_timeout` after they are told, the hard deadline |
//! | the wait between the two GOAWAYs | `goaway_grace`, [`GOAWAY_PATIENCE`] after it |
//! | the farewell of a connection that is cut | [`CUT_SEND`] |
//!
//! A connection is retired in two steps (RFC 9113 section 6.8): GOAWAY with the
//! highest stream id and a PING, then, when the client has had the grace and
//! acknowledged, GOAWAY with the last stream that was taken. Streams opened in
//! between are served like any other. See `gate` for how the second step is
//! kept from coming too early. Browsers take the first for the end of their
//! WebSockets, so it waits until those have been told in their own protocol.

mod gate;
mod idlers;
mod line;
mod streams;
mod turn;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong, Reason};

pub(super) use self::idlers::Idlers;
use self::idlers::Place;
use self::line::{Io, Line};
use self::streams::Streams;
use self::turn::{Bell, Turns};
use super::kept::Kept;
use super::session::End;
use super::worker::{Worker, millis};
use crate::drain::{Rule, Stage, kept};
use crate::http1::Buffer;
use crate::limits::{
    CUT_SEND, GOAWAY_PATIENCE, H2_DATA_OVERHEAD, H2_LOCAL_RESETS_MAX, H2_PENDING_RESETS_MAX,
    H2_SEND_BUFFER, H2_WINDOW, H2_WINDOW_STREAM, RESETS_MAX, RESETS_WINDOW,
};
use crate::net::Alarm;
use crate::proxy::Failure;
use crate::proxy::h1;
use crate::proxy::h2::Client;
use crate::telemetry::{CloseReason, ConnectionState};

/// The client's connection preface (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8; gate::PREFACE_LEN] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection whose client speaks HTTP/2, from its preface on, part of
/// which may have been read. Gives the socket back
/// for the farewell.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    alarm: &Rc<Alarm>,
    client: h1::Client,
    kept: &Kept,
) -> (End, Option<h1::Client>) {
    let h1::Client { socket, buffer, peer, address, port, trusted, .. } = client;
    let scheme = if socket.is_tls() { "https" } else { "http" };
    let sections = Rc::default();
    let line = Line::new(socket, buffer, Rc::clone(&sections));
    let client = Client { peer, address, port, scheme, trusted, sections };
    let latest = worker.proxy.clock.now();
    let latest = latest.saturating_add(millis(worker.proxy.config.timeouts.h2_preface));
    let end = match handshake(worker, alarm, &line, kept, latest).await {
        Ok(h2) => Multiplex::new(worker, alarm, &client, &line, kept, h2, latest).run().await,
        Err(end) => end,
    };
    let Client { peer, address, port, trusted, .. } = client;
    let back = Line::into_socket(line).map(|socket| {
        let buffer = Buffer::default();
        h1::Client {
            socket,
            buffer,
            peer,
            address,
            port,
            trusted,
            half_line: false,
            ended: false,
            aged: false,
        }
    });
    (end, back)
}

/// Reads the preface and sends our settings, until `latest`.
async fn handshake(
    worker: &Worker,
    alarm: &Alarm,
    line: &Rc<Line>,
    kept: &Kept,
    latest: u64,
) -> Result<Connection<Io, Bytes>, End> {
    let proxy = &worker.proxy;
    let limits = &proxy.config.limits;
    let mut builder = Builder::new();
    builder
        .initial_window_size(H2_WINDOW_STREAM)
        .initial_connection_window_size(H2_WINDOW)
        .max_concurrent_streams(u32::try_from(limits.streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
        .max_send_buffer_size(H2_SEND_BUFFER)
        .data_frame_budget(H2_DATA_OVERHEAD)
        .enable_connect_protocol()
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(H2_LOCAL_RESETS_MAX + 2 * limits.streams));
    let mut handshake = std::pin::pin!(builder.handshake(Io(Rc::clone(line))));
    let began = proxy.clock.now();
    std::future::poll_fn(|cx| {
        alarm.attach(cx);
        if proxy.stage() == Stage::Cut {
            return Poll::Ready(Err(End::Drop(CloseReason::Cut)));
        }
        if let Poll::Ready(shaken) = handshake.as_mut().poll(cx) {
            return Poll::Ready(shaken.map_err(|error| failed(&error)));
        }
        if line.take_heard() {
            kept.guard.shift(ConnectionState::H1Reading);
        }
        let until = latest.min(worker.patience(ConnectionState::H1Fresh, kept.accepted, began));
        let now = proxy.clock.now();
        if now < until {
            alarm.set_at(until);
            return Poll::Pending;
        }
        Poll::Ready(Err(if proxy.stage() >= Stage::Draining {
            worker.hung(kept.peer, "sent no HTTP/2 preface");
            End::Linger(CloseReason::Drain)
        } else {
            End::Linger(CloseReason::Timeout)
        }))
    })
    .await
}

/// How often a turn goes round before others get theirs.
const ROUNDS: u32 = 16;

/// How a connection ends on which h2 cannot go on.
fn failed(error: &h2::Error) -> End {
    match error.get_io() {
        // TLS was broken, and an alert says so: it must not be lost by a reset.
        Some(io) if io.kind() == std::io::ErrorKind::InvalidData => End::Linger(CloseReason::Tls),
        Some(_) => End::Drop(CloseReason::Client),
        // What was wrong has been said.
        None if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) => {
            End::Linger(CloseReason::Limit)
        }
        None => End::Linger(CloseReason::BadRequest),
    }
}

/// A connection after its preface.
struct Multiplex<'a> {
    worker: &'a Worker,
    alarm: &'a Alarm,
    place: Place<'a>,
    client: &'a Client,
    line: &'a Rc<Line>,
    kept: &'a Kept,
    h2: Option<Connection<Io, Bytes>>,
    pings: Option<PingPong>,
    streams: Streams<'a>,
    turns: Arc<Turns>,
    /// Rung by h2 itself: there is something to read or to write.
    bell: Arc<Bell>,
    waker: Waker,
    retire: Option<Retire>,
    /// How it ends, once h2 is done with it.
    end: Option<End>,
    /// Until when the client's settings have to come, if they have not.
    greeting: Option<u64>,
    /// When the client was last seen to be alive, by the worker's clock.
    heard: u64,
    /// When it was sent a PING that it has not answered by anything.
    pinged: Option<u64>,
    /// Since when there are no streams.
    idle: Option<u64>,
    /// Since when the client takes nothing, and what it had taken then.
    blocked: Option<(u64, u64)>,
    /// When everything was cut, and whether h2 has been told to end.
    cut: Option<u64>,
    ended: bool,
    resets: (u64, u32),
    /// The client was told to calm down.
    calmed: bool,
}

/// A connection that is being retired.
#[derive(Clone, Copy, Debug)]
struct Retire {
    reason: CloseReason,
    /// When the final GOAWAY may follow the first, and when it has to.
    from: u64,
    until: u64,
}

impl<'a> Multiplex<'a> {
    fn new(
        worker: &'a Worker,
        alarm: &'a Rc<Alarm>,
        client: &'a Client,
        line: &'a Rc<Line>,
        kept: &'a Kept,
        mut h2: Connection<Io, Bytes>,
        greeting: u64,
    ) -> Self {
        let now = worker.proxy.clock.now();
        kept.guard.shift(ConnectionState::H2Idle);
        let turns = Arc::new(Turns::default());
        let bell = Bell::new(&turns);
        Multiplex {
            worker,
            place: worker.idlers.enter(alarm),
            alarm,
            client,
            line,
            kept,
            pings: h2.ping_pong(),
            h2: Some(h2),
            streams: Streams::new(worker, client, &turns),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            turns,
            retire: None,
            end: None,
            greeting: Some(greeting),
            heard: now,
            pinged: None,
            idle: Some(now),
            blocked: None,
            cut: None,
            ended: false,
            resets: (now, 0),
            calmed: false,
        }
    }

    async fn run(mut self) -> End {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        let cut = self.cut.is_some();
        self.streams.write_down(Some(if cut { || Failure::Cut } else { || Failure::ClientGone }));
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.alarm.attach(cx);
        self.turns.begin(cx);
        // What begins in this turn would else begin with the last tick, and end early.
        self.worker.proxy.clock.refresh();
        self.obey();
        self.bell.ring();
        let mut rounds = 0;
        self.line.begin_turn();
        // Whoever sends without a pause has his turn like everybody else.
        while self.turns.is_called() && rounds < ROUNDS && !self.line.is_turn_over() {
            rounds += 1;
            // The streams first: h2 writes the frames of all of them together.
            self.streams.poll(self.line.taken());
            if self.bell.answer() {
                self.poll_h2();
            }
        }
        self.count_resets();
        self.look(cx);
        self.turns.end();
        match self.end {
            Some(end) if self.streams.are_over() => Poll::Ready(end),
            _ => Poll::Pending,
        }
    }

    /// Lets h2 read and write.
    fn poll_h2(&mut self) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        while let Some(h2) = &mut self.h2 {
            match h2.poll_accept(&mut cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.streams.open(request, respond),
                Poll::Ready(Some(Err(error))) => self.leave(failed(&error)),
                Poll::Ready(None) => {
                    // It ends well only when everything has been written.
                    if !self.line.is_ended() && !self.ended {
                        self.streams.write_down(None);
                    }
                    let reason = match self.retire {
                        _ if self.calmed => CloseReason::Limit,
                        Some(retire) => retire.reason,
                        None => CloseReason::Client,
                    };
                    self.leave(End::Linger(reason));
                }
                Poll::Pending => break,
            }
        }
        if let (true, Some(pings)) = (self.pinged.is_some(), &mut self.pings) {
            let _answered = pings.poll_pong(&mut cx);
        }
    }

    /// Lets h2 go: every stream that is left sees that its client has gone.
    fn leave(&mut self, end: End) {
        self.h2 = None;
        self.pings = None;
        self.end.get_or_insert(end);
    }

    /// Does what the drain and the clock ask.
    fn obey(&mut self) {
        let proxy = &self.worker.proxy;
        let now = proxy.clock.now();
        let stage = proxy.stage();
        if self.is_due(self.first_goaway()) {
            self.retire(CloseReason::Drain, now);
        }
        if stage == Stage::Cut {
            self.obey_cut(now);
        }
        if self.is_due(self.age()) {
            self.retire(CloseReason::Age, now);
        }
        if self.is_due(self.idle_end()) {
            self.retire(CloseReason::Idle, now);
        }
        if self.idle.is_some() && self.place.is_asked() {
            self.retire(CloseReason::Limit, now);
        }
        if let Some(retire) = self.retire {
            self.obey_retire(retire, now);
        }
        if self.is_due(self.greeting) {
            self.leave(End::Linger(CloseReason::Timeout));
        }
        if self.is_due(self.send_end()) {
            self.leave(End::Drop(CloseReason::Timeout));
        }
        if self.is_due(self.silence_end()) {
            self.answer_silence(now);
        }
    }

    /// The first step of leaving.
    fn retire(&mut self, reason: CloseReason, now: u64) {
        if let (None, Some(h2)) = (self.retire, &mut self.h2) {
            self.line.gate.borrow_mut().shut();
            h2.graceful_shutdown();
            let grace = if kept(Rule::GoawayGrace) {
                // What the clock has noted is rounded down: a millisecond more is never less.
                millis(self.worker.proxy.plan().goaway_grace).saturating_add(1)
            } else {
                0
            };
            let from = now.saturating_add(grace);
            self.retire = Some(Retire { reason, from, until: from + millis(GOAWAY_PATIENCE) });
        }
    }

    /// The second step, when its time has come.
    fn obey_retire(&mut self, retire: Retire, now: u64) {
        if now >= retire.from {
            self.line.gate.borrow_mut().open();
        }
        if now < retire.until || self.ended || self.line.gate.borrow().is_given() {
            return;
        }
        let missing = self.line.gate.borrow_mut().force();
        if missing {
            self.worker.hung(self.client.peer, "did not acknowledge GOAWAY");
        }
        // In the middle of a frame nothing can be made up. Without streams there
        // is nothing to wait for either.
        let given = self.line.gate.borrow().is_given();
        if let (false, true, Some(h2)) = (given, self.streams.is_empty(), &mut self.h2) {
            h2.abrupt_shutdown(Reason::NO_ERROR);
            self.ended = true;
        }
    }

    /// The hard deadline: streams end themselves, then h2 says goodbye.
    fn obey_cut(&mut self, now: u64) {
        let since = *self.cut.get_or_insert(now);
        let late = now >= since.saturating_add(2 * millis(CUT_SEND));
        if late && self.h2.is_some() {
            self.worker.hung(self.client.peer, "did not take its last octets");
            self.leave(End::Drop(CloseReason::Cut));
            return;
        }
        // What has reached us is read first, and refused stream by stream.
        let over = self.streams.is_empty() && !self.ended && !self.line.has_unread();
        if let (true, Some(h2)) = (over, &mut self.h2) {
            h2.abrupt_shutdown(Reason::NO_ERROR);
            self.ended = true;
        }
    }

    fn answer_silence(&mut self, now: u64) {
        if self.pinged.is_some() {
            self.leave(End::Drop(CloseReason::Timeout));
        } else if let Some(pings) = &mut self.pings {
            // An answer that came with other octets was not waited for any more;
            // as long as nobody takes it, h2 sends no other PING.
            let _stale = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
            // One that is still under way asks the same.
            let _under_way = pings.send_ping(Ping::opaque());
            self.pinged = Some(now);
        }
    }

    /// A client that keeps taking back what it asked for makes work for nothing.
    fn count_resets(&mut self) {
        let (since, count) = &mut self.resets;
        let cancelled = self.streams.take_cancelled();
        if cancelled == 0 {
            return;
        }
        let now = self.worker.proxy.clock.now();
        if now.saturating_sub(*since) > millis(RESETS_WINDOW) {
            (*since, *count) = (now, 0);
        }
        *count += cancelled;
        if let (true, false, Some(h2)) = (*count > RESETS_MAX, self.ended, &mut self.h2) {
            h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.ended = true;
            self.calmed = true;
            self.bell.ring();
        }
    }

    /// Notes what this turn has brought, and sets the alarm for what comes next.
    fn look(&mut self, cx: &mut Context<'_>) {
        let now = self.worker.proxy.clock.now();
        let taken = self.line.taken();
        let has_streams = self.h2.as_ref().is_some_and(Connection::has_streams);
        let written = !self.line.is_blocked() && !self.turns.is_called();
        // A client may take back the room in its windows that a response had when
        // it was handed over: then it is not out, whatever else is written.
        let stuck = has_streams && self.streams.is_empty();
        if self.h2.is_some() && written && !stuck {
            self.streams.write_down(None);
        } else if !stuck {
            self.streams.write_down_until(taken);
        }
        let waits = self.h2.is_some() && (self.line.is_blocked() || stuck);
        let moves = !stuck && self.blocked.is_some_and(|(_, before)| taken > before);
        if self.line.take_heard() || moves {
            self.heard = now;
            self.pinged = None;
        }
        if self.greeting.is_some() && self.line.gate.borrow().has_frame() {
            self.greeting = None;
        }
        self.blocked = match self.blocked {
            _ if !waits => None,
            Some(since) if !moves => Some(since),
            _ => Some((now, taken)),
        };
        if self.streams.is_empty() {
            self.idle.get_or_insert(now);
            self.kept.guard.shift(ConnectionState::H2Idle);
        } else {
            self.idle = None;
            self.kept.guard.shift(ConnectionState::H2Active);
        }
        self.place.set(self.idle.filter(|_| self.retire.is_none()));
        let all = [
            self.first_goaway(),
            self.goodbye(now),
            self.cut.filter(|_| self.h2.is_some()).map(|since| since + 2 * millis(CUT_SEND)),
            self.age(),
            self.idle_end(),
            self.send_end(),
            self.silence_end(),
            self.greeting.filter(|_| self.h2.is_some()),
        ];
        match all.into_iter().flatten().min() {
            Some(next) if next <= now => cx.waker().wake_by_ref(),
            Some(next) => self.alarm.set_at(next),
            None => self.alarm.clear(),
        }
    }

    /// When h2 has to be told something of the way it ends.
    fn goodbye(&self, now: u64) -> Option<u64> {
        if self.ended || self.h2.is_none() {
            return None;
        }
        if self.cut.is_some() {
            let soon = if self.line.has_unread() { now + 1 } else { now };
            return self.streams.is_empty().then_some(soon);
        }
        let Retire { from, until, .. } = self.retire?;
        let given = self.line.gate.borrow().is_given();
        let due = self.line.gate.borrow().is_due();
        match now {
            now if now < from => Some(from),
            // It waits for a moment of silence.
            now if now < until && due => Some(now + 1),
            now if now < until && !given => Some(until),
            now => (!given && self.streams.is_empty()).then_some(now),
        }
    }

    fn is_due(&self, at: Option<u64>) -> bool {
        at.is_some_and(|at| at <= self.worker.proxy.clock.now())
    }

    /// When a drain retires it.
    fn first_goaway(&self) -> Option<u64> {
        if self.retire.is_some() || self.h2.is_none() {
            return None;
        }
        match self.worker.proxy.stage() {
            Stage::Open | Stage::LameDuck => None,
            Stage::Draining => Some(self.streams.goaway_waits()),
            Stage::Cut => Some(0),
        }
    }

    /// When it has become too old. One with WebSockets does not: they have an age of their own.
    fn age(&self) -> Option<u64> {
        let age = self.worker.proxy.config.limits.connection_age?;
        let tunnels = self.streams.goaway_waits() > 0;
        let waits = self.retire.is_none() && self.h2.is_some() && !tunnels;
        waits.then(|| self.kept.accepted.saturating_add(millis(age)))
    }

    /// When it has been without streams for too long.
    fn idle_end(&self) -> Option<u64> {
        let idle = self.idle.filter(|_| self.retire.is_none())?;
        Some(idle.saturating_add(millis(self.worker.proxy.config.timeouts.idle)))
    }

    /// When the client has taken nothing for too long.
    fn send_end(&self) -> Option<u64> {
        let (since, _) = self.blocked.filter(|_| self.h2.is_some())?;
        Some(since.saturating_add(millis(self.worker.proxy.config.timeouts.send)))
    }

    /// When the client's silence has to be answered.
    fn silence_end(&self) -> Option<u64> {
        let bound = millis(self.worker.proxy.config.timeouts.h2_ping);
        let waits = bound > 0 && self.h2.is_some() && !self.streams.is_empty();
        let since = self.pinged.unwrap_or(self.heard);
        waits.then(|| since.saturating_add(bound))
    }
}
