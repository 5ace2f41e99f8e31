//! A connection while it serves requests.
//!
//! | state | begins with | ends with |
//! | --- | --- | --- |
//! | fresh, idle | accept, the end of the TLS handshake, a response | an octet; parked after a moment of silence |
//! | reading | the first octet of a request | its whole head, or a refusal |
//! | active | the head | the last octet of the response |

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use super::h2::PREFACE;
use super::worker::Worker;
use crate::drain::{Guard, Rule, Stage, kept};
use crate::http1::head::{
    first_line_len, has_bare_lf, is_other_version, may_be_complete, parse_request, storage,
};
use crate::http1::{Framing, HeadError};
use crate::limits::{BUFFER, PARK_AFTER};
use crate::net::Alarm;
use crate::proxy::h1::{self, Client, Served, blank_lines};
use crate::proxy::request::{Arrival, Origin, plan};
use crate::proxy::{Ended, Failure, Proxy, Request, Tunnel};
use crate::telemetry::{CloseReason, ConnectionState};

/// How a session ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// Nothing is under way: the connection can be parked, or go to a successor, with
    /// octets of further requests.
    Park,
    /// The last response is out: FIN, and linger.
    Linger(CloseReason),
    /// Close at once.
    Drop(CloseReason),
    /// The client speaks HTTP/2: go on with that.
    Multiplex,
    /// It has become a tunnel: go on with that.
    Tunnel,
}

/// One connection being served.
pub(super) struct Session<'a> {
    pub(super) worker: &'a Worker,
    pub(super) alarm: &'a Rc<Alarm>,
    pub(super) client: &'a mut Client,
    pub(super) guard: &'a Guard<ConnectionState>,
    /// Its client speaks TLS.
    pub(super) secure: bool,
    /// When it was accepted, on the worker's clock.
    pub(super) accepted: u64,
    /// Since when it has been waiting for a request. Octets that are none do
    /// not change it.
    pub(super) since: u64,
    /// The request that is being read began with `HEAD`.
    pub(super) asks_head: bool,
    /// It was parked and octets woke it. The runtime has still to see them for
    /// itself, so the first look in vain is no reason to park it again.
    pub(super) woken: bool,
    /// It has served a request.
    pub(super) served: bool,
    /// What it has become.
    pub(super) tunnel: Option<Box<Tunnel>>,
}

enum Head {
    Whole(Request),
    Refused(Failure),
    Left(Ended),
}

impl Session<'_> {
    /// Serves requests until there is a reason to stop.
    pub(super) async fn run(&mut self) -> End {
        let proxy = &self.worker.proxy;
        if self.secure && !self.client.socket.is_tls() {
            // Boxed, so that those who have it behind them do not carry it.
            if let Some(end) = Box::pin(self.shake_hands()).await {
                return end;
            }
            if self.client.socket.alpn_h2() {
                return End::Multiplex;
            }
        }
        loop {
            if self.leaves() {
                return End::Park;
            }
            if let Some(end) = self.wait().await {
                return end;
            }
            let fresh = self.guard.kind() == ConnectionState::H1Fresh;
            self.guard.shift(ConnectionState::H1Reading);
            let began = proxy.clock.refresh();
            let arrival = Arrival { began, wall: SystemTime::now() };
            self.alarm.set(proxy.config.timeouts.head);
            if fresh && self.speaks_h2().await {
                return End::Multiplex;
            }
            let ended = match self.read_head(arrival).await {
                Head::Left(ended) => ended,
                Head::Refused(failure) => {
                    let how = (began, self.asks_head);
                    Box::pin(h1::refuse(proxy, self.alarm, self.client, &failure, how)).await
                }
                Head::Whole(request) => {
                    self.guard.shift(ConnectionState::H1Active);
                    // Boxed, so that a connection that only waits does not carry it.
                    match Box::pin(h1::serve(proxy, self.alarm, self.client, request)).await {
                        Served::Ended(ended) => ended,
                        Served::Tunnel(tunnel) => {
                            self.tunnel = Some(tunnel);
                            return End::Tunnel;
                        }
                    }
                }
            };
            match ended {
                Ended::Keep => {
                    self.guard.shift(ConnectionState::H1Idle);
                    self.served = true;
                    proxy.clock.refresh();
                    self.since = proxy.clock.now();
                }
                Ended::Linger(reason) => return End::Linger(reason),
                Ended::Drop(reason) => return End::Drop(reason),
            }
        }
    }

    /// Waits for the first octet of a request; says how the session ends if none comes.
    ///
    /// Has no buffer while it waits: octets are read into the worker's scratch
    /// and get a buffer when there are some.
    async fn wait(&mut self) -> Option<End> {
        self.skip_blank_lines();
        if !self.client.buffer.is_empty() {
            return None;
        }
        if self.client.ended {
            return Some(End::Drop(CloseReason::Client));
        }
        let spare = &self.worker.proxy.spare;
        spare.give(std::mem::take(&mut self.client.buffer));
        self.alarm.set(PARK_AFTER);
        let woken = std::mem::take(&mut self.woken);
        poll_fn(|cx| {
            self.alarm.attach(cx);
            loop {
                if self.leaves() {
                    return Poll::Ready(Some(End::Park));
                }
                let mut scratch = self.worker.scratch.borrow_mut();
                let room = &mut scratch[..BUFFER - 1];
                match self.client.socket.poll_read(cx, room) {
                    Poll::Ready(Ok(0)) => {
                        if self.secure {
                            // Some wait for our close_notify after theirs; nobody else does.
                            let _unheard = self.client.socket.poll_end(cx);
                        }
                        return Poll::Ready(Some(End::Drop(CloseReason::Client)));
                    }
                    Poll::Ready(Ok(n)) => {
                        self.begin_buffer();
                        self.client.buffer.append(&room[..n]);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(broken(&error))),
                    Poll::Pending if self.client.socket.is_inside_record() => {
                        // Octets of a request that nobody can read yet: it has begun.
                        self.begin_buffer();
                        return Poll::Ready(None);
                    }
                    // Octets that are no request give no time.
                    Poll::Pending
                        if woken && self.worker.may_park(self.alarm, woken) && self.is_over() =>
                    {
                        let draining = self.worker.proxy.stage() >= Stage::Draining;
                        let reason = if draining { CloseReason::Drain } else { CloseReason::Idle };
                        return Poll::Ready(Some(End::Linger(reason)));
                    }
                    Poll::Pending if self.worker.may_park(self.alarm, woken) => {
                        return Poll::Ready(Some(self.park(cx)));
                    }
                    Poll::Pending => return Poll::Pending,
                }
                drop(scratch);
                self.skip_blank_lines();
                if !self.client.buffer.is_empty() {
                    return Poll::Ready(None);
                }
                spare.give(std::mem::take(&mut self.client.buffer));
            }
        })
        .await
    }

    /// Whether it goes to a successor now, where nothing is under way.
    fn leaves(&self) -> bool {
        let Client { buffer, ended, .. } = &*self.client;
        self.worker.may_leave(self.secure, buffer.len()) && !(*ended && buffer.is_empty())
    }

    /// Whether it has been woken in vain until its time was over. A first look in
    /// vain is none: what the kernel has may be a request.
    fn is_over(&self) -> bool {
        let (worker, state) = (self.worker, self.guard.kind());
        worker.patience(state, self.accepted, self.since) <= worker.proxy.clock.now()
            && self.client.socket.unread() == 0
    }

    /// Nothing may be anywhere but in the kernel when it is parked.
    fn park(&mut self, cx: &mut Context<'_>) -> End {
        match self.client.socket.poll_flush(cx) {
            Poll::Ready(Ok(())) => End::Park,
            Poll::Ready(Err(_)) => End::Drop(CloseReason::Error),
            // All that can be left is what TLS had to say; the response is out.
            Poll::Pending => End::Drop(CloseReason::Timeout),
        }
    }

    /// A buffer for octets that have come, with what came before them.
    fn begin_buffer(&mut self) {
        self.client.buffer = self.worker.proxy.spare.small();
        if std::mem::take(&mut self.client.half_line) {
            self.client.buffer.append(b"\r");
        }
    }

    fn skip_blank_lines(&mut self) {
        let buffer = &mut self.client.buffer;
        buffer.consume(blank_lines(buffer.filled()));
        if buffer.filled() == b"\r" {
            buffer.consume(1);
            self.client.half_line = true;
        }
    }

    /// Whether the first octets in clear text begin an HTTP/2 connection by prior
    /// knowledge (RFC 9113 section 3.3). No octet is used up by looking. Over TLS
    /// that was settled before them.
    async fn speaks_h2(&mut self) -> bool {
        if self.client.socket.is_tls() {
            return false;
        }
        poll_fn(|cx| {
            self.alarm.attach(cx);
            loop {
                let octets = self.client.buffer.filled();
                if !begins_preface(octets) {
                    return Poll::Ready(false);
                }
                // No HTTP/1 request begins like this: the rest is awaited there.
                if octets.len() >= SURE {
                    return Poll::Ready(true);
                }
                let over = self.alarm.is_due() || self.worker.proxy.stage() == Stage::Cut;
                match self.client.poll_fill(cx) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Pending if !over => return Poll::Pending,
                    _ => return Poll::Ready(false),
                }
            }
        })
        .await
    }

    /// Reads a request head, until the alarm is due: `timeouts.head` after its
    /// first octet.
    async fn read_head(&mut self, arrival: Arrival) -> Head {
        self.client.aged = self.is_aged();
        let mut seen = 0;
        poll_fn(|cx| {
            self.alarm.attach(cx);
            loop {
                let octets = self.client.buffer.filled();
                self.asks_head = octets.starts_with(b"HEAD ");
                if (seen == 0 || may_be_complete(octets, seen))
                    && let Some(head) = self.take_head(arrival)
                {
                    return Poll::Ready(head);
                }
                seen = self.client.buffer.len();
                if let Some(failure) = self.make_room() {
                    return Poll::Ready(Head::Refused(failure));
                }
                if self.worker.proxy.stage() == Stage::Cut {
                    return Poll::Ready(Head::Refused(Failure::Cut));
                }
                if !kept(Rule::ServeReading) && self.worker.proxy.stage() == Stage::Draining {
                    return Poll::Ready(Head::Left(Ended::Drop(CloseReason::Client)));
                }
                match self.client.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Head::Left(Ended::Drop(CloseReason::Client)));
                    }
                    // An alert must not be lost by a reset.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                        return Poll::Ready(Head::Left(Ended::Linger(CloseReason::Tls)));
                    }
                    Poll::Ready(Err(_)) => {
                        return Poll::Ready(Head::Left(Ended::Drop(CloseReason::Client)));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending if self.alarm.is_due() => {
                        return Poll::Ready(Head::Refused(Failure::HeadTimeout));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// The head at the front of the buffer, if it is all there.
    fn take_head(&mut self, arrival: Arrival) -> Option<Head> {
        let proxy = &self.worker.proxy;
        let client = &mut *self.client;
        let mut fields = storage();
        let head = match parse_request(client.buffer.filled(), &mut fields) {
            Ok(None) => return None,
            Ok(Some(head)) => head,
            Err(error) => {
                return Some(Head::Refused(refusal(error, client.buffer.filled())));
            }
        };
        if has_bare_lf(&client.buffer.filled()[..head.len]) {
            return Some(Head::Refused(Failure::BadRequest("line ends with LF alone")));
        }
        if let Some(failure) = beyond(proxy, head.len, head.fields.len()) {
            return Some(Head::Refused(failure));
        }
        let scheme = if self.secure { "https" } else { "http" };
        let Client { port, trusted, .. } = *client;
        let origin = Origin { client: &client.address, port, scheme, trusted };
        let length = head.len;
        let fallback = &self.worker.fallback_host;
        let planned = plan(&head, &proxy.rules(origin), fallback, arrival, proxy.spare.head());
        client.buffer.consume(length);
        let most = proxy.config.limits.body_size.unwrap_or(u64::MAX);
        Some(match planned {
            Ok(Request { framing: Framing::Length(length), .. }) if length > most => {
                Head::Refused(Failure::BodyTooLarge)
            }
            Ok(request) => Head::Whole(request),
            Err(failure) => Head::Refused(failure),
        })
    }

    /// Lets the buffer grow up to the limit of a head, or says what is too long.
    fn make_room(&mut self) -> Option<Failure> {
        let buffer = &mut self.client.buffer;
        let limit = self.worker.proxy.config.limits.head_size;
        if buffer.len() >= limit {
            let line = first_line_len(buffer.filled());
            return Some(if line >= buffer.len() {
                Failure::TargetTooLong
            } else {
                Failure::HeadTooLarge
            });
        }
        if buffer.is_full() {
            buffer.grow((buffer.capacity() * 2).min(limit));
        }
        None
    }

    fn is_aged(&self) -> bool {
        let proxy = &self.worker.proxy;
        proxy.config.limits.connection_age.is_some_and(|age| {
            u128::from(proxy.clock.now().saturating_sub(self.accepted)) >= age.as_millis()
        })
    }
}

/// Octets after which a beginning of the preface is nothing else: `PRI * HTTP/2`.
const SURE: usize = 12;

fn begins_preface(octets: &[u8]) -> bool {
    let n = octets.len().min(PREFACE.len());
    octets[..n] == PREFACE[..n]
}

/// The end of a connection that cannot be read.
fn broken(error: &io::Error) -> End {
    match error.kind() {
        // TLS was broken, and an alert says so: it must not be lost by a reset.
        io::ErrorKind::InvalidData => End::Linger(CloseReason::Tls),
        _ => End::Drop(CloseReason::Error),
    }
}

fn refusal(error: HeadError, octets: &[u8]) -> Failure {
    match error {
        HeadError::Malformed(what) => Failure::BadRequest(what),
        HeadError::TooManyFields => Failure::HeadTooLarge,
        HeadError::Version if is_other_version(octets) => Failure::Version,
        HeadError::Version => Failure::BadRequest("malformed request line"),
    }
}

/// Whether a head that is well formed is more than allowed.
fn beyond(proxy: &Proxy, length: usize, fields: usize) -> Option<Failure> {
    let limits = &proxy.config.limits;
    (length > limits.head_size || fields > limits.head_count).then_some(Failure::HeadTooLarge)
}
