//! The request head: what the client sent, and what the app server is sent.
//!
//! The edits are decided and written in one pass over the fields, straight into
//! the octets that will be sent; the head the client sent is not kept. What
//! logs and a second attempt need later is found in those octets again.

mod forwarding;
mod id;
mod moved;
mod seen;
mod upgrade;
mod writer;

use std::ops::Range;
use std::time::{Instant, SystemTime};

use self::seen::Seen;
use self::writer::{Writer, is_counted};
use super::failure::Failure;
use super::grpc::Call;
use super::target::{is_host, stream_target, target};
use crate::config::{Forwarding, Trusted, Underscores};
use crate::http1::{Framing, RequestHead};
use crate::telemetry::Family;

pub use self::id::RequestIds;
pub(super) use self::moved::ago;
pub(super) use self::seen::is_nominated;
pub use self::upgrade::Upgrade;

/// What is known of the connection a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The client's address without port, or nothing for a unix socket.
    pub client: &'a str,
    /// The local port, or 0 for a unix socket.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether it may speak for others.
    pub trusted: bool,
}

/// What a request is planned by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Its connection.
    pub origin: Origin<'a>,
    /// What is added and left out.
    pub forwarding: &'a Forwarding,
    /// Whose word is taken.
    pub trusted: &'a Trusted,
    /// Protocols besides WebSocket that a connection may be upgraded to.
    pub upgrades: &'a [String],
    /// Ids for those that have none.
    pub ids: &'a RequestIds,
}

/// The protocol a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Protocol {
    /// As the access log writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2.0",
        }
    }

    /// What its requests are counted under.
    pub const fn family(self) -> Family {
        match self {
            Protocol::Http10 | Protocol::Http11 => Family::H1,
            Protocol::Http2 => Family::H2,
        }
    }
}

/// A request whose head has been read.
#[derive(Debug)]
pub struct Request {
    /// The head that the app server is sent.
    pub head: Vec<u8>,
    /// How the body is framed, on both sides.
    pub framing: Framing,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Whether the client wants the connection to be kept.
    pub persistent: bool,
    /// Whether the client said itself that it will send no more: then its FIN
    /// is the end of its requests, not of its interest.
    pub said_close: bool,
    /// A HEAD request: its response has no body.
    pub is_head: bool,
    /// The client waits for a 100 before it sends its body.
    pub expects_continue: bool,
    /// GET, HEAD, OPTIONS or TRACE without body: may be sent twice.
    pub is_repeatable: bool,
    /// A gRPC call, which has statuses of its own.
    pub grpc: Option<Box<Call>>,
    /// What the connection is to become, if the app server agrees.
    pub upgrade: Option<Box<Upgrade>>,
    /// Fields are named in `Connection` that would be passed on else.
    pub hides_fields: bool,
    /// It may go no further than here (RFC 9110 section 7.6.2).
    pub ends_here: bool,
    /// When its first octet was read.
    pub began: Instant,
    /// The same by the wall.
    pub wall: SystemTime,
    spans: Spans,
}

/// Where things stand in [`Request::head`].
#[derive(Clone, Debug, Default)]
struct Spans {
    method: Range<usize>,
    target: Range<usize>,
    host: Range<usize>,
    id: Range<usize>,
    client: Option<Range<usize>>,
    user_agent: Option<Range<usize>>,
    referer: Option<Range<usize>>,
}

impl Request {
    /// The method, as the client said it: of an extended CONNECT the app server is
    /// sent another.
    pub fn method(&self) -> &[u8] {
        if self.is_connect() { b"CONNECT" } else { &self.head[self.spans.method.clone()] }
    }

    /// Whether it came as an extended CONNECT.
    pub fn is_connect(&self) -> bool {
        self.protocol == Protocol::Http2 && self.upgrade.is_some()
    }

    /// The request target.
    pub fn target(&self) -> &[u8] {
        &self.head[self.spans.target.clone()]
    }

    /// The host.
    pub fn host(&self) -> &[u8] {
        &self.head[self.spans.host.clone()]
    }

    /// The request id, the client's or ours.
    pub fn id(&self) -> &[u8] {
        &self.head[self.spans.id.clone()]
    }

    /// The client's address, told by a trusted peer or its own; none on a unix socket.
    pub fn client(&self) -> Option<&[u8]> {
        self.spans.client.clone().map(|span| &self.head[span])
    }

    /// `User-Agent`
    pub fn user_agent(&self) -> Option<&[u8]> {
        self.spans.user_agent.clone().map(|span| &self.head[span])
    }

    /// `Referer`
    pub fn referer(&self) -> Option<&[u8]> {
        self.spans.referer.clone().map(|span| &self.head[span])
    }
}

/// When the request's first octet was read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By the steady clock.
    pub began: Instant,
    /// By the wall.
    pub wall: SystemTime,
}

/// Checks the head of an HTTP/1 request and writes the one for the app server
/// into `out`, which is empty.
pub fn plan(
    head: &RequestHead<'_, '_>,
    rules: &Rules<'_>,
    fallback_host: &str,
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    if head.method == "CONNECT" {
        return Err(Failure::Method);
    }
    let seen = Seen::of(head)?;
    let framing = seen.framing.request(head.minor).map_err(Failure::Framing)?;
    let to = target(head.method, head.target)?;
    let host = match (seen.host, to.authority) {
        // Also next to an absolute target (RFC 9112 section 3.2).
        (None, _) if head.minor > 0 => return Err(Failure::BadRequest("no Host")),
        (_, Some(authority)) => authority.as_bytes(),
        (Some(host), None) => host,
        (None, None) => fallback_host.as_bytes(),
    };
    let protocol = if head.minor == 0 { Protocol::Http10 } else { Protocol::Http11 };
    let shape = Shape { protocol, framing, path: to.path, host, connect: None };
    compose(head, &seen, &shape, rules, arrival, out)
}

/// The same for an HTTP/2 request (RFC 9113 section 8.3.1). `head` has the
/// fields without the pseudo-header fields, `ended` says that no body follows.
pub fn plan_stream(
    head: &RequestHead<'_, '_>,
    authority: Option<&str>,
    ended: bool,
    rules: &Rules<'_>,
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    if head.method == "CONNECT" {
        return Err(Failure::Method);
    }
    if !head.fields.iter().all(|field| is_plain(field.name, field.value)) {
        return Err(Failure::BadRequest("bad field"));
    }
    let seen = Seen::of(head)?;
    let framing = seen.framing.stream(ended).map_err(Failure::Framing)?;
    let path = stream_target(head.method, head.target)?;
    let host = stream_host(authority, &seen)?;
    let shape = Shape { protocol: Protocol::Http2, framing, path, host, connect: None };
    compose(head, &seen, &shape, rules, arrival, out)
}

/// The same for an extended CONNECT (RFC 8441 section 4), which becomes the `Upgrade`
/// that HTTP/1.1 has for it: a GET without a body.
pub fn plan_connect(
    head: &RequestHead<'_, '_>,
    protocol: &str,
    authority: Option<&str>,
    rules: &Rules<'_>,
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    let head = &RequestHead { method: "GET", ..*head };
    if !head.fields.iter().all(|field| is_plain(field.name, field.value)) {
        return Err(Failure::BadRequest("bad field"));
    }
    let seen = Seen::of(head)?;
    // What follows the head is another protocol's (RFC 9110 section 9.3.6).
    if seen.framing.has_length() {
        return Err(Failure::BadRequest("Content-Length in CONNECT"));
    }
    let framing = seen.framing.stream(true).map_err(Failure::Framing)?;
    let path = stream_target(head.method, head.target)?;
    let host = stream_host(authority, &seen)?;
    let connect = Some(protocol);
    let shape = Shape { protocol: Protocol::Http2, framing, path, host, connect };
    compose(head, &seen, &shape, rules, arrival, out)
}

/// Whom a stream asks (RFC 9113 section 8.3.1).
fn stream_host<'b>(authority: Option<&'b str>, seen: &Seen<'b>) -> Result<&'b [u8], Failure> {
    match (authority.map(str::as_bytes), seen.host) {
        (Some(authority), _) if !is_host(authority) => Err(Failure::BadRequest("bad :authority")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Failure::BadRequest("Host differs from :authority"))
        }
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Failure::BadRequest("neither :authority nor Host")),
    }
}

/// Whether a field that HTTP/2's library took is one in HTTP/1 as well: no white
/// space around its value, which would be gone, or worse (RFC 9113 section 8.2.1),
/// and no quotation mark in its name.
fn is_plain(name: &str, value: &[u8]) -> bool {
    let blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last()) && !name.contains('"')
}

/// The same for a field of a trailer section.
pub(super) fn is_field(name: &http::HeaderName, value: &http::HeaderValue) -> bool {
    is_plain(name.as_str(), value.as_bytes())
}

/// What the protocols say each in their own way.
struct Shape<'b> {
    protocol: Protocol,
    framing: Framing,
    path: &'b str,
    host: &'b [u8],
    /// What an extended CONNECT asks for.
    connect: Option<&'b str>,
}

#[inline]
fn compose(
    head: &RequestHead<'_, '_>,
    seen: &Seen<'_>,
    shape: &Shape<'_>,
    rules: &Rules<'_>,
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    let Shape { protocol, framing, path, host, connect } = *shape;
    if seen.underscores && rules.forwarding.underscores == Underscores::Refuse {
        return Err(Failure::BadRequest("underscore in a field name"));
    }
    let left = hops_left(head.method, seen)?;
    let modern = protocol != Protocol::Http10;
    let options = seen.options;
    let upgrade = match connect {
        Some(token) => Some(Upgrade::of_connect(token, rules.upgrades).ok_or(Failure::Protocol)?),
        None => Upgrade::of(head, seen, shape, rules.upgrades),
    };
    let repeatable = matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "TRACE");
    let mut writer = Writer { out, spans: Spans::default() };
    writer.request_line(head.method, path);
    writer.host(host);
    writer.fields(head, seen, shape, rules);
    writer.connection(seen.trailers && modern, upgrade.as_deref());
    writer.framing(framing, seen);
    writer.max_forwards(head.method, left);
    writer.forwarding(head, seen, rules, host, arrival.wall);
    if rules.forwarding.via {
        writer.via(protocol);
    }
    writer.id(seen.id, rules.ids);
    writer.out.extend_from_slice(b"\r\n");
    Ok(Request {
        head: writer.out,
        spans: writer.spans,
        framing,
        protocol,
        persistent: if modern { !options.close } else { options.keep_alive },
        said_close: options.close || (!modern && !options.keep_alive),
        is_head: head.method == "HEAD",
        expects_continue: seen.expects_continue && modern,
        is_repeatable: repeatable && framing == Framing::Empty,
        // A CONNECT asks for a tunnel, whatever it says of its content.
        grpc: (seen.grpc && protocol == Protocol::Http2 && connect.is_none())
            .then(|| Box::new(Call::of(head))),
        upgrade,
        hides_fields: options.hides,
        ends_here: left == Some(0),
        began: arrival.began,
        wall: arrival.wall,
    })
}

/// How many more hops the request may go, if that is counted.
fn hops_left(method: &str, seen: &Seen<'_>) -> Result<Option<u64>, Failure> {
    let Some(text) = seen.max_forwards.filter(|_| is_counted(method)) else { return Ok(None) };
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Failure::BadRequest("bad Max-Forwards"));
    }
    // More than we can count is the most that we can count.
    let count =
        |count: u64, octet: &u8| count.saturating_mul(10).saturating_add((octet - b'0').into());
    Ok(Some(text.iter().fold(0, count)))
}

#[cfg(test)]
mod tests;
