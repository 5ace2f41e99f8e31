//! Writes the head for the app server, field by field.

use std::ops::Range;

use super::id::{RequestIds, is_request_id};
use super::seen::Seen;
use super::{Protocol, Rules, Shape, Spans, Upgrade};
use crate::config::Underscores;
use crate::http1::field::Name;
use crate::http1::{Framing, RequestHead};

pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    pub(super) spans: Spans,
}

impl Writer {
    #[inline]
    pub(super) fn put(&mut self, octets: &[u8]) -> Range<usize> {
        let start = self.out.len();
        self.out.extend_from_slice(octets);
        start..self.out.len()
    }

    #[inline]
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Range<usize> {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        let span = self.put(value);
        self.out.extend_from_slice(b"\r\n");
        span
    }

    pub(super) fn request_line(&mut self, method: &str, path: &str) {
        self.spans.method = self.put(method.as_bytes());
        self.out.push(b' ');
        let start = self.out.len();
        if path.starts_with('?') {
            self.out.push(b'/');
        }
        self.out.extend_from_slice(path.as_bytes());
        self.spans.target = start..self.out.len();
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    pub(super) fn host(&mut self, host: &[u8]) {
        self.spans.host = self.field(b"Host", host);
    }

    /// Everything the client sent that is meant for the app server.
    #[inline]
    pub(super) fn fields(
        &mut self,
        head: &RequestHead<'_, '_>,
        seen: &Seen<'_>,
        shape: &Shape<'_>,
        rules: &Rules<'_>,
    ) {
        let modern = shape.protocol != Protocol::Http10;
        for (field, name) in head.fields.iter().zip(&seen.names) {
            match name {
                Name::Other | Name::ContentType | Name::Date => {}
                Name::UserAgent => {
                    self.spans.user_agent = Some(self.field(b"User-Agent", field.value));
                    continue;
                }
                Name::Referer => {
                    self.spans.referer = Some(self.field(b"Referer", field.value));
                    continue;
                }
                // An HTTP/1.0 client can not be sent a 100 (RFC 9110 section 10.1.1).
                Name::Expect if modern => {}
                Name::Trailer if shape.framing == Framing::Chunked => {}
                Name::MaxForwards if !is_counted(head.method) => {}
                Name::XForwardedOther if rules.origin.trusted => {}
                Name::Forwarded if rules.origin.trusted && rules.forwarding.forwarded => {}
                // What would come out as a field that means something to us is
                // never let through under another name.
                Name::Underscored
                    if rules.forwarding.underscores == Underscores::Pass
                        && Name::folded(field.name) == Name::Other => {}
                _ => continue,
            }
            self.field(field.name.as_bytes(), field.value);
        }
    }

    /// What holds for this connection only.
    #[inline]
    pub(super) fn connection(&mut self, trailers: bool, upgrade: Option<&Upgrade>) {
        if trailers {
            self.out.extend_from_slice(b"TE: trailers\r\n");
        }
        match upgrade {
            None if trailers => self.out.extend_from_slice(b"Connection: TE\r\n"),
            None => {}
            Some(upgrade) => {
                let options: &[u8] = if trailers { b"Upgrade, TE" } else { b"Upgrade" };
                self.field(b"Connection", options);
                self.field(b"Upgrade", upgrade.token());
                if let Some(key) = upgrade.key() {
                    self.field(b"Sec-WebSocket-Key", key);
                }
            }
        }
    }

    pub(super) fn framing(&mut self, framing: Framing, seen: &Seen<'_>) {
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

    pub(super) fn id(&mut self, sent: Option<&[u8]>, ids: &RequestIds) {
        self.spans.id = match sent.filter(|id| is_request_id(id)) {
            Some(id) => self.field(b"X-Request-Id", id),
            None => self.field(b"X-Request-Id", &ids.next()),
        };
    }
}

/// Methods of which `Max-Forwards` is counted down (RFC 9110 section 7.6.2).
pub(super) fn is_counted(method: &str) -> bool {
    matches!(method, "OPTIONS" | "TRACE")
}
