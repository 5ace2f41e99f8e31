//! The client's side of a request over HTTP/1.

mod client;
mod download;
mod upload;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

pub use client::{Client, blank_lines};

use self::download::{Asked, Download};
use self::upload::Upload;
use super::downstream::{
    Answer, Caller, Downstream, Ended, Progress, Refusal, Reply, Rules, Taken, reason,
};
use super::exchange::{Exchange, send};
use super::flow::Flow;
use super::inbound::Inbound;
use super::record::{Refused, record_refusal};
use super::response::Persistence;
use super::{Failure, Protocol, Proxy, Request, Tunnel, respond};
use crate::drain::{Rule, Stage, kept};
use crate::http1::Buffer;
use crate::limits::{CUT_SEND, TOLD_GRACE};
use crate::net::Alarm;
use crate::telemetry::CloseReason;
use crate::upstream::{Connection, Spare};

/// What came of a request.
pub enum Served {
    /// It is over.
    Ended(Ended),
    /// Its connection has become a tunnel.
    Tunnel(Box<Tunnel>),
}

/// Serves one request whose head has been read.
pub async fn serve(
    proxy: &Proxy,
    alarm: &Rc<Alarm>,
    client: &mut Client,
    request: Request,
) -> Served {
    let side = Side {
        proxy,
        upload: Upload::new(request.framing),
        download: Download::new(proxy.spare.head()),
        close: None,
        client,
    };
    let mut exchange = Exchange::new(proxy, alarm, side, request);
    let ended = exchange.run().await;
    if exchange.has_switched() {
        let gone = Served::Ended(Ended::Drop(CloseReason::Error));
        return exchange.into_tunnel().map_or(gone, |(tunnel, _)| Served::Tunnel(Box::new(tunnel)));
    }
    let told = exchange.was_told();
    exchange.finish(None);
    drop(exchange);
    Served::Ended(if told && ended == Ended::Keep && retires(proxy, client) {
        last_look(proxy, alarm, client).await
    } else {
        ended
    })
}

/// A client whose endless response was ended could not be told that the connection ends
/// with it. What it asks for at once is still answered; then the connection ends.
async fn last_look(proxy: &Proxy, alarm: &Alarm, client: &mut Client) -> Ended {
    alarm.set(TOLD_GRACE);
    poll_fn(|cx| {
        alarm.attach(cx);
        let alive = client.poll_alive(cx);
        if client.has_more() {
            return Poll::Ready(Ended::Keep);
        }
        let over = !alive || client.ended || alarm.is_due() || proxy.stage() == Stage::Cut;
        if over { Poll::Ready(Ended::Linger(CloseReason::Drain)) } else { Poll::Pending }
    })
    .await
}

/// Answers a request whose head was never understood; `is_head` is whether it
/// began like one for a head alone.
pub async fn refuse(
    proxy: &Proxy,
    alarm: &Alarm,
    client: &mut Client,
    failure: &Failure,
    (began, is_head): (Instant, bool),
) -> Ended {
    let mut download = Download::new(Vec::new());
    let text = respond::text(failure, false, &proxy.stamp);
    download.answer(|head| respond::write(&text, is_head, true, head));
    alarm.set(if matches!(failure, Failure::Cut) { CUT_SEND } else { proxy.config.timeouts.send });
    let upload = Upload::new(crate::http1::Framing::Empty);
    let mut side = Side { proxy, client, upload, download, close: None };
    let sent = send(proxy, alarm, &mut side).await;
    let refused = Refused {
        protocol: Protocol::Http11,
        status: side.download.inbound.status.unwrap_or_default(),
        bytes_in: side.client.buffer.len() as u64,
        began,
    };
    record_refusal(proxy, &side.caller(), failure, refused);
    let reason = reason(failure);
    if sent { Ended::Linger(reason) } else { Ended::Drop(reason) }
}

/// A client of which one request is being served.
struct Side<'a> {
    proxy: &'a Proxy,
    client: &'a mut Client,
    upload: Upload,
    download: Download,
    /// The connection ends with this response.
    close: Option<CloseReason>,
}

impl Downstream for Side<'_> {
    const SHOWS_CANCEL: bool = false;

    fn caller(&self) -> Caller<'_> {
        Caller { peer: self.client.peer, address: &self.client.address }
    }

    #[inline]
    fn poll_begin(&mut self, _: &mut Context<'_>, _: &Rules<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        upstream: &mut Connection,
        rules: &Rules<'_>,
    ) -> Result<(), Failure> {
        self.upload.poll(cx, head, self.client, upstream, rules)
    }

    #[inline]
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
        let upgrade = request.upgrade.as_deref();
        let asked = Asked { is_head: request.is_head, protocol: request.protocol, upgrade };
        let (client, close) = (&*self.client, &mut self.close);
        let done = self.upload.progress.is_done();
        let persistence = |until_close| {
            *close = closes(proxy, client, request, done, until_close);
            persistence(*close, asked.protocol)
        };
        let taken = self.download.take_head(upstream, proxy, asked, persistence)?;
        if taken == Taken::Final && self.download.until_close {
            // Until it is whole, whatever ends the connection, a crash too, must
            // not look like its end.
            self.client.socket.reset_on_close(true);
        }
        Ok(taken)
    }

    #[inline]
    fn stage(&mut self, buffer: &mut Buffer) -> Result<bool, Failure> {
        self.download.stage(buffer)
    }

    #[inline]
    fn has_ready(&self) -> bool {
        !self.download.head.is_empty()
    }

    #[inline]
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        self.download.poll_flush(cx, &mut self.client.socket, buffer, moved)
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        spare: &Spare,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        self.download.poll_more(cx, upstream, spare, moved)
    }

    #[inline]
    fn reply(&self) -> Reply {
        Reply {
            status: self.download.inbound.status,
            body_octets: self.download.body_octets(),
            whole: self.download.inbound.is_done(),
            upstream_keeps: self.download.inbound.upstream_keeps,
        }
    }

    fn inbound(&mut self) -> &mut Inbound {
        &mut self.download.inbound
    }

    fn follow(&mut self, flow: Flow) {
        self.download.follow(flow);
    }

    fn end_body(&mut self) {
        self.download.end_body();
    }

    fn poll_alive(&mut self, cx: &mut Context<'_>) -> bool {
        self.client.poll_alive(cx)
    }

    fn has_half_closed(&self, request: &Request) -> bool {
        self.client.ended && !request.said_close && self.client.buffer.is_empty()
    }

    fn has_ended(&self) -> bool {
        self.client.ended
    }

    fn refuse(&mut self, refusal: &Refusal<'_>) -> Answer {
        let Refusal { failure, handed, request, .. } = *refusal;
        let reason = reason(failure);
        let silent = matches!(failure, Failure::ClientGone | Failure::SendTimeout);
        if self.download.is_under_way() {
            return Answer::Silent(Ended::Drop(reason));
        }
        self.download.take_back();
        self.client.socket.reset_on_close(false);
        if silent {
            return Answer::Silent(Ended::Drop(reason));
        }
        // An app server that is down is no reason to lose the client's connection.
        let keep = failure.leaves_order()
            && request.persistent
            && request.protocol == Protocol::Http11
            && self.upload.skip(&mut self.client.buffer)
            && self.may_go_on();
        let is_head = request.is_head;
        let text = respond::text(failure, handed, &self.proxy.stamp);
        self.download.answer(|head| respond::write(&text, is_head, !keep, head));
        Answer::Ready(if keep { Ended::Keep } else { Ended::Linger(reason) })
    }

    fn complete(&mut self) -> Ended {
        if self.download.until_close {
            self.client.socket.reset_on_close(false);
        }
        match self.close {
            Some(_) if self.download.inbound.was_told => Ended::Linger(CloseReason::Drain),
            Some(reason) => Ended::Linger(reason),
            None if self.client.ended && self.client.buffer.is_empty() => {
                Ended::Linger(CloseReason::Client)
            }
            None => Ended::Keep,
        }
    }

    fn recycle(&mut self, spare: &Spare) {
        spare.give_head(std::mem::take(&mut self.download.head));
    }
}

impl Side<'_> {
    /// Whether the connection may serve another request, as far as the drain goes.
    fn may_go_on(&self) -> bool {
        let retired = retires(self.proxy, self.client);
        self.proxy.stage() < Stage::Cut && (!retired || self.client.has_more())
    }
}

/// Whether the connection is to be used no more. One that moves goes on elsewhere.
#[inline]
fn retires(proxy: &Proxy, client: &Client) -> bool {
    let leaves = proxy.stage() >= Stage::LameDuck && (!proxy.moves() || client.socket.is_tls());
    leaves || client.aged
}

/// Why the connection ends with this response, if it does.
fn closes(
    proxy: &Proxy,
    client: &Client,
    request: &Request,
    sent: bool,
    until_close: bool,
) -> Option<CloseReason> {
    if !request.persistent || until_close || !sent {
        return Some(CloseReason::Response);
    }
    let retired = retires(proxy, client);
    // What has been received is answered: the close is said on the last of them.
    if retired && !(kept(Rule::PipelinedRest) && client.has_more()) {
        return Some(if client.aged { CloseReason::Age } else { CloseReason::Drain });
    }
    None
}

fn persistence(close: Option<CloseReason>, protocol: Protocol) -> Persistence {
    match close {
        Some(_) if kept(Rule::CloseAnnounced) => Persistence::Close,
        None if protocol == Protocol::Http10 => Persistence::KeptSaid,
        _ => Persistence::Kept,
    }
}
