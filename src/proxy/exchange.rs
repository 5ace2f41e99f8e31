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

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::client::Client;
use super::download::{Asked, Download, Taken};
use super::failure::Died;
use super::patience::{Patience, Wait};
use super::record::{Summary, record};
use super::response::Persistence;
use super::upload::{Rules, State, Upload};
use super::{Failure, Proxy, Request, respond};
use crate::config::Retry;
use crate::drain::{Deadline, Rule, Stage, kept};
use crate::http1::{Buffer, Framing};
use crate::limits::CUT_SEND;
use crate::net::{Alarm, ConnectError};
use crate::telemetry::CloseReason;
use crate::upstream::{Connection, EndpointId};

pub use super::client::Ended;

/// One request on its way.
pub struct Exchange<'a> {
    proxy: &'a Proxy,
    client: &'a mut Client,
    request: Request,
    endpoint: EndpointId,
    upstream: Option<Connection>,
    upload: Upload,
    download: Download,
    patience: Patience<'a>,
    attempts: u8,
    /// Endpoints that gave no connection.
    refused: usize,
    fresh_only: bool,
    /// An octet of the request has been handed to some app server.
    handed: bool,
    first_byte: Option<Instant>,
    /// The connection ends with this response.
    close: Option<CloseReason>,
}

impl<'a> Exchange<'a> {
    /// An exchange for a request whose head has been read.
    pub fn new(
        proxy: &'a Proxy,
        alarm: &'a Alarm,
        client: &'a mut Client,
        request: Request,
    ) -> Self {
        proxy.counters.in_flight_add();
        Exchange {
            proxy,
            client,
            endpoint: proxy.pool.pick(),
            upstream: None,
            upload: Upload::new(request.framing),
            request,
            download: Download::new(proxy.spare.head()),
            patience: Patience::new(alarm, &proxy.config),
            attempts: 0,
            refused: 0,
            fresh_only: false,
            handed: false,
            first_byte: None,
            close: None,
        }
    }

    /// Runs it to its end. Never fails: whatever goes wrong becomes an answer,
    /// or a connection that ends uncleanly.
    pub async fn run(mut self) -> Ended {
        let mut failure = None;
        let ended = loop {
            match self.attempt().await {
                Ok(ended) => break ended,
                Err(error) if self.may_try_again(&error) => self.start_over(),
                Err(error) => {
                    let ended = self.give_up(&error).await;
                    failure = Some(error);
                    break ended;
                }
            }
        };
        self.finish(failure.as_ref());
        self.proxy.spare.give_head(self.request.head);
        self.proxy.spare.give_head(self.download.head);
        ended
    }

    async fn attempt(&mut self) -> Result<Ended, Failure> {
        self.attempts = self.attempts.saturating_add(1);
        let pooled = if self.fresh_only { None } else { self.proxy.pool.checkout(self.endpoint) };
        self.upstream = match pooled {
            Some(connection) => Some(connection),
            None => Some(self.connect().await?),
        };
        poll_fn(|cx| self.poll_head(cx)).await?;
        poll_fn(|cx| self.poll_body(cx)).await?;
        if !self.upload.is_over() {
            poll_fn(|cx| self.poll_rest(cx)).await?;
        }
        Ok(self.complete())
    }

    /// A new connection; boxed, because most requests find one in the pool and
    /// should not carry its future.
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let deadline = Deadline::after(Instant::now(), self.proxy.config.upstream.connect_timeout);
        let mut connecting = pin!(Box::pin(self.proxy.pool.connect(self.endpoint, deadline)));
        self.patience.renew();
        poll_fn(|cx| {
            self.poll_told(cx)?;
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(Failure::Connect));
            }
            if self.request.framing == Framing::Empty {
                self.watch_client(cx)?;
                if self.has_half_closed() {
                    return self.patience.pend(Wait::HalfClosed);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the hard deadline has come.
    #[inline]
    fn poll_told(&self, cx: &Context<'_>) -> Result<(), Failure> {
        self.patience.alarm.attach(cx);
        if self.proxy.stage() == Stage::Cut { Err(Failure::Cut) } else { Ok(()) }
    }

    /// Sends the request and reads until the final response head is ready to go.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        loop {
            if !self.download.head.is_empty()
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
        Ok(match self.upload.state {
            // A client that asked for leave first waits for the app, not the app for it.
            State::Client if self.awaits_continue() => Wait::FirstByte,
            State::Client => Wait::ClientBody,
            State::Upstream => Wait::UpstreamTakes,
            State::Done | State::Broken => {
                self.watch_client(cx)?;
                if self.has_half_closed() { Wait::HalfClosed } else { Wait::FirstByte }
            }
        })
    }

    /// Whether the client waits for a 100 before it sends its body.
    fn awaits_continue(&self) -> bool {
        self.request.expects_continue && self.upload.received == 0 && self.first_byte.is_none()
    }

    /// Takes the response heads that are buffered; `true` with the final one.
    fn take_heads(&mut self) -> Result<bool, Failure> {
        let Some(upstream) = &mut self.upstream else { return Ok(false) };
        self.first_byte.get_or_insert_with(Instant::now);
        let asked = Asked { is_head: self.request.is_head, minor: self.request.minor };
        while !upstream.buffer.is_empty() {
            let close = &mut self.close;
            let persistence = |until_close| {
                *close = closes(self.proxy, self.client, &self.request, &self.upload, until_close);
                persistence(*close, asked.minor)
            };
            let spare = &self.proxy.spare;
            match self.download.take_head(upstream, spare, asked, persistence)? {
                Taken::Final => {
                    if self.download.until_close {
                        // Until it is whole, whatever ends the connection, a
                        // crash too, must not look like its end.
                        self.client.socket.reset_on_close(true);
                    }
                    return Ok(true);
                }
                Taken::Interim => {}
                Taken::Part => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The upstream connection ended before the final head.
    fn died(&self) -> Failure {
        Failure::Died(Died {
            written: self.upload.written > 0,
            reused: self.upstream.as_ref().is_some_and(|upstream| upstream.reused),
            answered: self.first_byte.is_some(),
        })
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let hurry = !self.awaits_continue();
        let Some(upstream) = &mut self.upstream else {
            return Ok(());
        };
        let before = self.upload.written + self.upload.received;
        let most = self.proxy.config.limits.body_size.unwrap_or(u64::MAX);
        let rules =
            Rules { hurry, most, timeouts: &self.proxy.config.timeouts, spare: &self.proxy.spare };
        let result = self.upload.poll(cx, &self.request.head, self.client, upstream, &rules);
        self.handed |= self.upload.written > 0;
        self.patience.moved += self.upload.written + self.upload.received - before;
        result
    }

    /// Writes what is ready for the client.
    #[inline]
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(Ok(())) };
        let socket = &mut self.client.socket;
        self.download.poll_flush(cx, socket, &mut upstream.buffer, &mut self.patience.moved)
    }

    /// Streams the response body, while what is left of the request goes up.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        loop {
            if !self.upload.is_done() {
                self.poll_upload(cx)?;
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Pending };
            let more = self.download.stage(&mut upstream.buffer)?;
            match self.poll_down(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.patience.pend(Wait::ClientTakes),
            }
            if self.download.is_done() {
                return Poll::Ready(Ok(()));
            }
            if more {
                continue;
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Pending };
            let (spare, moved) = (&self.proxy.spare, &mut self.patience.moved);
            match self.download.poll_more(cx, upstream, spare, moved) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if self.upload.is_done() {
                        self.watch_client(cx)?;
                    }
                    let waits = self.upload.state == State::Client;
                    let wait = if waits { Wait::EitherSide } else { Wait::BetweenBytes };
                    return self.patience.pend(wait);
                }
            }
        }
    }

    /// The response is over and the request is not: an app that answers early
    /// may still read, so what the client sends goes on to it. Ends when all is
    /// sent, or when the app reads no more.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        if self.poll_upload(cx).is_err() || self.upload.is_over() {
            return Poll::Ready(Ok(()));
        }
        let Some(upstream) = &self.upstream else { return Poll::Ready(Ok(())) };
        if upstream.socket.poll_readable(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let wait = match self.upload.state {
            State::Client => Wait::ClientBody,
            _ => Wait::Leftover,
        };
        match self.patience.pend::<()>(wait) {
            Poll::Ready(_) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks whether a client that only waits is still there.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.client.poll_alive(cx) { Ok(()) } else { Err(Failure::ClientGone) }
    }

    /// Whether the client has sent FIN without having said that it would. That
    /// is more often a client that has gone than one that has half closed, and
    /// TCP does not tell them apart: it gets a moment, not the whole timeout.
    fn has_half_closed(&self) -> bool {
        self.client.ended && !self.request.said_close && self.client.buffer.is_empty()
    }

    /// Whether the request may be sent again after this.
    fn may_try_again(&self, failure: &Failure) -> bool {
        match failure {
            // Nothing was sent: another endpoint may be up.
            Failure::Connect(ConnectError::Exhausted(_)) => false,
            Failure::Connect(_) => self.refused + 1 < self.proxy.pool.len(),
            Failure::Died(died) if died.answered => false,
            Failure::Died(died) if !died.written => !self.fresh_only,
            Failure::Died(died) => {
                died.reused
                    && !self.fresh_only
                    && self.request.is_repeatable
                    && self.proxy.config.upstream.retry == Retry::Idempotent
            }
            _ => false,
        }
    }

    fn start_over(&mut self) {
        if self.upstream.is_some() {
            // The next attempt must not meet another connection that died meanwhile.
            self.fresh_only = true;
        } else {
            self.refused += 1;
            self.endpoint = self.proxy.pool.after(self.endpoint);
        }
        self.drop_upstream();
        self.upload.restart();
        self.patience.renew();
    }

    /// Answers a failure, if there is still somebody and something to answer.
    async fn give_up(&mut self, failure: &Failure) -> Ended {
        self.drop_upstream();
        let reason = reason(failure);
        let silent = matches!(failure, Failure::ClientGone | Failure::SendTimeout);
        if self.download.is_under_way() {
            return Ended::Drop(reason);
        }
        self.download.take_back();
        self.client.socket.reset_on_close(false);
        if silent {
            return Ended::Drop(reason);
        }
        // An app server that is down is no reason to lose the client's connection.
        let keep = failure.is_ours()
            && self.request.persistent
            && self.request.minor == 1
            && self.upload.skip(&mut self.client.buffer)
            && self.may_go_on();
        let (handed, is_head) = (self.handed, self.request.is_head);
        self.download.answer(|head| respond::write(failure, handed, is_head, !keep, head));
        let alarm = self.patience.alarm;
        let cut = matches!(failure, Failure::Cut);
        alarm.set(if cut { CUT_SEND } else { self.proxy.config.timeouts.send });
        let sent = send(alarm, self.client, &mut self.download).await;
        match sent {
            true if keep => Ended::Keep,
            true => Ended::Linger(reason),
            false => Ended::Drop(reason),
        }
    }

    /// Whether the connection may serve another request, as far as the drain goes.
    fn may_go_on(&self) -> bool {
        let stage = self.proxy.stage();
        let retired = stage >= Stage::LameDuck || self.client.aged;
        stage < Stage::Cut && (!retired || self.client.has_more())
    }

    fn drop_upstream(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.proxy.pool.discard(upstream);
        }
    }

    /// The response has gone out whole.
    fn complete(&mut self) -> Ended {
        if self.download.until_close {
            self.client.socket.reset_on_close(false);
        }
        if let Some(upstream) = self.upstream.take() {
            let clean = upstream.buffer.is_empty() && self.upload.is_done();
            if clean && self.download.upstream_keeps {
                self.proxy.pool.checkin(upstream);
            } else {
                self.proxy.pool.discard(upstream);
            }
        }
        match self.close {
            Some(reason) => Ended::Linger(reason),
            None if self.client.ended && self.client.buffer.is_empty() => {
                Ended::Linger(CloseReason::Client)
            }
            None => Ended::Keep,
        }
    }

    fn finish(&self, failure: Option<&Failure>) {
        self.proxy.counters.in_flight_sub();
        let status = match failure {
            Some(failure) => self.download.status.unwrap_or_else(|| failure.status(self.handed)),
            None => self.download.status.unwrap_or(0),
        };
        let summary = Summary {
            status,
            bytes_in: self.upload.received,
            bytes_out: self.download.body_octets(),
            first_byte: self.first_byte,
            upstream: self.proxy.pool.name(self.endpoint),
            retries: self.attempts.saturating_sub(1),
            handed: self.handed,
            failure,
        };
        record(self.proxy, self.client, &self.request, &summary);
    }
}

/// Why the connection ends with this response, if it does.
fn closes(
    proxy: &Proxy,
    client: &Client,
    request: &Request,
    upload: &Upload,
    until_close: bool,
) -> Option<CloseReason> {
    if !request.persistent || until_close || !upload.is_done() {
        return Some(CloseReason::Response);
    }
    let retired = proxy.stage() >= Stage::LameDuck || client.aged;
    // What has been received is answered: the close is said on the last of them.
    if retired && !(kept(Rule::PipelinedRest) && client.has_more()) {
        return Some(if client.aged { CloseReason::Age } else { CloseReason::Drain });
    }
    None
}

fn persistence(close: Option<CloseReason>, minor: u8) -> Persistence {
    match close {
        Some(_) if kept(Rule::CloseAnnounced) => Persistence::Close,
        None if minor == 0 => Persistence::KeptSaid,
        _ => Persistence::Kept,
    }
}

fn reason(failure: &Failure) -> CloseReason {
    use Failure::*;
    match failure {
        Cut => CloseReason::Cut,
        ClientGone => CloseReason::Client,
        SendTimeout | BodyTimeout | HeadTimeout => CloseReason::Timeout,
        BadRequest(_) | Framing(_) | ClientBody(_) | Method | Version | TargetTooLong
        | HeadTooLarge | BodyTooLarge => CloseReason::BadRequest,
        Overloaded(_) => CloseReason::Limit,
        Connect(_) | Died(_) | BadResponse(_) | FirstByteTimeout | BetweenBytesTimeout
        | Truncated(_) => CloseReason::Upstream,
    }
}

/// Writes a response of our own until it is out, the client is gone, or the alarm rings.
async fn send(alarm: &Alarm, client: &mut Client, response: &mut Download) -> bool {
    let mut nothing = Buffer::default();
    poll_fn(|cx| {
        alarm.attach(cx);
        match response.poll_flush(cx, &mut client.socket, &mut nothing, &mut 0) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending if alarm.is_due() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Answers a request whose head was never understood.
pub async fn refuse(
    proxy: &Proxy,
    alarm: &Alarm,
    client: &mut Client,
    failure: &Failure,
    began: Instant,
) -> Ended {
    let mut response = Download::new(Vec::new());
    response.answer(|head| respond::write(failure, false, false, true, head));
    alarm.set(if matches!(failure, Failure::Cut) { CUT_SEND } else { proxy.config.timeouts.send });
    let sent = send(alarm, client, &mut response).await;
    let status = response.status.unwrap_or_default();
    super::record::record_refusal(proxy, client, failure, status, began);
    let reason = reason(failure);
    if sent { Ended::Linger(reason) } else { Ended::Drop(reason) }
}
