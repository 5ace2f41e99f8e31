//! The client's side of a request over HTTP/2: one stream.

mod download;
mod head;
mod sections;
mod upload;

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_TYPE;

pub use self::sections::{Count, Sections};

use self::download::Download;
use self::upload::Upload;
use super::downstream::{
    Answer, Caller, Downstream, Ended, Progress, Refusal, Reply, Rules, Taken, reason,
};
use super::exchange::{Exchange, send};
use super::flow::Flow;
use super::grpc::is_grpc;
use super::inbound::Inbound;
use super::record::{Refused, record_refusal};
use super::request::{Arrival, Origin};
use super::{Failure, Passed, Protocol, Proxy, Request, Tunnel, respond};
use crate::http1::{Buffer, Framing};
use crate::limits::CUT_SEND;
use crate::net::{Alarm, Peer};
use crate::upstream::{Connection, Spare};

/// What all streams of one connection have in common.
#[derive(Debug)]
pub struct Client {
    /// Who it is.
    pub peer: Peer,
    /// The peer's address without port, as text; empty for a unix socket.
    pub address: Box<str>,
    /// The local port, or 0.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether it may speak for others.
    pub trusted: bool,
    /// The trailer sections that have come.
    pub sections: Rc<Sections>,
}

/// What came of a stream's request.
#[expect(clippy::large_enum_variant, reason = "the large one is the common one")]
pub enum Outcome<'a> {
    /// It is over.
    Over(Served<'a>),
    /// Its stream has become a tunnel.
    Tunnel(Box<Switched>),
}

/// A stream that has become a tunnel, with its 200 on the way.
pub struct Switched {
    /// The tunnel.
    pub tunnel: Tunnel,
    /// To the client.
    pub to: SendStream<Bytes>,
    /// From the client.
    pub from: RecvStream,
}

/// A request that is over, all but for its last octets: they are h2's now.
pub struct Served<'a>(Kind<'a>);

#[expect(clippy::large_enum_variant, reason = "the large one is the common one")]
enum Kind<'a> {
    Exchange(Exchange<'a, Stream<'a>>),
    Refused { proxy: &'a Proxy, client: &'a Client, failure: Failure, refused: Refused },
    Tunnel { proxy: &'a Proxy, client: &'a Client, passed: Box<Passed> },
    Nothing,
}

impl<'a> Served<'a> {
    /// A tunnel that is over.
    pub fn tunnel(proxy: &'a Proxy, client: &'a Client, passed: Passed) -> Self {
        Served(Kind::Tunnel { proxy, client, passed: Box::new(passed) })
    }

    /// Whether the client gave it up.
    pub fn was_cancelled(&self) -> bool {
        match &self.0 {
            Kind::Exchange(exchange) => exchange.was_cancelled(),
            Kind::Refused { .. } | Kind::Nothing => false,
            Kind::Tunnel { passed, .. } => passed.was_cancelled(),
        }
    }

    /// Writes it down. `lost` is why what h2 still had of it did not get out.
    pub fn finish(self, lost: Option<Failure>) {
        match self.0 {
            Kind::Exchange(mut exchange) => exchange.finish(lost),
            Kind::Refused { proxy, client, failure, refused } => {
                record_refusal(proxy, &client.caller(), &failure, refused);
            }
            Kind::Tunnel { proxy, client, passed } => {
                passed.record(proxy, (client.peer, &client.address), lost);
            }
            Kind::Nothing => {}
        }
    }
}

impl Switched {
    fn of((tunnel, side): (Tunnel, Stream<'_>)) -> Option<Self> {
        let Stream { mut upload, download, .. } = side;
        Some(Switched { tunnel, to: download.into_stream()?, from: upload.take_body()? })
    }
}

impl Client {
    fn caller(&self) -> Caller<'_> {
        Caller { peer: self.peer, address: &self.address }
    }
}

/// Serves one stream. Ends when its last octet is h2's, within the client's
/// windows, or when nothing more can be said, or when it has become a tunnel. Dropped
/// before that, the stream is reset and nothing is written down.
pub async fn serve<'a>(
    proxy: &'a Proxy,
    alarm: &Rc<Alarm>,
    client: &'a Client,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    arrival: Arrival,
) -> Outcome<'a> {
    let (parts, body) = request.into_parts();
    let Client { port, scheme, trusted, .. } = *client;
    let rules = proxy.rules(Origin { client: &client.address, port, scheme, trusted });
    let most = proxy.config.limits.head_count;
    let head = proxy.spare.head();
    let planned = head::plan(&parts, body.is_end_stream(), most, &rules, arrival, head);
    let asked = Asked {
        is_head: parts.method == http::Method::HEAD,
        is_call: parts.method != http::Method::CONNECT
            && parts.headers.get(CONTENT_TYPE).is_some_and(|it| is_grpc(it.as_bytes())),
        began: arrival.began,
    };
    drop(parts);
    let longest = proxy.config.limits.body_size.unwrap_or(u64::MAX);
    let planned = match planned {
        Ok(Request { framing: Framing::Length(length), .. }) if length > longest => {
            Err(Failure::BodyTooLarge)
        }
        planned => planned,
    };
    let sections = Rc::clone(&client.sections);
    let upload = match &planned {
        Ok(request) if request.is_connect() => Upload::withheld(body, sections),
        Ok(request) => Upload::new(body, request.framing, sections),
        Err(_) => Upload::new(body, Framing::Empty, sections),
    };
    let side = Stream { client, upload, download: Download::new(respond), proxy, answered: false };
    let request = match planned {
        Ok(request) => request,
        Err(failure) => return Outcome::Over(refuse(proxy, alarm, side, failure, asked).await),
    };
    let mut exchange = Exchange::new(proxy, alarm, side, request);
    exchange.run().await;
    if exchange.has_switched() {
        let gone = Outcome::Over(Served(Kind::Nothing));
        let switched = exchange.into_tunnel().and_then(Switched::of);
        return switched.map_or(gone, |switched| Outcome::Tunnel(Box::new(switched)));
    }
    Outcome::Over(Served(Kind::Exchange(exchange)))
}

/// What is known of a request that could not be planned.
struct Asked {
    is_head: bool,
    is_call: bool,
    began: Instant,
}

async fn refuse<'a>(
    proxy: &'a Proxy,
    alarm: &Alarm,
    mut side: Stream<'a>,
    failure: Failure,
    asked: Asked,
) -> Served<'a> {
    let Asked { is_head, is_call, began } = asked;
    let ready = if is_call {
        side.download.answer_grpc(&proxy.stamp, &failure, false)
    } else {
        side.download.answer(respond::text(&failure, false, &proxy.stamp), is_head)
    };
    if ready.is_ok() {
        alarm.set(proxy.config.timeouts.send.max(CUT_SEND));
        send(proxy, alarm, &mut side).await;
    }
    let status = side.download.inbound.status.unwrap_or_default();
    let refused = Refused { protocol: Protocol::Http2, status, bytes_in: 0, began };
    Served(Kind::Refused { proxy, client: side.client, failure, refused })
}

/// A client's stream.
struct Stream<'a> {
    proxy: &'a Proxy,
    client: &'a Client,
    upload: Upload,
    download: Download,
    /// What is sent is an answer of our own.
    answered: bool,
}

impl Downstream for Stream<'_> {
    const SHOWS_CANCEL: bool = true;

    fn caller(&self) -> Caller<'_> {
        self.client.caller()
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>, rules: &Rules<'_>) -> Poll<Result<(), Failure>> {
        self.upload.poll_begin(cx, rules)
    }

    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        upstream: &mut Connection,
        rules: &Rules<'_>,
    ) -> Result<(), Failure> {
        self.upload.poll(cx, head, upstream, rules)
    }

    fn upload(&self) -> &Progress {
        &self.upload.progress
    }

    fn restart(&mut self) {
        self.upload.restart();
    }

    fn take_head(
        &mut self,
        upstream: &mut Connection,
        proxy: &Proxy,
        request: &Request,
    ) -> Result<Taken, Failure> {
        let taken = self.download.take_head(upstream, proxy, request)?;
        if taken == Taken::Final && request.is_connect() {
            // There will be no tunnel: what the client sends for it goes nowhere.
            self.upload.let_go();
        }
        Ok(taken)
    }

    fn stage(&mut self, buffer: &mut Buffer) -> Result<bool, Failure> {
        self.download.stage(buffer)
    }

    fn has_ready(&self) -> bool {
        self.download.has_ready()
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        _buffer: &mut Buffer,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        self.download.poll_flush(cx, moved)
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        spare: &Spare,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        self.download.inbound.poll_more(cx, upstream, spare, moved).map_ok(|_ended| ())
    }

    fn reply(&self) -> Reply {
        Reply {
            status: self.download.inbound.status,
            body_octets: if self.answered { 0 } else { self.download.sent },
            whole: self.download.inbound.is_done(),
            upstream_keeps: self.download.inbound.upstream_keeps,
        }
    }

    fn inbound(&mut self) -> &mut Inbound {
        &mut self.download.inbound
    }

    fn follow(&mut self, flow: Flow) {
        self.download.inbound.follow(flow);
    }

    fn end_body(&mut self) {
        self.download.end_body();
    }

    fn poll_alive(&mut self, cx: &mut Context<'_>) -> bool {
        !self.download.poll_cancelled(cx)
    }

    fn has_half_closed(&self, _request: &Request) -> bool {
        false
    }

    /// A stream that is reset shows it.
    fn has_ended(&self) -> bool {
        false
    }

    fn refuse(&mut self, refusal: &Refusal<'_>) -> Answer {
        let Refusal { failure, handed, request } = *refusal;
        let reset = match failure {
            Failure::ClientGone => Some(Reason::CANCEL),
            // Its client has stopped to wait by itself.
            Failure::CallTimeout if self.download.is_under_way() => Some(Reason::CANCEL),
            _ if self.download.is_under_way() => Some(self.download.broken_off()),
            // Clients may send what is refused again, whatever its method
            // (RFC 9113 section 8.7).
            _ if failure.is_by_drain() && !handed => Some(Reason::REFUSED_STREAM),
            Failure::Refused => Some(Reason::REFUSED_STREAM),
            _ => None,
        };
        if let Some(reset) = reset {
            self.download.reset(reset);
            return Answer::Silent(Ended::Drop(reason(failure)));
        }
        self.answered = true;
        let ready = if request.grpc.is_some() {
            self.download.answer_grpc(&self.proxy.stamp, failure, handed)
        } else {
            self.download.answer(respond::text(failure, handed, &self.proxy.stamp), request.is_head)
        };
        match ready {
            Ok(()) => Answer::Ready(Ended::Keep),
            Err(_) => Answer::Silent(Ended::Drop(reason(failure))),
        }
    }

    /// Handles that are dropped with the request still coming tell the client
    /// to stop (RST_STREAM with NO_ERROR, RFC 9113 section 8.1), once the
    /// response is out: h2 does that.
    fn complete(&mut self) -> Ended {
        Ended::Keep
    }

    /// The buffers are h2's.
    fn recycle(&mut self, _spare: &Spare) {}
}
