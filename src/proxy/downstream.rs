//! The client's side of one request, as the exchange sees it: what every
//! protocol has to be able to do, and nothing of how it does it.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::flow::Flow;
use super::inbound::Inbound;
use super::{Failure, Proxy, Request, trailer};
use crate::config::Timeouts;
use crate::http1::Buffer;
use crate::net::Peer;
use crate::telemetry::CloseReason;
use crate::upstream::{Connection, Spare};

/// One request's client. Octets go straight from one socket to the other side's
/// buffers: nothing is queued in between, and each side waits for the other.
pub(super) trait Downstream {
    /// Whether a client that gives up is seen whatever it still has to send. If
    /// not, one with a body to send is watched only while that is read.
    const SHOWS_CANCEL: bool;

    /// Who the client is.
    fn caller(&self) -> Caller<'_>;

    /// Waits until there is something that may be sent. No connection is taken
    /// before that: what an app server says on one that is silent would be taken
    /// for the answer.
    fn poll_begin(&mut self, cx: &mut Context<'_>, rules: &Rules<'_>) -> Poll<Result<(), Failure>>;

    /// Sends the request on until something has to be waited for, or all is
    /// sent, or the app server takes no more. An error is the client's.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        upstream: &mut Connection,
        rules: &Rules<'_>,
    ) -> Result<(), Failure>;

    /// How far the request has been sent.
    fn upload(&self) -> &Progress;

    /// Starts the request over on another connection. Either nothing was
    /// written, so that nothing was consumed, or there is no body.
    fn restart(&mut self);

    /// Takes the response head at the front of the buffer and makes it ready.
    fn take_head(
        &mut self,
        upstream: &mut Connection,
        proxy: &Proxy,
        request: &Request,
    ) -> Result<Taken, Failure>;

    /// Decodes what is buffered of the body and makes it ready; `true` if
    /// something was used up.
    fn stage(&mut self, buffer: &mut Buffer) -> Result<bool, Failure>;

    /// Whether something was made ready and not sent. `false` may be asked at any time.
    fn has_ready(&self) -> bool;

    /// Sends what is ready, to its end.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>>;

    /// Reads more of the body.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        spare: &Spare,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>>;

    /// How far the response has come.
    fn reply(&self) -> Reply;

    /// The response as it comes from the app server.
    fn inbound(&mut self) -> &mut Inbound;

    /// The body is followed from its first octet on, because it may be ended before the
    /// app server ends it: whatever frames it must allow that.
    fn follow(&mut self, flow: Flow);

    /// The body has been ended where nothing of it is on its way: makes the end ready.
    fn end_body(&mut self);

    /// Whether the client is still there, asked while it has nothing to send.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> bool;

    /// Whether the client has ended its side without having said that it would.
    /// That is more often a client that has gone than one that has half closed,
    /// and TCP does not tell them apart: it gets a moment, not the whole timeout.
    fn has_half_closed(&self, request: &Request) -> bool;

    /// Whether the client has ended its side.
    fn has_ended(&self) -> bool;

    /// Says what went wrong, if that can still be said.
    fn refuse(&mut self, refusal: &Refusal<'_>) -> Answer;

    /// The response has gone out whole: how the connection goes on.
    fn complete(&mut self) -> Ended;

    /// Gives buffers back that another request can use.
    fn recycle(&mut self, spare: &Spare);
}

/// Who a request is from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    /// Address and port.
    pub(super) peer: Peer,
    /// The address without port, as text; empty for a unix socket.
    pub(super) address: &'a str,
}

/// How the connection goes on after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It may serve another.
    Keep,
    /// FIN, then read what still comes: a lingering close.
    Linger(CloseReason),
    /// Close at once: the client has gone, or must see that its response was cut.
    Drop(CloseReason),
}

/// What stood at the front of the upstream buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Part of a head.
    Part,
    /// An interim response.
    Interim,
    /// The final head: the body follows.
    Final,
    /// The answer to an `Upgrade`: what follows is another protocol.
    Switch,
}

/// How far a request has been sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Where it has come to.
    pub(super) state: State,
    /// Octets of the request that the kernel took on this connection.
    pub(super) written: u64,
    /// Octets of the request's body, its chunk framing included, that were taken from the client.
    pub(super) received: u64,
}

/// Where an upload has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waiting for the client to send more of its body.
    Client,
    /// Waiting for the app server to take more.
    Upstream,
    /// All is sent.
    Done,
    /// The app server takes no more; it may still have answered.
    Broken,
}

impl Progress {
    /// Nothing is sent yet.
    pub(super) fn new() -> Self {
        Progress { state: State::Upstream, written: 0, received: 0 }
    }

    /// Whether nothing more will be sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Broken)
    }

    /// Whether the whole request has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }
}

/// How far a response has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    /// The final head's status, once it is on its way.
    pub(super) status: Option<u16>,
    /// Octets of body that were taken from us, framing included.
    pub(super) body_octets: u64,
    /// The body has been read to its end.
    pub(super) whole: bool,
    /// The app server keeps its connection.
    pub(super) upstream_keeps: bool,
}

/// A failure to be answered.
pub(super) struct Refusal<'a> {
    /// What went wrong.
    pub(super) failure: &'a Failure,
    /// Whether the app server may have seen the request.
    pub(super) handed: bool,
    /// The request.
    pub(super) request: &'a Request,
}

/// What becomes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing more is to be sent.
    Silent(Ended),
    /// An answer is ready; the connection goes on like this once it is out.
    Ready(Ended),
}

/// What an upload goes by.
pub(super) struct Rules<'a> {
    /// The most octets of a body.
    pub(super) most: u64,
    /// The client is expected to send now.
    pub(super) hurry: bool,
    /// How long the client may take.
    pub(super) timeouts: &'a Timeouts,
    /// What of its trailers passes.
    pub(super) trailers: trailer::Policy,
    /// Read buffers.
    pub(super) spare: &'a Spare,
}

/// The least rate of a body. Only time spent waiting for the client counts: an
/// app server that reads slowly is not the client's fault.
#[derive(Debug, Default)]
pub(super) struct Rate {
    waited: Duration,
    since: Option<Instant>,
}

impl Rate {
    /// The client has sent nothing more yet: for how long already?
    pub(super) fn waits(&mut self, timeouts: &Timeouts) -> Result<(), Failure> {
        match self.since {
            Some(since) if since.elapsed() > timeouts.body => Err(Failure::BodyTimeout),
            Some(_) => Ok(()),
            None => {
                self.since = Some(Instant::now());
                Ok(())
            }
        }
    }

    /// The client has sent more; `received` octets so far.
    pub(super) fn moved(&mut self, received: u64, timeouts: &Timeouts) -> Result<(), Failure> {
        let Some(since) = self.since.take() else {
            return Ok(());
        };
        self.waited += since.elapsed();
        let due = timeouts.body_rate as f64 * self.waited.as_secs_f64();
        if self.waited > timeouts.body_rate_grace && (received as f64) < due {
            return Err(Failure::BodyTimeout);
        }
        Ok(())
    }
}

/// Why a connection ends that ends with this failure.
pub(super) fn reason(failure: &Failure) -> CloseReason {
    use Failure::*;
    match failure {
        Cut => CloseReason::Cut,
        Cancelled => CloseReason::Drain,
        ClientGone => CloseReason::Client,
        SendTimeout | BodyTimeout | HeadTimeout | CallTimeout => CloseReason::Timeout,
        BadRequest(_) | Framing(_) | ClientBody(_) | Method | Protocol | Version
        | TargetTooLong | HeadTooLarge | BodyTooLarge => CloseReason::BadRequest,
        LastHop(_) => CloseReason::Response,
        Overloaded(_) => CloseReason::Limit,
        Connect(_) | Died(_) | Refused | Reset(_) | BadResponse(_) | FirstByteTimeout
        | BetweenBytesTimeout | Truncated(_) => CloseReason::Upstream,
    }
}
