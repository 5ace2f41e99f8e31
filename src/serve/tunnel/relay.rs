//! The relay: octets in both directions, and the goodbye between them.
//!
//! | a WebSocket ends because | its client gets | its app server gets |
//! | --- | --- | --- |
//! | both have sent a Close | the app server's FIN | what the client sends |
//! | it is told: a stop, its age, its silence | a Close of ours at a boundary; then nothing more but FIN | the client's echo; its own Close goes no further |
//! | it is told and the client does not answer | FIN | a masked Close of ours, if it is at a boundary |
//! | the app server is gone | a Close 1011 at a boundary, else a reset | |
//! | the client is gone | | FIN, or a reset |
//! | the hard deadline, and nothing could be said | a reset | a reset |
//!
//! Of any other protocol nothing can be said: its octets and its half-closes pass, until
//! both sides have ended or the hard deadline resets both.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use super::tellings::Telling;
use super::way::Way;
use crate::config::{OnDrain, WebSocket};
use crate::drain::Stage;
use crate::limits::TUNNEL_TURNS;
use crate::net::Alarm;
use crate::proxy::Tunnel;
use crate::proxy::h1::Client;
use crate::serve::worker::{Worker, millis};
use crate::stream::websocket::{PING, close};
use crate::telemetry::CloseReason;

/// The code for an app server that has gone (RFC 6455 section 7.4.1: internal error).
const LOST: u16 = 1011;

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

/// How far a goodbye has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// Nobody has asked for one.
    None,
    /// The Close is to be sent at the next boundary, until then.
    Wanted(CloseReason, u64),
    /// A Close of ours, or one of the app server's, is on its way to the client. It and
    /// the app server have until then to answer.
    Said(CloseReason, u64),
    /// All is said. The app server has until then to take it and to close.
    Leaving(CloseReason, u64),
    /// The app server has gone: the Close says so.
    Lost,
}

/// A tunnel that is being relayed.
pub(super) struct Relay<'a> {
    pub(super) worker: &'a Worker,
    pub(super) alarm: &'a Alarm,
    pub(super) client: &'a mut Client,
    pub(super) tunnel: &'a mut Tunnel,
    telling: Telling<'a>,
    pub(super) up: Way,
    pub(super) down: Way,
    farewell: Farewell,
    /// When it began, when octets passed last, and when the client was pinged last.
    began: u64,
    moved: u64,
    pinged: u64,
    /// The client of a WebSocket has ended its side: how long the app server has to follow.
    left: u64,
}

impl<'a> Relay<'a> {
    /// A relay of what has been read by now and of all that follows.
    pub(super) fn new(
        worker: &'a Worker,
        alarm: &'a Alarm,
        client: &'a mut Client,
        tunnel: &'a mut Tunnel,
    ) -> Self {
        let spare = &worker.proxy.spare;
        let is_websocket = tunnel.is_websocket();
        let up = Way::new(is_websocket, client.buffer.filled());
        let down = Way::new(is_websocket, tunnel.upstream.buffer.filled());
        spare.give(std::mem::take(&mut client.buffer));
        spare.give(std::mem::take(&mut tunnel.upstream.buffer));
        let now = worker.proxy.clock.now();
        Relay {
            telling: worker.tellings.enter(&worker.proxy),
            worker,
            alarm,
            client,
            tunnel,
            up,
            down,
            farewell: Farewell::None,
            began: now,
            moved: now,
            pinged: now,
            left: u64::MAX,
        }
    }

    fn config(&self) -> &'a WebSocket {
        &self.worker.proxy.config.websocket
    }

    /// Relays until it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        self.alarm.attach(cx);
        if self.worker.proxy.stage() == Stage::Cut {
            return Poll::Ready(match self.farewell {
                Farewell::Said(reason, _) | Farewell::Leaving(reason, _) => Over::Told(reason),
                Farewell::Lost => Over::Lost(false),
                Farewell::None | Farewell::Wanted(..) => Over::Cut,
            });
        }
        let now = self.worker.proxy.clock.now();
        for _ in 0..TUNNEL_TURNS {
            self.look_at_the_clock(now);
            let moved = match self.turn(cx) {
                Ok(moved) => moved,
                Err(over) => return Poll::Ready(over),
            };
            if let Some(over) = self.over(cx, now) {
                return Poll::Ready(over);
            }
            if !moved {
                self.set_alarm();
                return Poll::Pending;
            }
            self.moved = now;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves octets once in each direction; whether any moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let up = self.turn_up(cx).map_err(|_| Over::ClientGone)?;
        let down = self.turn_down(cx).map_err(|_| Over::ClientGone)?;
        Ok(up || down)
    }

    /// From the client to the app server. An error is the client's: an app server that
    /// takes no more may still have something to say.
    fn turn_up(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let upstream = &mut self.tunnel.upstream.socket;
        match self.up.flush(cx, upstream) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(_) => self.up.give_up(),
        }
        if self.up.ended {
            self.up.finish(cx, upstream);
            return Ok(false);
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let Poll::Ready(read) = self.client.socket.poll_read(cx, &mut scratch)? else {
            return Ok(false);
        };
        let octets = &scratch[..read];
        self.up.ended = read == 0;
        self.up.follow(octets);
        if !self.up.finished && self.up.send(cx, upstream, octets).is_err() {
            self.up.give_up();
        }
        Ok(true)
    }

    /// From the app server to the client. An error is the client's: that of the app
    /// server is an end without a goodbye.
    fn turn_down(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if !self.down.flush(cx, &mut self.client.socket)? {
            return Ok(false);
        }
        if self.say_goodbye() {
            return Ok(true);
        }
        if self.down.ended {
            return Ok(false);
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let read = match self.tunnel.upstream.socket.poll_read(cx, &mut scratch) {
            Poll::Ready(Ok(read)) => read,
            // A reset after its Close is as good as its end.
            Poll::Ready(Err(_)) => 0,
            Poll::Pending => return Ok(false),
        };
        let octets = &scratch[..read];
        self.down.ended = read == 0;
        match (self.farewell, &mut self.down.frames) {
            // What comes after our Close goes nowhere, its own Close included.
            (Farewell::Said(..) | Farewell::Leaving(..) | Farewell::Lost, _) => {
                self.down.follow(octets);
            }
            (Farewell::Wanted(..), Some(frames)) => {
                let last = frames.pass_to_boundary(octets).unwrap_or(octets.len());
                self.down.send(cx, &mut self.client.socket, &octets[..last])?;
                let closed = self.down.has_closed();
                if last < octets.len() {
                    // What is behind the boundary: the Close goes before it.
                    let said = self.say_goodbye();
                    debug_assert!(said || closed);
                    self.down.follow(&octets[last..]);
                }
            }
            _ => {
                self.down.follow(octets);
                self.down.send(cx, &mut self.client.socket, octets)?;
            }
        }
        Ok(true)
    }

    /// Puts our Close behind what the client has been sent, if one is wanted and may go
    /// there; whether it did.
    fn say_goodbye(&mut self) -> bool {
        let Farewell::Wanted(reason, _) = self.farewell else { return false };
        let until = self.after(self.worker.proxy.config.stop.close_timeout);
        if self.down.has_closed() {
            // The app server has said it: what is left is to wait for the answer.
            self.farewell = Farewell::Said(reason, until);
            return false;
        }
        if self.down.ended || !self.down.is_at_boundary() {
            return false;
        }
        let WebSocket { close_code, close_reason, .. } = self.config();
        self.down.hold(close(*close_code, close_reason, None).as_ref());
        self.farewell = Farewell::Said(reason, until);
        true
    }

    /// The time of the clock when this has passed.
    fn after(&self, time: Duration) -> u64 {
        self.worker.proxy.clock.now().saturating_add(millis(time))
    }

    /// Whether it is over by what has passed.
    fn over(&mut self, cx: &mut Context<'_>, now: u64) -> Option<Over> {
        let is_out = self.down.is_empty();
        if self.up.ended && self.down.frames.is_some() && self.left == u64::MAX {
            self.left = self.after(self.worker.proxy.config.stop.close_timeout);
        }
        match self.farewell {
            Farewell::Lost => return is_out.then_some(Over::Lost(true)),
            Farewell::Wanted(reason, until) if now >= until => return Some(Over::Untold(reason)),
            Farewell::None if self.down.frames.is_none() && self.silence_due() <= now => {
                return Some(Over::Untold(CloseReason::Timeout));
            }
            Farewell::None if self.left <= now => {
                let whole = self.up.has_closed_whole();
                return Some(if whole { Over::Ended } else { Over::ClientGone });
            }
            Farewell::Said(reason, until) => {
                let echoed = self.up.has_closed_whole() && self.up.is_empty();
                let answered = echoed || self.up.ended || self.up.finished;
                let swallowed = self.down.has_closed_whole() || self.down.ended;
                if (is_out && answered && swallowed) || now >= until {
                    self.leave(cx, reason);
                }
            }
            _ => {}
        }
        if let Farewell::Leaving(reason, until) = self.farewell {
            let gone = self.down.ended || now >= until;
            return gone.then_some(Over::Told(reason));
        }
        if let Farewell::Said(..) = self.farewell {
            return None;
        }
        if !self.down.ended || !is_out {
            return None;
        }
        let says = self.down.frames.as_ref().is_some_and(|frames| !frames.is_opaque());
        if says && !self.down.has_closed_whole() {
            return self.lose();
        }
        if says {
            return Some(Over::Ended);
        }
        let finished = self.down.finish(cx, &mut self.client.socket);
        (finished && self.up.ended && self.up.finished).then_some(Over::Ended)
    }

    /// The app server has ended a WebSocket without a Close.
    fn lose(&mut self) -> Option<Over> {
        if self.up.ended && !self.up.has_closed() {
            // The client left first; that is the app server's answer.
            return Some(Over::ClientGone);
        }
        if !self.config().tell_lost || !self.down.is_at_boundary() {
            return Some(Over::Lost(false));
        }
        self.down.hold(close(LOST, "", None).as_ref());
        self.farewell = Farewell::Lost;
        None
    }

    /// All is said to the client: it gets our FIN, and so does the app server, which may
    /// still have to read what came before.
    fn leave(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        self.tell_app(cx);
        self.up.ended = true;
        self.down.finish(cx, &mut self.client.socket);
        self.farewell = Farewell::Leaving(reason, self.after(self.worker.proxy.config.stop.linger));
        cx.waker().wake_by_ref();
    }

    /// A client that did not answer: the app server is told in its place, if that can be.
    fn tell_app(&mut self, cx: &mut Context<'_>) {
        if self.up.has_closed() || !self.up.is_at_boundary() || !self.up.is_empty() {
            return;
        }
        let mut key = [0; 4];
        // A mask keeps scripts from choosing octets on the wire; these are no script's.
        let _without = aws_lc_rs::rand::fill(&mut key);
        let WebSocket { close_code, close_reason, .. } = self.config();
        let frame = close(*close_code, close_reason, Some(key));
        let upstream = &mut self.tunnel.upstream.socket;
        // One that takes not even this is not waited for.
        let _untold = self.up.send(cx, upstream, frame.as_ref());
    }

    /// Begins what is due by the clock.
    fn look_at_the_clock(&mut self, now: u64) {
        if self.farewell != Farewell::None || self.down.frames.is_none() {
            return;
        }
        let config = self.config();
        let leaves = config.on_drain == OnDrain::Leave;
        if self.telling.due() <= now && !leaves {
            self.farewell = Farewell::Wanted(CloseReason::Drain, u64::MAX);
        } else if self.age_due() <= now {
            self.want(CloseReason::Age);
        } else if self.silence_due() <= now {
            self.want(CloseReason::Timeout);
        } else if self.ping_due() <= now && self.down.is_empty() && self.down.is_at_boundary() {
            self.down.hold(&PING);
            self.pinged = now;
        }
    }

    /// A Close is wanted soon.
    fn want(&mut self, reason: CloseReason) {
        let until = self.after(self.worker.proxy.config.stop.close_timeout);
        self.farewell = Farewell::Wanted(reason, until);
    }

    fn age_due(&self) -> u64 {
        self.config().max_age.map_or(u64::MAX, |age| self.began.saturating_add(millis(age)))
    }

    fn silence_due(&self) -> u64 {
        self.moved.saturating_add(millis(self.config().idle_timeout))
    }

    fn ping_due(&self) -> u64 {
        let last = self.moved.max(self.pinged);
        self.config().ping_interval.map_or(u64::MAX, |every| last.saturating_add(millis(every)))
    }

    fn set_alarm(&self) {
        self.alarm.clear();
        self.alarm.set_by(self.left);
        match self.farewell {
            Farewell::None => {
                self.alarm.set_by(self.silence_due());
                if self.down.frames.is_some() {
                    self.alarm.set_by(self.age_due());
                    self.alarm.set_by(self.ping_due());
                    if self.config().on_drain == OnDrain::Close {
                        self.alarm.set_by(self.telling.due());
                    }
                }
            }
            Farewell::Wanted(_, until) | Farewell::Said(_, until) | Farewell::Leaving(_, until) => {
                self.alarm.set_by(until)
            }
            Farewell::Lost => {}
        }
    }
}
