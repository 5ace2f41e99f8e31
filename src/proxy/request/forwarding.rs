//! What the app server is told of the client and of the proxies on the way.
//!
//! Only the proxy knows who has connected to it; what a client says of that was
//! left out. A peer that is trusted (`trusted_proxies`) speaks for others: what
//! it says is taken where it is well formed, and the peer itself is added.

use std::net::IpAddr;
use std::time::SystemTime;

use super::seen::Seen;
use super::writer::{Writer, is_counted};
use super::{Origin, Protocol, Rules};
use crate::http1::RequestHead;
use crate::http1::field::{Name, tokens};
use crate::proxy::target::is_host;

impl Writer {
    /// The fields about the client.
    #[inline]
    pub(super) fn forwarding(
        &mut self,
        head: &RequestHead<'_, '_>,
        seen: &Seen<'_>,
        rules: &Rules<'_>,
        host: &[u8],
        wall: SystemTime,
    ) {
        let origin = &rules.origin;
        if origin.trusted {
            self.told(head, seen, rules, host);
        } else {
            if !origin.client.is_empty() {
                self.field(b"X-Forwarded-For", origin.client.as_bytes());
                self.spans.client = Some(self.field(b"X-Real-IP", origin.client.as_bytes()));
            }
            self.field(b"X-Forwarded-Proto", origin.scheme.as_bytes());
            self.field(b"X-Forwarded-Host", host);
            self.port(origin.port);
        }
        match seen.told.start.filter(|start| origin.trusted && is_start(start)) {
            Some(start) => {
                self.field(b"X-Request-Start", start);
            }
            None => self.start(wall),
        }
        if rules.forwarding.forwarded {
            self.forwarded(origin, host);
        }
    }

    /// The same where the peer speaks for others.
    #[cold]
    fn told(
        &mut self,
        head: &RequestHead<'_, '_>,
        seen: &Seen<'_>,
        rules: &Rules<'_>,
        host: &[u8],
    ) {
        let (origin, told) = (&rules.origin, &seen.told);
        let named = || head.fields.iter().zip(&seen.names);
        let lines =
            || named().filter(|(_, name)| **name == Name::XForwardedFor).map(|(f, _)| f.value);
        let before = lines().filter(|line| !line.is_empty());
        let peer = Some(origin.client.as_bytes()).filter(|peer| !peer.is_empty());
        let all: Vec<&[u8]> = before.chain(peer).collect();
        if !all.is_empty() {
            self.field(b"X-Forwarded-For", &all.join(&b", "[..]));
        }
        match client(lines(), rules) {
            Some(ip) => {
                self.spans.client = Some(self.field(b"X-Real-IP", ip.to_string().as_bytes()))
            }
            None => {
                let peer = peer.map(|peer| self.field(b"X-Real-IP", peer));
                self.spans.client = peer;
            }
        }
        let scheme = told.scheme.filter(|value| all_tokens(value, is_scheme));
        let first_host = told.host.filter(|value| all_tokens(value, is_host));
        let port = told.port.filter(|value| all_tokens(value, is_port));
        self.field(b"X-Forwarded-Proto", scheme.unwrap_or(origin.scheme.as_bytes()));
        self.field(b"X-Forwarded-Host", first_host.unwrap_or(host));
        match port {
            Some(port) => {
                self.field(b"X-Forwarded-Port", port);
            }
            // Our own port next to another's scheme or host would make a wrong URL.
            None if scheme.is_none() && first_host.is_none() => self.port(origin.port),
            None => {}
        }
    }

    fn port(&mut self, port: u16) {
        if port != 0 {
            let mut digits = itoa::Buffer::new();
            self.field(b"X-Forwarded-Port", digits.format(port).as_bytes());
        }
    }

    fn start(&mut self, wall: SystemTime) {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.out.extend_from_slice(b"X-Request-Start: t=");
        self.put(itoa::Buffer::new().format(since.as_millis() as u64).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// One more element of `Forwarded`, in a line of its own (RFC 7239 section 4).
    fn forwarded(&mut self, origin: &Origin<'_>, host: &[u8]) {
        let node = match origin.client {
            "" => "unknown".to_owned(),
            v6 if v6.contains(':') => format!("\"[{v6}]\""),
            v4 => v4.to_owned(),
        };
        self.out.extend_from_slice(b"Forwarded: for=");
        self.put(node.as_bytes());
        self.out.extend_from_slice(b";host=\"");
        self.put(host);
        self.out.extend_from_slice(b"\";proto=");
        self.put(origin.scheme.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// `Via`, after those that were there before (RFC 9110 section 7.6.3).
    #[inline]
    pub(super) fn via(&mut self, protocol: Protocol) {
        self.out.extend_from_slice(match protocol {
            Protocol::Http10 => b"Via: 1.0 ebbtide\r\n",
            Protocol::Http11 => b"Via: 1.1 ebbtide\r\n",
            Protocol::Http2 => b"Via: 2.0 ebbtide\r\n",
        });
    }

    /// `Max-Forwards`, less one where it is counted; what is not was passed on.
    pub(super) fn max_forwards(&mut self, method: &str, left: Option<u64>) {
        if let (true, Some(left)) = (is_counted(method), left) {
            let mut digits = itoa::Buffer::new();
            self.field(b"Max-Forwards", digits.format(left.saturating_sub(1)).as_bytes());
        }
    }
}

/// The client as trusted peers tell it: the last address that is not one of
/// theirs, or the first of all if every one is. What stands before an address
/// that is none is not looked at.
fn client<'b>(
    lines: impl DoubleEndedIterator<Item = &'b [u8]>,
    rules: &Rules<'_>,
) -> Option<IpAddr> {
    let mut found = None;
    let members = lines.rev().flat_map(|line| line.rsplit(|&octet| octet == b','));
    for member in members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        let Some(ip) = address(member) else { break };
        found = Some(ip);
        if !rules.trusted.contains(found) {
            break;
        }
    }
    found
}

/// An address, which some write with a port.
fn address(token: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(token).ok()?;
    let ip = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.or_else(with_port).or_else(bracketed).map(|ip| ip.to_canonical())
}

fn all_tokens(value: &[u8], fits: fn(&[u8]) -> bool) -> bool {
    tokens(value).next().is_some() && tokens(value).all(fits)
}

fn is_scheme(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"https") || token.eq_ignore_ascii_case(b"http")
}

fn is_port(token: &[u8]) -> bool {
    let number = std::str::from_utf8(token).ok().and_then(|text| text.parse::<u16>().ok());
    token.iter().all(u8::is_ascii_digit) && number.is_some_and(|port| port > 0)
}

/// `t=1700000000000`, in whatever unit its maker counts.
fn is_start(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"t=").unwrap_or(value);
    digits.len() <= 24
        && digits.iter().any(u8::is_ascii_digit)
        && digits.iter().all(|octet| octet.is_ascii_digit() || *octet == b'.')
}
