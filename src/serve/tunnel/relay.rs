//! The relay: octets in both directions, and when it is over. The goodbye between them
//! is in `farewell`.
//!
//! Of a protocol that is not known nothing can be said: its octets, half-closes and
//! resets pass, until both sides have ended or the hard deadline resets both.

use std::io;
use std::task::{Context, Poll};

use super::farewell::Farewell;
use super::leg::Leg;
use super::way::Way;
use crate::config::WebSocket;
use crate::drain::Stage;
use crate::handoff::MovedTunnel;
use crate::http1::Buffer;
use crate::limits::{HALF_CLOSE_GRACE, MOVED_OCTETS_MAX, TUNNEL_TURNS};
use crate::net::Alarm;
use crate::proxy::{Telling, Tunnel, last};
use crate::serve::worker::{Worker, millis};
use crate::telemetry::CloseReason;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// By itself.
    Ended,
    /// It was told, for this reason.
    Told(CloseReason),
    /// The client has gone without a word.
    ClientGone,
    /// The app server has gone; whether the client could be told.
    Lost(bool),
    /// By the hard deadline, untold.
    Cut,
    /// Its time was over, for this reason, and nothing could be said.
    Untold(CloseReason),
}

/// A tunnel that is being relayed.
pub(super) struct Relay<'a, C> {
    pub(super) worker: &'a Worker,
    pub(super) alarm: &'a Alarm,
    pub(super) client: &'a mut C,
    pub(super) tunnel: &'a mut Tunnel,
    /// When a drain ends it, unless it is left alone.
    pub(super) telling: Option<Telling<'a>>,
    pub(super) up: Way,
    pub(super) down: Way,
    pub(super) farewell: Farewell,
    /// The app server has part of a frame that nobody will end.
    pub(super) leaves_part: bool,
    /// When it began, when octets passed last, and when the client was pinged last.
    pub(super) began: u64,
    pub(super) moved: u64,
    pub(super) pinged: u64,
    /// When one side has ended and the other has not.
    half: Option<u64>,
    /// It can go on in a successor.
    pub(super) can_move: bool,
}

impl<'a, C: Leg> Relay<'a, C> {
    /// A relay of what has been read by now, `ahead` of the client's, and of all that follows.
    pub(super) fn new(
        worker: &'a Worker,
        alarm: &'a Alarm,
        (client, ahead): (&'a mut C, Buffer),
        tunnel: &'a mut Tunnel,
    ) -> Self {
        let spare = &worker.proxy.spare;
        let is_websocket = tunnel.is_websocket();
        let up = Way::new(is_websocket, ahead.filled());
        let down = Way::new(is_websocket, tunnel.ahead.filled());
        spare.give(ahead);
        spare.give(std::mem::take(&mut tunnel.ahead));
        Relay::of(worker, alarm, client, tunnel, (up, down))
    }

    /// A relay of these directions, that begins now.
    pub(super) fn of(
        worker: &'a Worker,
        alarm: &'a Alarm,
        client: &'a mut C,
        tunnel: &'a mut Tunnel,
        (up, down): (Way, Way),
    ) -> Self {
        let proxy = &worker.proxy;
        let telling = tunnel.telling(proxy);
        let now = proxy.clock.now();
        Relay {
            telling,
            worker,
            alarm,
            client,
            tunnel,
            up,
            down,
            farewell: Farewell::None,
            leaves_part: false,
            began: now,
            moved: now,
            pinged: now,
            half: None,
            can_move: false,
        }
    }

    /// When it began, when octets passed last, when the client was pinged last, and since
    /// when one side has ended: so many milliseconds ago.
    pub(super) fn ages(&self) -> (u64, u64, u64, Option<u64>) {
        let age = |since| self.worker.proxy.clock.now().saturating_sub(since);
        (age(self.began), age(self.moved), age(self.pinged), self.half.map(age))
    }

    /// The other way round.
    pub(super) fn set_ages(&mut self, moved: &MovedTunnel) {
        let since = |age| self.worker.proxy.clock.now().saturating_sub(age);
        (self.began, self.moved) = (since(moved.began), since(moved.passed));
        (self.pinged, self.half) = (since(moved.pinged), moved.half.map(since));
    }

    /// Whether it goes to a successor as soon as there is room on the way: wherever in a
    /// frame it is, but not in the middle of a farewell.
    pub(super) fn may_leave(&self) -> bool {
        let nothing_said = match self.farewell {
            Farewell::None => true,
            Farewell::Wanted(reason, _) => reason == CloseReason::Drain,
            _ => false,
        };
        let held = self.up.held().len() + self.down.held().len();
        self.moves() && nothing_said && !self.leaves_part && held <= MOVED_OCTETS_MAX
    }

    fn moves(&self) -> bool {
        self.can_move && self.worker.proxy.moves()
    }

    pub(super) fn config(&self) -> &'a WebSocket {
        &self.worker.proxy.config.websocket
    }

    /// Whether a drain ends it by a Close.
    pub(super) fn is_told_in_a_drain(&self) -> bool {
        self.telling.is_some() && self.down.frames.is_some() && !self.moves()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.worker.proxy.stage() >= Stage::Draining
    }

    /// Until when the GOAWAY of a drain waits for it: browsers take that for the end of a
    /// WebSocket. What is told has `close_timeout` from then on to answer. What is left
    /// alone keeps it off as long as others can still be told; who speaks anything else
    /// is no browser.
    pub(super) fn goaway_waits(&self) -> u64 {
        let proxy = &self.worker.proxy;
        if self.down.frames.is_none() {
            return 0;
        }
        if self.is_told_in_a_drain() {
            self.told_at().saturating_add(millis(proxy.plan().close_timeout))
        } else {
            last(proxy)
        }
    }

    /// Relays until it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        self.alarm.attach(cx);
        let now = self.worker.proxy.clock.now();
        if self.worker.proxy.stage() == Stage::Cut
            && let Some(over) = self.meet_the_deadline(cx)
        {
            return Poll::Ready(over);
        }
        for _ in 0..TUNNEL_TURNS {
            self.look_at_the_clock(now);
            let before = self.up.passed() + self.down.passed();
            let read = match self.turn(cx) {
                Ok(read) => read,
                Err(over) => return Poll::Ready(over),
            };
            if read || self.up.passed() + self.down.passed() > before {
                self.moved = now;
            }
            if let Some(over) = self.over(cx, now) {
                return Poll::Ready(over);
            }
            if !read {
                self.set_alarm();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves octets once in each direction; whether any were read or said.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let up = self.turn_up(cx);
        let down = up.and_then(|up| Ok(self.turn_down(cx)? || up));
        match down {
            Ok(moved) => Ok(moved),
            Err(Broken::App) => Err(Over::Lost(false)),
            // It has been told; the app server has still to be.
            Err(Broken::Client) if self.farewell.is_said() && !self.down.finished => {
                self.up.ended = true;
                self.down.give_up();
                Ok(true)
            }
            Err(Broken::Client) => Err(match self.farewell {
                // It has been told and has answered, or had its time.
                Farewell::Leaving(reason, _) => Over::Told(reason),
                _ => Over::ClientGone,
            }),
        }
    }

    /// From the client to the app server, which may still have something to say when it
    /// takes no more.
    fn turn_up(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        let upstream = &mut self.tunnel.upstream;
        match self.up.flush(cx, upstream) {
            Ok(true) => {}
            Ok(false) => return self.watch(cx),
            Err(_) => self.up.give_up(),
        }
        self.client.release();
        if self.up.ended {
            if self.farewell.is_said() && self.speak_for_the_client() {
                return Ok(true);
            }
            if !self.leaves_part {
                self.up.finish(cx, &mut self.tunnel.upstream);
            }
            return self.watch(cx);
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let read = match self.client.poll_read(cx, &mut scratch) {
            Poll::Ready(Ok(0)) if !self.up.is_followed() && self.client.ends_uncleanly() => {
                return Err(Broken::Client);
            }
            Poll::Ready(read) => read.map_err(|_| Broken::Client)?,
            Poll::Pending => return Ok(false),
        };
        let octets = &scratch[..read];
        self.up.ended = read == 0;
        self.up.follow(octets);
        if !self.up.finished && self.up.send(cx, upstream, octets).is_err() {
            self.up.give_up();
        }
        if self.up.is_out() {
            self.client.release();
        }
        Ok(true)
    }

    /// Looks after a client that is not read, as long as something may be said to it.
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        if !self.down.finished {
            self.client.watch(cx).map_err(|_| Broken::Client)?;
        }
        Ok(false)
    }

    /// From the app server to the client.
    fn turn_down(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        let client = |_: io::Error| Broken::Client;
        if !self.down.finished && !self.down.flush(cx, self.client).map_err(client)? {
            return Ok(false);
        }
        if self.say_goodbye() {
            return Ok(true);
        }
        if self.down.ended {
            return Ok(false);
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let read = match self.tunnel.upstream.poll_read(cx, &mut scratch) {
            Poll::Ready(Ok(read)) => read,
            // A reset after its Close is as good as its end.
            Poll::Ready(Err(_)) if self.down.is_followed() => 0,
            Poll::Ready(Err(_)) => return Err(Broken::App),
            Poll::Pending => return Ok(false),
        };
        let octets = &scratch[..read];
        self.down.ended = read == 0;
        if self.farewell.swallows() {
            // What comes after our Close goes nowhere, its own Close included.
            self.down.follow(octets);
        } else if self.farewell.is_wanted() && self.down.frames.is_some() {
            let frames = self.down.frames.as_mut();
            let boundary = frames.and_then(|frames| frames.pass_to_boundary(octets));
            let last = boundary.unwrap_or(octets.len());
            self.down.send(cx, self.client, &octets[..last]).map_err(client)?;
            if last < octets.len() {
                // The Close goes before what is behind the boundary.
                self.say_goodbye();
                self.down.follow(&octets[last..]);
            }
        } else {
            self.down.follow(octets);
            self.down.send(cx, self.client, octets).map_err(client)?;
        }
        Ok(true)
    }

    /// Whether it is over by what has passed.
    fn over(&mut self, cx: &mut Context<'_>, now: u64) -> Option<Over> {
        if let Some(over) = self.goodbye_is_over(cx, now) {
            return over;
        }
        if self.half.is_none() && (self.up.ended || self.down.ended) {
            self.half = Some(now);
        }
        if self.down.is_followed() {
            return self.websocket_is_over(now);
        }
        if self.silence_due() <= now && !self.is_draining() {
            return Some(Over::Untold(CloseReason::Timeout));
        }
        let finished = self.down.ended && self.down.is_out() && self.down.finish(cx, self.client);
        (finished && self.up.ended && self.up.finished).then_some(Over::Ended)
    }

    /// A WebSocket has no use for half a connection: the side that is left has a moment
    /// to say what it still has to say.
    fn websocket_is_over(&mut self, now: u64) -> Option<Over> {
        let is_late = self.half_due() <= now;
        if self.down.ended && self.down.is_out() {
            if !self.down.has_closed_whole() {
                return self.lose();
            }
            // The client may still be answering.
            let answered = self.up.has_closed_whole() && self.up.is_out();
            return (answered || self.up.ended || is_late).then_some(Over::Ended);
        }
        let whole = self.up.has_closed_whole();
        is_late.then_some(if whole { Over::Ended } else { Over::ClientGone })
    }

    fn told_at(&self) -> u64 {
        self.telling.as_ref().map_or(u64::MAX, Telling::due)
    }

    fn age_due(&self) -> u64 {
        self.config().max_age.map_or(u64::MAX, |age| self.began.saturating_add(millis(age)))
    }

    fn silence_due(&self) -> u64 {
        self.moved.saturating_add(millis(self.config().idle_timeout))
    }

    fn half_due(&self) -> u64 {
        let grace = millis(HALF_CLOSE_GRACE);
        self.half.map_or(u64::MAX, |since| since.max(self.moved).saturating_add(grace))
    }

    fn ping_due(&self) -> u64 {
        let last = self.moved.max(self.pinged);
        self.config().ping_interval.map_or(u64::MAX, |every| last.saturating_add(millis(every)))
    }

    /// Begins what is due by the clock.
    fn look_at_the_clock(&mut self, now: u64) {
        if self.farewell == Farewell::Wanted(CloseReason::Drain, u64::MAX) && !self.is_draining() {
            // Nothing drains any more.
            self.farewell = Farewell::None;
        }
        if self.farewell.may_be_told_to_end() && self.is_told_in_a_drain() && self.told_at() <= now
        {
            self.farewell = Farewell::Wanted(CloseReason::Drain, u64::MAX);
        }
        if self.farewell != Farewell::None || self.down.frames.is_none() {
            return;
        }
        if self.age_due() <= now {
            self.want(CloseReason::Age);
        } else if self.silence_due() <= now {
            self.want(CloseReason::Timeout);
        } else if self.ping_due() <= now && self.may_ping() {
            self.ping(now);
        }
    }

    fn set_alarm(&self) {
        self.alarm.clear();
        self.alarm.set_by(self.farewell.due());
        if matches!(self.farewell, Farewell::None | Farewell::Wanted(..)) {
            self.alarm.set_by(self.half_due());
            if self.is_told_in_a_drain() && self.farewell.may_be_told_to_end() {
                self.alarm.set_by(self.told_at());
            }
        }
        if self.farewell == Farewell::None {
            self.alarm.set_by(self.silence_due());
            if self.down.frames.is_some() {
                self.alarm.set_by(self.age_due());
            }
            if self.may_ping() {
                self.alarm.set_by(self.ping_due());
            }
        }
    }
}

/// Whose connection is broken.
enum Broken {
    Client,
    App,
}
