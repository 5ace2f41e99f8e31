//! The bodies of the fuzz targets, here so that they cannot rot: whatever comes
//! in, what goes out can be read in one way only.

use std::time::{Instant, SystemTime};

use super::request::{
    Arrival, Origin, Request, RequestIds, Rules, plan, plan_connect, plan_stream,
};
use super::response::{Outgoing, Persistence, UPGRADE_REQUIRED, look, outgoing, write};
use super::{Protocol, Stamp};
use crate::config::{Forwarding, Network, ProxyProtocol, Trusted, Underscores};
use crate::http1::field::{Name, has_token};
use crate::http1::framing::FramingFields;
use crate::http1::head::{has_bare_lf, parse_request, parse_response, storage};
use crate::http1::{Field, Framing, RequestHead};

/// The first octet chooses how requests are forwarded, the rest is a request:
/// its octets in HTTP/1, and as fields of HTTP/2, also of an extended CONNECT.
pub fn forwarded(octets: &[u8]) {
    let Some((&choice, octets)) = octets.split_first() else { return };
    let bit = |n: u8| choice >> n & 1 == 1;
    let underscores = [Underscores::Drop, Underscores::Refuse, Underscores::Pass];
    let forwarding = Forwarding {
        via: bit(0),
        forwarded: bit(1),
        underscores: underscores[usize::from(choice >> 3) % 3],
        proxy_protocol: ProxyProtocol::Off,
    };
    let base = std::net::Ipv4Addr::new(10, 0, 0, 0).to_ipv6_mapped().to_bits();
    let trusted = Trusted::new(vec![Network::Addresses { base, bits: 104 }]);
    let origin = Origin { client: "10.0.0.9", port: 80, scheme: "https", trusted: bit(2) };
    let upgrades = [String::from("raw")];
    let rules = Rules {
        origin,
        forwarding: &forwarding,
        trusted: &trusted,
        upgrades: &upgrades,
        ids: &RequestIds::new(),
    };
    let arrival = Arrival { began: Instant::now(), wall: SystemTime::now() };
    let mut fields = storage();
    let Ok(Some(head)) = parse_request(octets, &mut fields) else { return };
    if has_bare_lf(&octets[..head.len]) {
        return;
    }
    if let Ok(request) = plan(&head, &rules, "app:1", arrival, Vec::new()) {
        assert_one_reading(&request, head.method, underscores_pass(&forwarding));
    }
    let names: Vec<String> = head.fields.iter().map(|f| f.name.to_ascii_lowercase()).collect();
    let values = head.fields.iter().map(|field| field.value);
    let lower: Vec<Field<'_>> =
        names.iter().zip(values).map(|(name, value)| Field { name, value }).collect();
    let head = RequestHead { fields: &lower, minor: 1, ..head };
    for (authority, ended) in [(None, true), (Some("app.test"), false)] {
        if let Ok(request) = plan_stream(&head, authority, ended, &rules, arrival, Vec::new()) {
            assert_one_reading(&request, head.method, underscores_pass(&forwarding));
        }
    }
    for protocol in ["WebSocket", "raw", "other", "h2c"] {
        let planned = plan_connect(&head, protocol, Some("app.test"), &rules, arrival, Vec::new());
        if let Ok(request) = planned {
            assert!(matches!(protocol, "WebSocket" | "raw"));
            assert_one_reading(&request, "GET", underscores_pass(&forwarding));
        }
    }
}

fn underscores_pass(forwarding: &Forwarding) -> bool {
    forwarding.underscores == Underscores::Pass
}

/// The head for the app server is one head, says how long its body is at most
/// once, and says nothing that only we may say twice.
fn assert_one_reading(request: &Request, method: &str, underscores: bool) {
    let written = &request.head;
    assert_eq!(memchr::memmem::find(written, b"\r\n\r\n").map(|at| at + 4), Some(written.len()));
    assert!(!has_bare_lf(written));
    let crs = memchr::memchr_iter(b'\r', written).all(|at| written[at + 1] == b'\n');
    assert!(crs && !written.contains(&0), "a line that others end elsewhere");
    let mut fields = storage();
    let head = parse_request(written, &mut fields).ok().flatten();
    let Some(head) = head else { unreachable!("we cannot read what we have written") };
    assert_eq!((head.minor, head.method), (1, method));
    assert!(head.target.starts_with('/') || head.target == "*");
    let mut framing = FramingFields::default();
    let mut count = [0; 7];
    for field in head.fields {
        let name = Name::of(field.name);
        framing.note(name, field);
        let slot = match name {
            Name::Host => 0,
            Name::ContentLength | Name::TransferEncoding => 1,
            Name::XRequestId => 2,
            Name::XForwardedFor => 3,
            Name::XRealIp => 4,
            Name::XForwardedProto => 5,
            Name::Upgrade if request.is_connect() => 6,
            Name::HopByHop | Name::Upgrade => unreachable!("hop-by-hop: {}", field.name),
            Name::Connection if request.is_connect() => {
                assert!(matches!(field.value, b"Upgrade" | b"Upgrade, TE"));
                continue;
            }
            Name::Connection => {
                assert_eq!(field.value, b"TE");
                continue;
            }
            Name::Underscored => {
                assert!(underscores && Name::folded(field.name) == Name::Other);
                continue;
            }
            _ => continue,
        };
        count[slot] += 1;
    }
    assert!(count[0] == 1 && count[2..6] == [1, 1, 1, 1] && count[1] <= 1, "{count:?}");
    assert_eq!(count[6] == 1, request.is_connect(), "{count:?}");
    assert_eq!(framing.request(1).ok(), Some(request.framing), "framed as we frame it");
}

/// Any octets as a response, for a client of each protocol.
pub fn answered(octets: &[u8]) {
    let mut fields = storage();
    let Ok(Some(head)) = parse_response(octets, &mut fields) else { return };
    for is_head in [false, true] {
        let Ok(seen) = look(&head, is_head) else { continue };
        for protocol in [Protocol::Http10, Protocol::Http11] {
            let (outgoing, until_close) = outgoing(seen.framing, protocol);
            let mut written = Vec::new();
            let how = (outgoing, Persistence::Close);
            write(&head, &seen, is_head, how, &Stamp::new(true), &mut written);
            assert!(!has_bare_lf(&written) && !written.contains(&0));
            let mut fields = storage();
            let again = parse_response(&written, &mut fields).ok().flatten();
            let Some(again) = again else { unreachable!("we cannot read what we have written") };
            assert_eq!((again.len, again.status), (written.len(), head.status));
            let closes = |field: &Field<'_>| has_token(field.value, "close");
            let connection = |field: &&Field<'_>| Name::of(field.name) == Name::Connection;
            // A 426 says besides what it requires.
            let required =
                |field: &Field<'_>| head.status == UPGRADE_REQUIRED && field.value == b"Upgrade";
            let said = |field: &Field<'_>| closes(field) || required(field);
            assert!(again.fields.iter().filter(connection).all(said));
            assert!(head.status < 200 || again.fields.iter().filter(connection).any(closes));
            if head.status < 200 {
                continue;
            }
            let framed = look(&again, is_head).map(|seen| seen.framing);
            let expected = match (seen.framing, outgoing) {
                (_, Outgoing::Wrap | Outgoing::Chunks) => Framing::Chunked,
                _ if until_close => Framing::UntilClose,
                (framing, _) => framing,
            };
            assert_eq!(framed, Ok(expected));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_bodies_hold_on_their_seeds() {
        let request = b"POST /a?b HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 10.1.1.1\r\n\
            Transfer-Encoding: chunked\r\nmy_key: 1\r\nTE: trailers\r\nConnection: my_key\r\n\r\n";
        let wish = b"GET /a HTTP/1.1\r\nHost: app.test\r\nSec-WebSocket-Version: 13\r\n\
            TE: trailers\r\nmy_key: 1\r\nOrigin: a\r\n\r\n";
        for choice in 0..=32 {
            super::forwarded(&[&[choice], &request[..]].concat());
            super::forwarded(&[&[choice], &wish[..]].concat());
        }
        for response in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"[..],
            b"HTTP/1.0 200 OK\r\nA : b\r\n\r\n",
            b"HTTP/1.1 304 \r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
            b"HTTP/1.1 426 No\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            b"",
        ] {
            super::answered(response);
        }
    }
}
