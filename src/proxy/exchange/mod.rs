//! One request and its response, driven by the one task of its connection.
//!
//! Both directions are polled side by side: the request goes up while the
//! response comes down, and while neither moves the client is watched. Each
//! side waits for the other to take what it has before it reads on: that is all
//! the backpressure there is, and what bounds the memory of a slow reader.
//!
//! | what it waits for | bounded by |
//! | --- | --- |
//! | a connection | `upstream.connect_timeout` |
//! | the client's body | `timeouts.body`, `timeouts.body_rate` |
//! | the app server taking the body | `upstream.between_bytes_timeout` |
//! | the response's first octet | `upstream.first_byte_timeout` |
//! | more of the response | `upstream.between_bytes_timeout` |
//! | the client taking the response | `timeouts.send` |
//! | all of it | the hard deadline of a drain |

mod retry;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use self::retry::Again;
use crate::drain::{Deadline, Stage};
use crate::http1::{Buffer, Framing};
use crate::limits::CUT_SEND;
use crate::net::{Alarm, ConnectError, Look};
use crate::proxy::course::Course;
use crate::proxy::downstream::{Answer, Downstream, Ended, Refusal, Rules, State, Taken, reason};
use crate::proxy::patience::{Patience, Wait};
use crate::proxy::record::{Summary, record};
use crate::proxy::trailer::Policy;
use crate::proxy::{Failure, Proxy, Request, Tunnel};
use crate::upstream::{Connection, EndpointId};

/// One request on its way.
pub(super) struct Exchange<'p, D> {
    proxy: &'p Proxy,
    side: D,
    request: Request,
    endpoint: EndpointId,
    upstream: Option<Connection>,
    patience: Patience<'p>,
    attempts: u8,
    /// Endpoints that gave no connection.
    refused: usize,
    fresh_only: bool,
    /// All of the request had been sent when its answer came. Else the app server
    /// may see its end elsewhere than we do.
    asked_whole: bool,
    /// The app server has agreed to another protocol.
    switched: bool,
    /// The client asked for leave to send its body and got the answer instead:
    /// nothing of the body is sent (RFC 9110 section 10.1.1).
    withheld: bool,
    /// An octet of the request has been handed to some app server.
    handed: bool,
    /// What was sent of the request to an app server that refused it, on its way to
    /// another; only then goes the rest.
    again: Option<Box<Again>>,
    first_byte: Option<Instant>,
    failure: Option<Failure>,
    /// What a drain asks of it.
    course: Course<'p>,
}

impl<'p, D: Downstream> Exchange<'p, D> {
    /// An exchange for a request whose head has been read.
    pub(super) fn new(proxy: &'p Proxy, alarm: &Rc<Alarm>, side: D, request: Request) -> Self {
        proxy.counters.in_flight_add(request.protocol.family());
        Exchange {
            proxy,
            side,
            endpoint: proxy.pool.pick(),
            upstream: None,
            patience: Patience::new(alarm, proxy, &request),
            course: Course::new(proxy, &request),
            request,
            attempts: 0,
            refused: 0,
            fresh_only: false,
            asked_whole: false,
            switched: false,
            withheld: false,
            handed: false,
            again: None,
            first_byte: None,
            failure: None,
        }
    }

    /// Runs it to its end. Never fails: whatever goes wrong becomes an answer,
    /// or a response that ends uncleanly. [`Exchange::finish`] follows.
    pub(super) async fn run(&mut self) -> Ended {
        if self.request.ends_here {
            let ends = Failure::LastHop(self.request.method() == b"TRACE");
            let ended = self.give_up(&ends).await;
            self.failure = Some(ends);
            return ended;
        }
        loop {
            match self.attempt().await {
                Ok(ended) => return ended,
                Err(error) if self.may_try_again(&error) => self.start_over(&error),
                Err(error) => {
                    let ended = self.give_up(&error).await;
                    self.failure = Some(error);
                    return ended;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Ended, Failure> {
        self.attempts = self.attempts.saturating_add(1);
        if D::SHOWS_CANCEL {
            // What was given up before it was begun costs the app nothing.
            poll_fn(|cx| Poll::Ready(self.watch_client(cx))).await?;
        }
        poll_fn(|cx| self.poll_begin(cx)).await?;
        let pooled = if self.fresh_only { None } else { self.proxy.pool.checkout(self.endpoint) };
        self.upstream = match pooled {
            Some(connection) => Some(connection),
            None => Some(self.connect_quietly().await?),
        };
        poll_fn(|cx| self.poll_head(cx)).await?;
        if self.switched {
            poll_fn(|cx| self.poll_switch(cx)).await?;
            return Ok(Ended::Keep);
        }
        poll_fn(|cx| self.poll_body(cx)).await?;
        let goes_on = !self.withheld && !self.side.inbound().was_told;
        if goes_on && !self.side.upload().is_over() {
            poll_fn(|cx| self.poll_rest(cx)).await?;
        }
        Ok(self.complete())
    }

    /// Waits until there is something to send.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let rules = rules(self.proxy, &self.request, true);
        match self.side.poll_begin(cx, &rules) {
            Poll::Ready(begun) => Poll::Ready(begun),
            Poll::Pending => {
                self.poll_told(cx)?;
                self.watch_client(cx)?;
                self.patience.pend(Wait::ClientBody)
            }
        }
    }

    /// A new connection on which nothing was said before anything was asked. One
    /// that has ended by then, or speaks, is as good as none: nothing was sent.
    async fn connect_quietly(&mut self) -> Result<Connection, Failure> {
        let mut connection = self.connect().await?;
        match connection.look() {
            Look::Quiet => Ok(connection),
            Look::Speaks => Err(Failure::Connect(ConnectError::Useless("spoke unasked"))),
            Look::Ended => Err(Failure::Connect(ConnectError::Useless("closed at once"))),
        }
    }

    /// A new connection; boxed, because most requests find one in the pool and
    /// should not carry its future.
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let most = self.patience.within(self.proxy.config.upstream.connect_timeout);
        let deadline = Deadline::after(Instant::now(), most);
        let mut connecting = pin!(Box::pin(self.proxy.pool.connect(self.endpoint, deadline)));
        self.patience.renew();
        poll_fn(|cx| {
            self.poll_told(cx)?;
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                let in_time = !self.patience.is_over();
                return Poll::Ready(connected.map_err(|error| match error {
                    ConnectError::TimedOut | ConnectError::Exhausted(_) if !in_time => {
                        Failure::CallTimeout
                    }
                    error => Failure::Connect(error),
                }));
            }
            if D::SHOWS_CANCEL || self.request.framing == Framing::Empty {
                self.watch_client(cx)?;
                if self.side.has_half_closed(&self.request) {
                    return self.patience.pend(Wait::HalfClosed);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the hard deadline has come, or what the request's route asks for.
    #[inline]
    fn poll_told(&mut self, cx: &Context<'_>) -> Result<(), Failure> {
        self.patience.alarm.attach(cx);
        if self.proxy.stage() == Stage::Cut {
            return Err(Failure::Cut);
        }
        let due = self.course.due();
        if due <= self.proxy.clock.now() {
            return self.meet_course();
        }
        self.patience.watch(due);
        Ok(())
    }

    /// What the course asks for is due: the response ends as soon as it may, or at once.
    #[cold]
    fn meet_course(&mut self) -> Result<(), Failure> {
        if !self.course.meet() {
            return Err(Failure::Cancelled);
        }
        self.side.inbound().ask_for_end();
        self.patience.watch(u64::MAX);
        Ok(())
    }

    /// Sends the request and reads until the final response head is ready to go.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        loop {
            if self.side.has_ready()
                && let Poll::Ready(result) = self.poll_down(cx)
            {
                result?;
            }
            self.poll_upload(cx)?;
            let Some(upstream) = &mut self.upstream else { return Poll::Pending };
            match upstream.socket.poll_read(cx, upstream.buffer.spare()) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    upstream.buffer.fill(n);
                    self.patience.moved += n as u64;
                    if self.take_heads()? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Err(self.died())),
                Poll::Pending => {
                    let wait = self.waits_for(cx)?;
                    return self.patience.pend(wait);
                }
            }
        }
    }

    /// What there is to wait for while the final head has not come.
    fn waits_for(&mut self, cx: &mut Context<'_>) -> Result<Wait, Failure> {
        if D::SHOWS_CANCEL {
            self.watch_client(cx)?;
        }
        if self.again.is_some() {
            return Ok(Wait::UpstreamTakes);
        }
        Ok(match self.side.upload().state {
            // A client that asked for leave first waits for the app, not the app for it.
            State::Client if self.awaits_continue() => Wait::FirstByte,
            State::Client => Wait::ClientBody,
            State::Upstream => Wait::UpstreamTakes,
            State::Done | State::Broken => {
                self.watch_client(cx)?;
                if self.side.has_half_closed(&self.request) {
                    Wait::HalfClosed
                } else if self.course.is_endless_call(&self.request) {
                    Wait::Endless
                } else {
                    Wait::FirstByte
                }
            }
        })
    }

    /// Whether the client waits for a 100 before it sends its body.
    fn awaits_continue(&self) -> bool {
        self.request.expects_continue
            && self.side.upload().received == 0
            && self.first_byte.is_none()
    }

    /// Takes the response heads that are buffered; `true` with the final one.
    fn take_heads(&mut self) -> Result<bool, Failure> {
        self.asked_whole = self.side.upload().is_done() && self.again.is_none();
        if self.first_byte.is_none() {
            self.withheld = self.awaits_continue();
        }
        let Some(upstream) = &mut self.upstream else { return Ok(false) };
        self.first_byte.get_or_insert_with(Instant::now);
        while !upstream.buffer.is_empty() {
            match self.side.take_head(upstream, self.proxy, &self.request)? {
                Taken::Final => {
                    if let Some(flow) = self.course.begin(&self.request, self.side.inbound()) {
                        self.side.follow(flow);
                    }
                    return Ok(true);
                }
                Taken::Switch => {
                    self.switched = true;
                    return Ok(true);
                }
                Taken::Interim => self.withheld = false,
                Taken::Part => return Ok(false),
            }
        }
        Ok(false)
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.again.is_some() && !self.poll_again(cx) {
            return Ok(());
        }
        // While the app answers, it may be its turn to speak: then each side waits
        // for the other, and what bounds that is that neither says anything.
        let reply = self.side.reply();
        let converses = reply.status.is_some() && !reply.whole;
        let hurry = !self.awaits_continue() && !converses && self.request.grpc.is_none();
        let Some(upstream) = &mut self.upstream else {
            return Ok(());
        };
        let before = *self.side.upload();
        let rules = rules(self.proxy, &self.request, hurry);
        let result = self.side.poll_upload(cx, &self.request.head, upstream, &rules);
        let after = self.side.upload();
        self.handed |= after.written > 0;
        self.patience.moved += after.written - before.written + after.received - before.received;
        result
    }

    /// Writes what is ready for the client.
    #[inline]
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(Ok(())) };
        self.side.poll_flush(cx, &mut upstream.buffer, &mut self.patience.moved)
    }

    /// Streams the response body, while what is left of the request goes up.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        loop {
            if !self.side.upload().is_done() && !self.withheld {
                self.poll_upload(cx)?;
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Pending };
            let more = self.side.stage(&mut upstream.buffer)?;
            match self.poll_down(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.patience.pend(Wait::ClientTakes),
            }
            if self.side.reply().whole {
                return Poll::Ready(Ok(()));
            }
            if more {
                continue;
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Pending };
            let (spare, moved) = (&self.proxy.spare, &mut self.patience.moved);
            match self.side.poll_more(cx, upstream, spare, moved) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if D::SHOWS_CANCEL || self.side.upload().is_done() {
                        self.watch_client(cx)?;
                    }
                    if self.ends_here() {
                        continue;
                    }
                    let wait = match self.side.upload().state {
                        // Who has ended his side reads no stream that does not end.
                        _ if self.course.is_endless() && self.side.has_ended() => Wait::HalfClosed,
                        _ if self.course.is_endless() => Wait::Endless,
                        State::Client => Wait::EitherSide,
                        _ => Wait::BetweenBytes,
                    };
                    return self.patience.pend(wait);
                }
            }
        }
    }

    /// Ends a body that is asked to end, if it may end here and the kernel has no more
    /// of it.
    fn ends_here(&mut self) -> bool {
        let Some(upstream) = &self.upstream else { return false };
        let inbound = self.side.inbound();
        let ends = inbound.is_asked() && upstream.socket.unread() == 0 && inbound.rest();
        if ends {
            self.side.end_body();
        }
        ends
    }

    /// Brings the answer to an `Upgrade` out.
    fn poll_switch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        match self.poll_down(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.patience.pend(Wait::ClientTakes),
        }
    }

    /// The response is over and the request is not: an app that answers early
    /// may still read, so what the client sends goes on to it. Ends when all is
    /// sent, or when the app reads no more.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // The client has its whole answer: there is nothing to cut.
        if self.poll_told(cx).is_err() {
            return Poll::Ready(Ok(()));
        }
        if self.poll_upload(cx).is_err() || self.side.upload().is_over() {
            return Poll::Ready(Ok(()));
        }
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(Ok(())) };
        if upstream.socket.poll_refuses_rest(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let wait = match self.side.upload().state {
            // Who calls and is answered says no more.
            State::Client if self.request.grpc.is_none() => Wait::ClientBody,
            _ => Wait::Leftover,
        };
        match self.patience.pend::<()>(wait) {
            Poll::Ready(_) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks whether a client that only waits is still there.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.side.poll_alive(cx) { Ok(()) } else { Err(Failure::ClientGone) }
    }

    /// Answers a failure, if there is still somebody and something to answer.
    async fn give_up(&mut self, failure: &Failure) -> Ended {
        self.drop_upstream();
        self.handed &= !matches!(failure, Failure::Refused);
        let (handed, request) = (self.handed, &self.request);
        match self.side.refuse(&Refusal { failure, handed, request }) {
            Answer::Silent(ended) => ended,
            Answer::Ready(ended) => {
                let alarm = &*self.patience.alarm;
                let cut = failure.is_by_drain();
                alarm.set(if cut { CUT_SEND } else { self.proxy.config.timeouts.send });
                let sent = send(self.proxy, alarm, &mut self.side).await;
                if sent { ended } else { Ended::Drop(reason(failure)) }
            }
        }
    }

    fn drop_upstream(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.proxy.pool.discard(upstream);
        }
    }

    /// The response has gone out whole.
    fn complete(&mut self) -> Ended {
        if let Some(upstream) = self.upstream.take() {
            let clean = upstream.buffer.is_empty() && self.asked_whole;
            if clean && self.side.reply().upstream_keeps {
                self.proxy.pool.checkin(upstream);
            } else {
                self.proxy.pool.discard(upstream);
            }
        }
        self.side.complete()
    }

    /// Whether the app server has agreed to another protocol, and the client has been told.
    pub(super) fn has_switched(&self) -> bool {
        self.switched && self.failure.is_none()
    }

    /// What the connection has become, if it [has switched](Self::has_switched), with the
    /// client's side of it.
    pub(super) fn into_tunnel(mut self) -> Option<(Tunnel, D)> {
        let upstream = self.upstream.take()?.into_socket()?;
        self.proxy.counters.in_flight_sub(self.request.protocol.family());
        self.side.recycle(&self.proxy.spare);
        let name = self.proxy.pool.name(self.endpoint);
        let tunnel = Tunnel::new(upstream, name, self.request, self.first_byte, self.attempts);
        Some((tunnel, self.side))
    }

    /// Whether the client gave it up.
    pub(super) fn was_cancelled(&self) -> bool {
        matches!(self.failure, Some(Failure::ClientGone))
    }

    /// Whether a drain has ended its response, and it could be told.
    pub(super) fn was_told(&mut self) -> bool {
        self.failure.is_none() && self.side.inbound().was_told
    }

    /// Counts and writes down what became of it when it has run. `lost` is what
    /// happened to an answer that was ready, whole, and then did not get out.
    pub(super) fn finish(&mut self, lost: Option<Failure>) {
        self.proxy.counters.in_flight_sub(self.request.protocol.family());
        if self.failure.is_none() {
            self.failure = lost;
        }
        let was_told = self.side.inbound().was_told;
        if self.failure.is_none() && was_told && self.course.is_short() {
            self.failure = Some(Failure::Cut);
        }
        let reply = self.side.reply();
        let status = match &self.failure {
            Some(failure) => reply.status.unwrap_or_else(|| failure.status(self.handed)),
            None => reply.status.unwrap_or(0),
        };
        let summary = Summary {
            status,
            bytes_in: self.side.upload().received,
            bytes_out: reply.body_octets,
            first_byte: self.first_byte,
            upstream: if self.attempts > 0 { self.proxy.pool.name(self.endpoint) } else { "" },
            retries: self.attempts.saturating_sub(1),
            handed: self.handed,
            failure: self.failure.as_ref(),
            told: self.failure.is_none() && was_told,
        };
        record(self.proxy, &self.side.caller(), &self.request, &summary);
        self.proxy.spare.give_head(std::mem::take(&mut self.request.head));
        self.side.recycle(&self.proxy.spare);
    }
}

/// What an upload goes by; `hurry` says that the client is expected to send now.
fn rules<'p>(proxy: &'p Proxy, request: &Request, hurry: bool) -> Rules<'p> {
    let config = &proxy.config;
    Rules {
        hurry,
        most: config.limits.body_size.unwrap_or(u64::MAX),
        timeouts: &config.timeouts,
        trailers: Policy {
            underscores: config.forwarding.underscores,
            hidden: request.hides_fields,
        },
        spare: &proxy.spare,
    }
}

/// Sends a response of our own until it is out, the client is gone, or the alarm
/// rings: at the hard deadline soon.
pub(super) async fn send(proxy: &Proxy, alarm: &Alarm, side: &mut impl Downstream) -> bool {
    let mut nothing = Buffer::default();
    let mut cut = false;
    poll_fn(|cx| {
        alarm.attach(cx);
        if !cut && proxy.stage() == Stage::Cut {
            cut = true;
            alarm.set(CUT_SEND);
        }
        match side.poll_flush(cx, &mut nothing, &mut 0) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending if alarm.is_due() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
