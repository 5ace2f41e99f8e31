//! What a request wants its connection, or its stream, to become, and whether the answer
//! gives it.
//!
//! An `Upgrade` is passed on if it is one for a WebSocket or one that is configured;
//! any other is left out, and the request goes on as an ordinary one (RFC 9110 section
//! 7.8). An extended CONNECT (RFC 8441) for one of them becomes such an `Upgrade`, with a
//! key of ours if it is for a WebSocket; any other is refused, because there is nothing
//! ordinary in it. Nothing of the new protocol passes before a 101 has been checked.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::seen::Seen;
use super::{Protocol, Shape};
use crate::http1::field::{Field, Name, has_token, tokens};
use crate::http1::{Framing, RequestHead, ResponseHead};

/// The one protocol whose frames are known.
const WEBSOCKET: &[u8] = b"websocket";

/// What RFC 6455 section 1.3 appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A wish that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The protocol, as the client spelled it.
    token: Box<[u8]>,
    /// For a WebSocket, what the answer has to prove that the key was read.
    accept: Option<Box<[u8]>>,
    /// The key, where it is ours: HTTP/2 has none (RFC 8441 section 5.1).
    key: Option<Box<[u8]>>,
}

impl Upgrade {
    /// The wish of a request, if it has one that may be passed on: over HTTP/1.1,
    /// without a body, for a single protocol.
    pub(super) fn of(
        head: &RequestHead<'_, '_>,
        seen: &Seen<'_>,
        shape: &Shape<'_>,
        allowed: &[String],
    ) -> Option<Box<Self>> {
        if !seen.upgrades
            || !seen.options.upgrade
            || shape.protocol != Protocol::Http11
            || shape.framing != Framing::Empty
        {
            return None;
        }
        let token = only(head.fields, Name::Upgrade).and_then(single)?;
        if token.eq_ignore_ascii_case(WEBSOCKET) {
            let mut keys = named(head.fields, "sec-websocket-key");
            let (key, more) = (keys.next()?, keys.next());
            let is_key = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
            let asks = head.method == "GET" && is_key && more.is_none();
            return asks.then(|| {
                let accept = Some(accept_of(key));
                Box::new(Upgrade { token: token.into(), accept, key: None })
            });
        }
        Self::of_allowed(token, allowed)
    }

    /// The wish of an extended CONNECT, if it is one that may be passed on.
    pub(super) fn of_connect(protocol: &str, allowed: &[String]) -> Option<Box<Self>> {
        let token = protocol.as_bytes();
        if !token.eq_ignore_ascii_case(WEBSOCKET) {
            return Self::of_allowed(token, allowed);
        }
        let mut nonce = [0; 16];
        // It proves that the answer is one to a handshake, and is no secret.
        let _known = aws_lc_rs::rand::fill(&mut nonce);
        let key = STANDARD.encode(nonce).into_bytes();
        let accept = Some(accept_of(&key));
        Some(Box::new(Upgrade { token: token.into(), accept, key: Some(key.into()) }))
    }

    /// A wish for a protocol that is configured.
    fn of_allowed(token: &[u8], allowed: &[String]) -> Option<Box<Self>> {
        let is_allowed = |name: &String| token.eq_ignore_ascii_case(name.as_bytes());
        let upgrade = Upgrade { token: token.into(), accept: None, key: None };
        allowed.iter().any(is_allowed).then(|| Box::new(upgrade))
    }

    /// That of a tunnel whose 101 an elder has checked.
    pub(super) fn arrive(token: &str, is_websocket: bool) -> Self {
        let accept = is_websocket.then(|| Box::from(&b""[..]));
        Upgrade { token: token.as_bytes().into(), accept, key: None }
    }

    /// The protocol, as the client spelled it.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// The key that is sent with it, where it is ours.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Whether it is for a WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.accept.is_some()
    }

    /// Whether a 101 is the answer to this wish; else what is wrong with it.
    pub(in crate::proxy) fn check(&self, head: &ResponseHead<'_, '_>) -> Result<(), &'static str> {
        if head.minor == 0 {
            return Err("101 in HTTP/1.0");
        }
        let mut connection = head.fields.iter().filter(|it| Name::of(it.name) == Name::Connection);
        let says =
            |field: &Field<'_>| tokens(field.value).any(|it| it.eq_ignore_ascii_case(b"upgrade"));
        if !connection.any(says) {
            return Err("101 without Connection: Upgrade");
        }
        let token = only(head.fields, Name::Upgrade).and_then(single);
        if !token.is_some_and(|token| token.eq_ignore_ascii_case(&self.token)) {
            return Err("101 for another protocol than was asked for");
        }
        if let Some(accept) = &self.accept {
            let hidden = |field: &Field<'_>| has_token(field.value, "sec-websocket-accept");
            if head.fields.iter().any(|it| Name::of(it.name) == Name::Connection && hidden(it)) {
                return Err("101 that names Sec-WebSocket-Accept in Connection");
            }
            let mut accepts = named(head.fields, "sec-websocket-accept");
            if accepts.next() != Some(accept) || accepts.next().is_some() {
                return Err("101 with a wrong Sec-WebSocket-Accept");
            }
        }
        Ok(())
    }
}

/// What proves that the key was read (RFC 6455 section 4.2.2).
fn accept_of(key: &[u8]) -> Box<[u8]> {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    STANDARD.encode(hash.as_ref()).into_bytes().into()
}

/// The value of the only field of this kind.
fn only<'b>(fields: &[Field<'b>], name: Name) -> Option<&'b [u8]> {
    let mut found = fields.iter().filter(|field| Name::of(field.name) == name);
    let (first, more) = (found.next()?, found.next());
    more.is_none().then_some(first.value)
}

/// The only member of a list.
fn single(list: &[u8]) -> Option<&[u8]> {
    let mut members = tokens(list);
    let (first, more) = (members.next()?, members.next());
    more.is_none().then_some(first)
}

fn named<'b>(fields: &[Field<'b>], name: &'static str) -> impl Iterator<Item = &'b [u8]> {
    let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| field.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        assert_eq!(&*accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
