//! The request head: what the client sent, and what the app server is sent.
//!
//! The edits are decided and written in one pass over the fields, straight into
//! the octets that will be sent; the head the client sent is not kept. What
//! logs and a second attempt need later is found in those octets again.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::{Instant, SystemTime};

use super::failure::Failure;
use super::target::{is_host, target};
use crate::http1::field::{Name, has_token, tokens};
use crate::http1::framing::FramingFields;
use crate::http1::{Framing, RequestHead};
use crate::limits::HEAD_COUNT_MAX;
use crate::telemetry::Family;

/// What is known of the connection a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The client's address without port, or nothing for a unix socket.
    pub client: &'a str,
    /// The local port, or 0 for a unix socket.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
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
    /// gRPC, which has statuses of its own.
    pub is_grpc: bool,
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
    user_agent: Option<Range<usize>>,
    referer: Option<Range<usize>>,
}

impl Request {
    /// The method.
    pub fn method(&self) -> &[u8] {
        &self.head[self.spans.method.clone()]
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
    origin: &Origin<'_>,
    ids: &RequestIds,
    fallback_host: &str,
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    let seen = Seen::of(head)?;
    let framing = seen.framing.request(head.minor).map_err(Failure::Framing)?;
    let to = target(head.method, head.target)?;
    let host = match (to.authority, seen.host) {
        (Some(authority), _) => authority.as_bytes(),
        (None, Some(host)) => host,
        (None, None) if head.minor == 0 => fallback_host.as_bytes(),
        (None, None) => return Err(Failure::BadRequest("no Host")),
    };
    let protocol = if head.minor == 0 { Protocol::Http10 } else { Protocol::Http11 };
    let shape = Shape { protocol, framing, path: to.path, host };
    compose(head, &seen, &shape, (origin, ids), arrival, out)
}

/// The same for an HTTP/2 request (RFC 9113 section 8.3.1). `head` has the
/// fields without the pseudo-header fields, `ended` says that no body follows.
pub fn plan_stream(
    head: &RequestHead<'_, '_>,
    authority: Option<&str>,
    ended: bool,
    (origin, ids): (&Origin<'_>, &RequestIds),
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    let seen = Seen::of(head)?;
    let framing = seen.framing.stream(ended).map_err(Failure::Framing)?;
    let to = target(head.method, head.target)?;
    let host = match (authority.map(str::as_bytes), seen.host) {
        (Some(authority), _) if !is_host(authority) => {
            return Err(Failure::BadRequest("bad :authority"));
        }
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Failure::BadRequest("Host differs from :authority"));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(Failure::BadRequest("neither :authority nor Host")),
    };
    let shape = Shape { protocol: Protocol::Http2, framing, path: to.path, host };
    compose(head, &seen, &shape, (origin, ids), arrival, out)
}

/// What the protocols say each in their own way.
struct Shape<'b> {
    protocol: Protocol,
    framing: Framing,
    path: &'b str,
    host: &'b [u8],
}

#[inline]
fn compose(
    head: &RequestHead<'_, '_>,
    seen: &Seen<'_>,
    shape: &Shape<'_>,
    (origin, ids): (&Origin<'_>, &RequestIds),
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    let Shape { protocol, framing, path, host } = *shape;
    if head.method == "CONNECT" {
        return Err(Failure::Method);
    }
    let modern = protocol != Protocol::Http10;
    let repeatable = matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "TRACE");
    let mut writer = Writer { out, spans: Spans::default() };
    writer.request_line(head.method, path);
    writer.host(host);
    writer.fields(head, seen);
    writer.framing(framing, seen);
    writer.forwarding(origin, host, arrival.wall);
    writer.id(seen.id, ids);
    writer.out.extend_from_slice(b"\r\n");
    Ok(Request {
        head: writer.out,
        spans: writer.spans,
        framing,
        protocol,
        persistent: if modern { !seen.close } else { seen.keep_alive },
        said_close: seen.close || (!modern && !seen.keep_alive),
        is_head: head.method == "HEAD",
        expects_continue: seen.expects_continue && modern,
        is_repeatable: repeatable && framing == Framing::Empty,
        is_grpc: seen.grpc,
        began: arrival.began,
        wall: arrival.wall,
    })
}

/// What one pass over the fields has found.
struct Seen<'b> {
    names: [Name; HEAD_COUNT_MAX],
    framing: FramingFields<'b>,
    host: Option<&'b [u8]>,
    id: Option<&'b [u8]>,
    /// Some `Connection` field names others than `close` and `keep-alive`.
    nominates: bool,
    close: bool,
    keep_alive: bool,
    trailers: bool,
    expects_continue: bool,
    grpc: bool,
}

impl<'b> Seen<'b> {
    #[inline]
    fn of(head: &RequestHead<'_, 'b>) -> Result<Self, Failure> {
        let mut seen = Seen {
            names: [Name::Other; HEAD_COUNT_MAX],
            framing: FramingFields::default(),
            host: None,
            id: None,
            nominates: false,
            close: false,
            keep_alive: false,
            trailers: false,
            expects_continue: false,
            grpc: false,
        };
        for (at, field) in head.fields.iter().enumerate() {
            let name = Name::of(field.name);
            seen.names[at] = name;
            seen.framing.note(name, field);
            match name {
                Name::Host => {
                    if seen.host.replace(field.value).is_some() {
                        return Err(Failure::BadRequest("more than one Host"));
                    }
                    if !is_host(field.value) {
                        return Err(Failure::BadRequest("bad Host"));
                    }
                }
                Name::Connection => seen.connection(field.value),
                Name::Expect => seen.expects_continue |= has_token(field.value, "100-continue"),
                Name::Te => seen.trailers |= has_token(field.value, "trailers"),
                Name::XRequestId => seen.id = Some(field.value),
                Name::ContentType => seen.grpc = field.value.starts_with(b"application/grpc"),
                _ => {}
            }
        }
        Ok(seen)
    }

    fn connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.nominates = true;
            }
        }
    }
}

/// Whether some `Connection` field names this one (RFC 9110 section 7.6.1). What
/// is needed to understand the message can not be named away.
pub(super) fn is_nominated(fields: &[httparse::Header<'_>], names: &[Name], name: &str) -> bool {
    let connection = fields.iter().zip(names).filter(|(_, name)| **name == Name::Connection);
    connection.into_iter().any(|(field, _)| has_token(field.value, name))
}

struct Writer {
    out: Vec<u8>,
    spans: Spans,
}

impl Writer {
    #[inline]
    fn put(&mut self, octets: &[u8]) -> Range<usize> {
        let start = self.out.len();
        self.out.extend_from_slice(octets);
        start..self.out.len()
    }

    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8]) -> Range<usize> {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        let span = self.put(value);
        self.out.extend_from_slice(b"\r\n");
        span
    }

    fn request_line(&mut self, method: &str, path: &str) {
        self.spans.method = self.put(method.as_bytes());
        self.out.push(b' ');
        self.spans.target = self.put(path.as_bytes());
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    fn host(&mut self, host: &[u8]) {
        self.spans.host = self.field(b"Host", host);
    }

    /// Everything the client sent that is meant for the app server.
    #[inline]
    fn fields(&mut self, head: &RequestHead<'_, '_>, seen: &Seen<'_>) {
        for (field, name) in head.fields.iter().zip(&seen.names) {
            match name {
                Name::Other | Name::ContentType | Name::Date | Name::Forwarded => {
                    if seen.nominates && is_nominated(head.fields, &seen.names, field.name) {
                        continue;
                    }
                    self.field(field.name.as_bytes(), field.value);
                }
                Name::UserAgent => {
                    self.spans.user_agent = Some(self.field(b"User-Agent", field.value));
                }
                Name::Referer => self.spans.referer = Some(self.field(b"Referer", field.value)),
                // An HTTP/1.0 client can not be sent a 100 (RFC 9110 section 10.1.1).
                Name::Expect if head.minor == 1 => {
                    self.field(b"Expect", field.value);
                }
                Name::Trailer => {
                    self.field(b"Trailer", field.value);
                }
                _ => {}
            }
        }
        if seen.trailers {
            self.out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
        }
    }

    fn framing(&mut self, framing: Framing, seen: &Seen<'_>) {
        match framing {
            Framing::Length(length) => {
                self.field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
            }
            Framing::Chunked => {
                self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            Framing::Empty if seen.framing.has_length() => {
                self.out.extend_from_slice(b"Content-Length: 0\r\n");
            }
            Framing::Empty | Framing::UntilClose => {}
        }
    }

    /// What only the proxy knows. Whatever the client claimed of this was left out.
    #[inline]
    fn forwarding(&mut self, origin: &Origin<'_>, host: &[u8], wall: SystemTime) {
        if !origin.client.is_empty() {
            self.field(b"X-Forwarded-For", origin.client.as_bytes());
            self.field(b"X-Real-IP", origin.client.as_bytes());
        }
        self.field(b"X-Forwarded-Proto", origin.scheme.as_bytes());
        self.field(b"X-Forwarded-Host", host);
        if origin.port != 0 {
            let mut digits = itoa::Buffer::new();
            self.field(b"X-Forwarded-Port", digits.format(origin.port).as_bytes());
        }
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.out.extend_from_slice(b"X-Request-Start: t=");
        self.put(itoa::Buffer::new().format(since.as_millis() as u64).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn id(&mut self, sent: Option<&[u8]>, ids: &RequestIds) {
        self.spans.id = match sent.filter(|id| is_request_id(id)) {
            Some(id) => self.field(b"X-Request-Id", id),
            None => self.field(b"X-Request-Id", &ids.next()),
        };
    }
}

/// What may pass as somebody else's request id: 1 to 128 of `[A-Za-z0-9._-]`.
fn is_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(octet))
}

/// Ids that no two requests share: a random half that each worker draws at its
/// start, and a count.
#[derive(Debug)]
pub struct RequestIds {
    worker: u64,
    count: Cell<u64>,
}

impl RequestIds {
    /// A sequence of its own.
    pub fn new() -> Self {
        let draw = || RandomState::new().hash_one(std::process::id());
        RequestIds { worker: draw(), count: Cell::new(draw() >> 16) }
    }

    #[inline]
    fn next(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.get();
        self.count.set(count + 1);
        let mut text = [0; 32];
        for (at, octet) in
            self.worker.to_be_bytes().into_iter().chain(count.to_be_bytes()).enumerate()
        {
            text[2 * at] = DIGITS[usize::from(octet >> 4)];
            text[2 * at + 1] = DIGITS[usize::from(octet & 15)];
        }
        text
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        RequestIds::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{parse_request, storage};

    fn planned(raw: &str) -> Result<String, Failure> {
        let mut fields = storage();
        let head = parse_request(raw.as_bytes(), &mut fields).unwrap().unwrap();
        let origin = Origin { client: "192.0.2.7", port: 8080, scheme: "http" };
        let arrival = Arrival { began: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        let ids = RequestIds::new();
        plan(&head, &origin, &ids, "app:1", arrival, Vec::new())
            .map(|request| String::from_utf8(request.head).unwrap())
    }

    #[test]
    fn the_app_server_sees_end_to_end_fields_and_what_the_proxy_knows() {
        let sent = planned(
            "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close, X-Hop, X-Fine\r\n\
             x-hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Request-Id: abc\r\nTE: trailers, deflate\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            sent,
            "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nTE: trailers\r\nConnection: TE\r\n\
             X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: x\r\nX-Forwarded-Port: 8080\r\nX-Request-Start: t=0\r\n\
             X-Request-Id: abc\r\n\r\n"
        );
    }

    #[test]
    fn a_request_without_one_good_host_is_refused() {
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(planned(bad).is_err(), "{bad}");
        }
        assert!(planned("GET / HTTP/1.0\r\n\r\n").unwrap().contains("Host: app:1\r\n"));
        let absolute = planned("GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(absolute.starts_with("GET /p HTTP/1.1\r\nHost: b\r\n"));
    }

    #[test]
    fn ids_are_kept_if_they_are_plain_and_made_if_not() {
        let id_of = |sent: &str| {
            let head =
                planned(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {sent}\r\n\r\n"));
            let head = head.unwrap();
            head.rsplit_once("X-Request-Id: ").unwrap().1.trim_end().to_owned()
        };
        assert_eq!(id_of("a.B-9_"), "a.B-9_");
        for odd in ["", "a b", "a;b", &"x".repeat(129)] {
            assert_eq!(id_of(odd).len(), 32, "{odd}");
            assert!(id_of(odd).bytes().all(|octet| octet.is_ascii_hexdigit()));
        }
    }
}
