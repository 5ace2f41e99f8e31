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
use std::time::{Duration, Instant};

use super::client::{Client, Sight};
use super::failure::Died;
use super::outbound::Outbound;
use super::record::{Summary, record};
use super::response::{self, Outgoing, Persistence};
use super::upload::{Rules, State, Upload};
use super::{Failure, Proxy, Request, respond};
use crate::config::Retry;
use crate::drain::{Deadline, Rule, Stage, kept};
use crate::http1::body::chunk_line;
use crate::http1::head::{parse_response, storage};
use crate::http1::{Decoder, Emit, Framing};
use crate::limits::{BUFFER, COPY_MAX, CUT_SEND, HALF_CLOSE_GRACE, INTERIM_MAX, RESPONSE_HEAD_MAX};
use crate::net::{Alarm, ConnectError};
use crate::telemetry::CloseReason;
use crate::upstream::{Connection, EndpointId};

pub use super::client::Ended;

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    ClientBody,
    UpstreamTakes,
    FirstByte,
    BetweenBytes,
    ClientTakes,
    HalfClosed,
}

/// One request on its way.
pub struct Exchange<'a> {
    proxy: &'a Proxy,
    alarm: &'a Alarm,
    client: &'a mut Client,
    request: Request,
    endpoint: EndpointId,
    upstream: Option<Connection>,
    upload: Upload,
    /// Octets for the client that come before what lies in the upstream buffer.
    head: Vec<u8>,
    down: Outbound,
    body: Body,
    wait: Wait,
    /// Octets that moved in any direction, and as of the last time the alarm was set.
    moved: u64,
    seen: u64,
    sent: u64,
    interims: u32,
    attempts: u8,
    fresh_only: bool,
    /// An octet of the request has been handed to some app server.
    handed: bool,
    first_byte: Option<Instant>,
    /// The final head's status, once it is on its way.
    status: Option<u16>,
    head_octets: u64,
    /// The connection ends with this response.
    close: Option<CloseReason>,
}

/// The response body on its way.
struct Body {
    decoder: Decoder,
    outgoing: Outgoing,
    until_close: bool,
    upstream_keeps: bool,
}

impl<'a> Exchange<'a> {
    /// An exchange for a request whose head has been read; `head` is an empty
    /// buffer for the response's.
    pub fn new(
        proxy: &'a Proxy,
        alarm: &'a Alarm,
        client: &'a mut Client,
        request: Request,
        head: Vec<u8>,
    ) -> Self {
        proxy.counters.in_flight_add();
        let upload = Upload::new(request.framing);
        let body = Body {
            decoder: Decoder::new(Framing::Empty),
            outgoing: Outgoing::Plain,
            until_close: false,
            upstream_keeps: false,
        };
        Exchange {
            proxy,
            alarm,
            client,
            request,
            endpoint: proxy.pool.pick(),
            upstream: None,
            upload,
            head,
            down: Outbound::default(),
            body,
            wait: Wait::Nothing,
            moved: 0,
            seen: 0,
            sent: 0,
            interims: 0,
            attempts: 0,
            fresh_only: false,
            handed: false,
            first_byte: None,
            status: None,
            head_octets: 0,
            close: None,
        }
    }

    /// Runs it to its end. Never fails: whatever goes wrong becomes an answer,
    /// or a connection that ends uncleanly. Gives the two head buffers back.
    pub async fn run(mut self) -> (Ended, Vec<u8>, Vec<u8>) {
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
        self.head.clear();
        self.request.head.clear();
        (
            ended,
            std::mem::take(&mut self.request.head),
            std::mem::take(&mut self.head),
        )
    }

    async fn attempt(&mut self) -> Result<Ended, Failure> {
        self.attempts = self.attempts.saturating_add(1);
        let pooled = if self.fresh_only {
            None
        } else {
            self.proxy.pool.checkout(self.endpoint)
        };
        self.upstream = match pooled {
            Some(connection) => Some(connection),
            None => Some(self.connect().await?),
        };
        poll_fn(|cx| self.poll_head(cx)).await?;
        poll_fn(|cx| self.poll_body(cx)).await?;
        Ok(self.complete())
    }

    /// A new connection; boxed, because most requests find one in the pool and
    /// should not carry its future.
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let deadline = Deadline::after(Instant::now(), self.proxy.config.upstream.connect_timeout);
        let mut connecting = pin!(Box::pin(self.proxy.pool.connect(self.endpoint, deadline)));
        self.alarm.clear();
        poll_fn(|cx| {
            self.poll_told(cx)?;
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(Failure::Connect));
            }
            if self.request.framing == Framing::Empty {
                self.watch_client(cx)?;
                if self.wait == Wait::HalfClosed && self.alarm.is_due() {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the hard deadline has come.
    #[inline]
    fn poll_told(&self, cx: &Context<'_>) -> Result<(), Failure> {
        self.alarm.attach(cx);
        if self.proxy.stage() == Stage::Cut {
            Err(Failure::Cut)
        } else {
            Ok(())
        }
    }

    /// Sends the request and reads until the final response head is ready to go.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        loop {
            if let Poll::Ready(result) = self.poll_interim(cx) {
                result?;
            }
            self.poll_upload(cx)?;
            let Some(upstream) = &mut self.upstream else {
                return Poll::Ready(Err(Failure::BadResponse("no connection")));
            };
            match upstream.socket.poll_read(cx, upstream.buffer.spare()) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    upstream.buffer.fill(n);
                    self.moved += n as u64;
                    if self.take_heads()? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Err(self.died())),
                Poll::Pending => {
                    let wait = match self.upload.state {
                        State::Client => Wait::ClientBody,
                        State::Upstream => Wait::UpstreamTakes,
                        State::Done | State::Broken => {
                            self.watch_client(cx)?;
                            Wait::FirstByte
                        }
                    };
                    return self.pend(wait);
                }
            }
        }
    }

    /// The upstream connection ended before the final head.
    fn died(&self) -> Failure {
        Failure::Died(Died {
            written: self.upload.written > 0,
            reused: self
                .upstream
                .as_ref()
                .is_some_and(|upstream| upstream.reused),
            answered: self.first_byte.is_some(),
        })
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(upstream) = &mut self.upstream else {
            return Ok(());
        };
        let before = self.upload.written + self.upload.received;
        let rules = Rules {
            timeouts: &self.proxy.config.timeouts,
            spare: &self.proxy.spare,
        };
        let result = self
            .upload
            .poll(cx, &self.request.head, self.client, upstream, &rules);
        self.handed |= self.upload.written > 0;
        self.moved += self.upload.written + self.upload.received - before;
        result
    }

    /// Writes interim responses on their way to the client.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.head.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_down(cx)
    }

    /// Writes what is ready for the client.
    #[inline]
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(upstream) = &mut self.upstream else {
            return Poll::Ready(Ok(()));
        };
        let before = self.sent;
        let socket = &mut self.client.socket;
        let flushed =
            self.down
                .poll_flush(cx, socket, &self.head, &mut upstream.buffer, &mut self.sent);
        self.moved += self.sent - before;
        match flushed {
            Poll::Ready(Ok(())) => {
                self.head.clear();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::ClientGone)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes the response heads that are buffered; `true` with the final one.
    fn take_heads(&mut self) -> Result<bool, Failure> {
        loop {
            let Some(upstream) = &mut self.upstream else {
                return Ok(false);
            };
            if self.first_byte.is_none() {
                self.first_byte = Some(Instant::now());
            }
            let octets = upstream.buffer.filled();
            let mut fields = storage();
            let head = match parse_response(octets, &mut fields) {
                Ok(Some(head)) => head,
                Ok(None) if upstream.buffer.len() >= RESPONSE_HEAD_MAX => {
                    return Err(Failure::BadResponse("response head too long"));
                }
                Ok(None) => {
                    if upstream.buffer.is_full() {
                        self.proxy.spare.enlarge(&mut upstream.buffer);
                    }
                    return Ok(false);
                }
                Err(_) => return Err(Failure::BadResponse("malformed response head")),
            };
            let seen = response::look(&head, self.request.is_head).map_err(Failure::BadResponse)?;
            let length = head.len;
            if head.status >= 200 {
                let (outgoing, until_close) = response::outgoing(seen.framing, self.request.minor);
                self.close = closes(
                    self.proxy,
                    self.client,
                    &self.request,
                    &self.upload,
                    until_close,
                );
                let persistence = persistence(self.close, self.request.minor);
                let is_head = self.request.is_head;
                let before = self.head.len();
                response::write(&head, &seen, is_head, outgoing, persistence, &mut self.head);
                self.head_octets = (self.head.len() - before) as u64;
                self.status = Some(head.status);
                self.body = Body {
                    decoder: Decoder::new(seen.framing),
                    outgoing,
                    until_close,
                    upstream_keeps: seen.keep_alive,
                };
                upstream.buffer.consume(length);
                return Ok(true);
            }
            self.interims += 1;
            if head.status == 101 || self.interims > INTERIM_MAX {
                return Err(Failure::BadResponse("unasked interim response"));
            }
            if self.request.minor == 1 {
                response::write_interim(&head, &seen, &mut self.head);
            }
            upstream.buffer.consume(length);
            if upstream.buffer.is_empty() {
                return Ok(false);
            }
        }
    }

    /// Streams the response body, while what is left of the request goes up.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_told(cx)?;
        loop {
            if !self.upload.is_done() {
                self.poll_upload(cx)?;
            }
            let more = self.stage_body()?;
            match self.poll_down(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.pend(Wait::ClientTakes),
            }
            if self.body.decoder.is_done() {
                return Poll::Ready(Ok(()));
            }
            if more {
                continue;
            }
            match self.poll_more(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if self.upload.is_done() && self.client.poll_sight(cx) == Sight::Gone {
                        return Poll::Ready(Err(Failure::ClientGone));
                    }
                    return self.pend(Wait::BetweenBytes);
                }
            }
        }
    }

    /// Decodes what is buffered and makes it ready for the client; `true` if
    /// something was used up.
    #[inline]
    fn stage_body(&mut self) -> Result<bool, Failure> {
        let Some(upstream) = &mut self.upstream else {
            return Ok(false);
        };
        if self.body.decoder.is_done() || !self.down.is_empty() || !self.down.is_untouched() {
            return Ok(false);
        }
        let emit = match self.body.outgoing {
            Outgoing::Chunks => Emit::Chunks,
            Outgoing::Plain | Outgoing::Wrap => Emit::Data,
        };
        let buffer = &mut upstream.buffer;
        let progress = self
            .body
            .decoder
            .decode(buffer.filled_mut(), emit)
            .map_err(|error| Failure::Truncated(error.0))?;
        let mut spent = progress.consumed;
        if let Some(trailer) = progress.trailer {
            if self.body.outgoing == Outgoing::Chunks {
                let section = &buffer.filled()[spent..spent + trailer];
                self.down.suffix.extend_from_slice(b"0\r\n");
                response::write_trailer(section, &mut self.down.suffix)
                    .ok_or(Failure::Truncated("bad trailer section"))?;
            }
            spent += trailer;
        }
        if self.body.outgoing == Outgoing::Wrap && progress.produced > 0 {
            let mut line = [0; 18];
            let n = chunk_line(progress.produced as u64, &mut line);
            self.head.extend_from_slice(&line[..n]);
            self.down.suffix.extend_from_slice(b"\r\n");
        }
        let small = progress.produced + self.down.suffix.len() <= COPY_MAX;
        if small && !self.head.is_empty() {
            self.head
                .extend_from_slice(&buffer.filled()[..progress.produced]);
            self.head.append(&mut self.down.suffix);
            buffer.consume(spent);
        } else {
            self.down.set(progress.produced, spent);
        }
        Ok(spent > 0)
    }

    /// Reads more of the response.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(upstream) = &mut self.upstream else {
            return Poll::Pending;
        };
        if upstream.buffer.is_full() {
            return Poll::Ready(Err(Failure::Truncated("chunk framing too long")));
        }
        let room = upstream.buffer.spare();
        let size = room.len();
        match upstream.socket.poll_read(cx, room) {
            Poll::Ready(Ok(0)) => {
                let ended = self.body.decoder.end_of_input();
                if ended.is_ok() && self.body.outgoing == Outgoing::Wrap {
                    self.head.extend_from_slice(b"0\r\n\r\n");
                }
                Poll::Ready(ended.map_err(|error| Failure::Truncated(error.0)))
            }
            Poll::Ready(Ok(n)) => {
                upstream.buffer.fill(n);
                self.moved += n as u64;
                if n == size && upstream.buffer.capacity() == BUFFER {
                    self.proxy.spare.enlarge(&mut upstream.buffer);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Truncated(
                "the app server reset its connection",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks after a client that waits. A FIN from one that had not said so is
    /// more often a client that has gone than one that has half closed, and TCP
    /// does not tell them apart: it gets a moment, not the whole timeout.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self.client.poll_sight(cx) {
            Sight::There => {}
            Sight::Gone => return Err(Failure::ClientGone),
            Sight::Ended if self.request.said_close => {}
            Sight::Ended => {
                self.wait = Wait::HalfClosed;
                self.alarm.set(HALF_CLOSE_GRACE);
            }
        }
        Ok(())
    }

    /// Waits; the alarm is set anew when something has moved or the wait is another.
    fn pend<T>(&mut self, wait: Wait) -> Poll<Result<T, Failure>> {
        if self.wait == Wait::HalfClosed && self.moved == self.seen {
            if self.alarm.is_due() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            return Poll::Pending;
        }
        if self.wait != wait || self.moved != self.seen {
            self.wait = wait;
            self.seen = self.moved;
            self.alarm.set(self.bound(wait));
            return Poll::Pending;
        }
        if !self.alarm.is_due() {
            return Poll::Pending;
        }
        Poll::Ready(Err(match wait {
            Wait::ClientBody => Failure::BodyTimeout,
            Wait::FirstByte => Failure::FirstByteTimeout,
            Wait::UpstreamTakes | Wait::BetweenBytes => Failure::BetweenBytesTimeout,
            Wait::ClientTakes => Failure::SendTimeout,
            Wait::Nothing | Wait::HalfClosed => Failure::ClientGone,
        }))
    }

    fn bound(&self, wait: Wait) -> Duration {
        let config = &self.proxy.config;
        match wait {
            Wait::ClientBody => config.timeouts.body,
            Wait::FirstByte => config.upstream.first_byte_timeout,
            Wait::UpstreamTakes | Wait::BetweenBytes => config.upstream.between_bytes_timeout,
            Wait::ClientTakes => config.timeouts.send,
            Wait::HalfClosed => HALF_CLOSE_GRACE,
            Wait::Nothing => Duration::MAX,
        }
    }

    /// Whether the request may be sent again after this.
    fn may_try_again(&self, failure: &Failure) -> bool {
        match failure {
            // Nothing was sent: another endpoint may be up.
            Failure::Connect(ConnectError::Exhausted(_)) => false,
            Failure::Connect(_) => usize::from(self.attempts) < self.proxy.pool.len(),
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
            self.endpoint = self.proxy.pool.pick();
        }
        self.drop_upstream();
        self.upload.restart();
        self.wait = Wait::Nothing;
    }

    /// Answers a failure, if there is still somebody and something to answer.
    async fn give_up(&mut self, failure: &Failure) -> Ended {
        self.drop_upstream();
        let reason = reason(failure);
        let silent = matches!(failure, Failure::ClientGone | Failure::SendTimeout);
        if self.status.is_some() {
            if self.body.until_close {
                self.client.socket.reset_on_close();
            }
            return Ended::Drop(reason);
        }
        if silent {
            return Ended::Drop(reason);
        }
        // An app server that is down is no reason to lose the client's connection.
        let keep = failure.is_ours()
            && self.request.persistent
            && self.request.minor == 1
            && self.upload.skip(&mut self.client.buffer)
            && self.proxy.stage() == Stage::Open;
        let before = self.head.len();
        let (handed, is_head) = (self.handed, self.request.is_head);
        let status = respond::write(failure, handed, is_head, !keep, &mut self.head);
        self.head_octets = (self.head.len() - before) as u64;
        self.status = Some(status);
        let cut = matches!(failure, Failure::Cut);
        self.alarm.set(if cut {
            CUT_SEND
        } else {
            self.proxy.config.timeouts.send
        });
        let sent = send(
            self.alarm,
            self.client,
            &self.head,
            &mut self.down,
            &mut self.sent,
        )
        .await;
        match sent {
            true if keep => Ended::Keep,
            true => Ended::Linger(reason),
            false => Ended::Drop(reason),
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
            let clean = upstream.buffer.is_empty() && self.upload.is_done();
            if clean && self.body.upstream_keeps {
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
            Some(failure) => self.status.unwrap_or_else(|| failure.status(self.handed)),
            None => self.status.unwrap_or(0),
        };
        let summary = Summary {
            status,
            bytes_in: self.upload.received,
            bytes_out: self.sent.saturating_sub(self.head_octets),
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
        return Some(if client.aged {
            CloseReason::Age
        } else {
            CloseReason::Drain
        });
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
        | HeadTooLarge => CloseReason::BadRequest,
        Overloaded(_) => CloseReason::Limit,
        Connect(_) | Died(_) | BadResponse(_) | FirstByteTimeout | BetweenBytesTimeout
        | Truncated(_) => CloseReason::Upstream,
    }
}

/// Writes a response of our own until it is out, the client is gone, or the alarm rings.
async fn send(
    alarm: &Alarm,
    client: &mut Client,
    octets: &[u8],
    out: &mut Outbound,
    moved: &mut u64,
) -> bool {
    poll_fn(|cx| {
        alarm.attach(cx);
        let mut nothing = crate::http1::Buffer::default();
        match out.poll_flush(cx, &mut client.socket, octets, &mut nothing, moved) {
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
    let mut head = Vec::new();
    let status = respond::write(failure, false, false, true, &mut head);
    alarm.set(if matches!(failure, Failure::Cut) {
        CUT_SEND
    } else {
        proxy.config.timeouts.send
    });
    let mut moved = 0;
    let sent = send(alarm, client, &head, &mut Outbound::default(), &mut moved).await;
    super::record::record_refusal(proxy, client, failure, status, began);
    let reason = reason(failure);
    if sent {
        Ended::Linger(reason)
    } else {
        Ended::Drop(reason)
    }
}
