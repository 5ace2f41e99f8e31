//! What is written down of a request when it is over.

use std::time::Instant;

use super::downstream::Caller;
use super::request::{Protocol, Request};
use super::{Failure, Proxy};
use crate::drain::Stage;
use crate::net::Peer;
use crate::telemetry::{CutRequest, Event, Level, Record};

/// What the exchange knows at its end.
pub(super) struct Summary<'a> {
    pub(super) status: u16,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) first_byte: Option<Instant>,
    pub(super) upstream: &'a str,
    pub(super) retries: u8,
    pub(super) handed: bool,
    pub(super) failure: Option<&'a Failure>,
    /// A drain has ended it, and it could be told.
    pub(super) told: bool,
}

/// Counts the request, logs it, says what went wrong, and names it if it was cut. A
/// request of our own is nobody's.
#[inline]
pub(super) fn record(proxy: &Proxy, client: &Caller<'_>, request: &Request, summary: &Summary<'_>) {
    if client.peer == Peer::Own {
        return;
    }
    proxy.counters.request(summary.status);
    if summary.told {
        proxy.counters.told();
    }
    let mut access = proxy.access.borrow_mut();
    if access.is_on() {
        access.record(&Record {
            ts: request.wall,
            request_id: request.id(),
            remote: client_of(client, request),
            method: request.method(),
            host: request.host(),
            target: request.target(),
            protocol: request.protocol.name(),
            status: summary.status,
            bytes_in: summary.bytes_in,
            bytes_out: summary.bytes_out,
            duration: request.began.elapsed(),
            first_byte: summary.first_byte.map(|at| at.saturating_duration_since(request.began)),
            upstream: summary.upstream,
            retries: summary.retries,
            referer: request.referer(),
            user_agent: request.user_agent(),
            error: summary.failure.map(Failure::word),
            drain: proxy.stage() > Stage::Open,
            told: summary.told,
        });
    }
    drop(access);
    if let Some(failure) = summary.failure {
        complain(proxy, client, request, summary, failure);
    }
}

fn complain(
    proxy: &Proxy,
    client: &Caller<'_>,
    request: &Request,
    summary: &Summary<'_>,
    failure: &Failure,
) {
    if failure.is_by_drain() {
        let by_route = matches!(failure, Failure::Cancelled);
        if by_route {
            proxy.counters.cancelled();
        } else {
            proxy.counters.cut();
        }
        name_cut(proxy, CutRequest { by_route, ..cut_of(proxy, client, request, summary) });
    } else if failure.is_ours() {
        let event = Event::new(Level::Warn, "request_failed")
            .with("cause", failure.cause())
            .with("status", summary.status)
            .with("method", lossy(request.method()))
            .with("target", shown_target(proxy, request.target()))
            .with("client", address_of(client, request))
            .with("upstream", summary.upstream.to_owned())
            .with("request_id", lossy(request.id()));
        proxy.events.emit(event);
    }
}

fn cut_of(
    proxy: &Proxy,
    client: &Caller<'_>,
    request: &Request,
    summary: &Summary<'_>,
) -> CutRequest {
    CutRequest {
        method: lossy(request.method()),
        target: shown_target(proxy, request.target()),
        client: address_of(client, request),
        upstream: summary.upstream.to_owned(),
        age_ms: u64::try_from(request.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        bytes_in: summary.bytes_in,
        bytes_out: summary.bytes_out,
        request_id: lossy(request.id()),
        protocol: request.protocol.name().to_owned(),
        sent_upstream: summary.handed,
        status: (summary.status != 0).then_some(summary.status),
        by_route: false,
    }
}

/// Logs a cut request and hands it to the drain report.
pub(super) fn name_cut(proxy: &Proxy, cut: CutRequest) {
    proxy.events.emit(cut.event());
    // The report lists no more than the queue holds; it counts all.
    let _listed = proxy.cuts.try_send(cut);
}

/// The target as logs show it: without its query, unless told otherwise.
pub(super) fn shown_target(proxy: &Proxy, target: &[u8]) -> String {
    let end = if proxy.config.log.query {
        target.len()
    } else {
        target.iter().position(|&octet| octet == b'?').unwrap_or(target.len())
    };
    lossy(&target[..end])
}

pub(super) fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The client that a request is for: told by a trusted peer, or the peer itself.
fn client_of<'a>(client: &Caller<'a>, request: &'a Request) -> &'a str {
    let told = request.client().and_then(|told| std::str::from_utf8(told).ok());
    told.unwrap_or_else(|| remote(client))
}

/// The same with the port where it is known.
pub(super) fn address_of(client: &Caller<'_>, request: &Request) -> String {
    match client_of(client, request) {
        told if told == remote(client) => client.peer.to_string(),
        told => told.to_owned(),
    }
}

pub(super) fn remote<'a>(client: &Caller<'a>) -> &'a str {
    if client.address.is_empty() { "unix:" } else { client.address }
}

/// A request that was refused before it could become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) protocol: Protocol,
    pub(super) status: u16,
    pub(super) bytes_in: u64,
    pub(super) began: Instant,
}

/// The same for a request whose head was never understood: of it nothing is
/// known but who sent it and how.
pub(super) fn record_refusal(
    proxy: &Proxy,
    client: &Caller<'_>,
    failure: &Failure,
    refused: Refused,
) {
    let Refused { protocol, status, bytes_in, began } = refused;
    proxy.counters.request(status);
    let mut access = proxy.access.borrow_mut();
    let age = began.elapsed();
    if access.is_on() {
        access.record(&Record {
            ts: std::time::SystemTime::now().checked_sub(age).unwrap_or(std::time::UNIX_EPOCH),
            request_id: b"-",
            remote: remote(client),
            method: b"-",
            host: b"-",
            target: b"-",
            protocol: protocol.name(),
            status,
            bytes_in,
            bytes_out: 0,
            duration: age,
            first_byte: None,
            upstream: "",
            retries: 0,
            referer: None,
            user_agent: None,
            error: Some(failure.detail()),
            drain: proxy.stage() > Stage::Open,
            told: false,
        });
    }
    drop(access);
    if let Failure::Cut = failure {
        proxy.counters.cut();
        let cut = CutRequest {
            client: client.peer.to_string(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            bytes_in,
            protocol: protocol.name().to_owned(),
            status: Some(status),
            ..CutRequest::default()
        };
        name_cut(proxy, cut);
    } else if !matches!(failure, Failure::HeadTimeout) {
        let event = Event::new(Level::Info, "request_refused")
            .with("cause", failure.cause())
            .with("status", status)
            .with("client", client.peer.to_string());
        proxy.events.limited("request_refused", std::time::Duration::from_secs(1), event);
    }
}
