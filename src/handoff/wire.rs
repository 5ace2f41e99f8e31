//! A message as a packet: a fixed head, JSON, octets.
//!
//! | octets | |
//! | --- | --- |
//! | 2 | `EH` |
//! | 1 | the version of the messages |
//! | 1 | how many descriptors come with it |
//! | 4, 4 | the length of the JSON and of the octets behind it, little-endian |
//!
//! Whatever a packet says of itself is checked here, so that nobody behind it has to.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::message::{Message, VERSION};
use super::moved::Moved;
use crate::limits::{HANDOFF_FDS_MAX, HANDOFF_MESSAGE_MAX};

/// The length of the fixed head.
pub const HEAD: usize = 12;
const MAGIC: &[u8; 2] = b"EH";

const _: () = assert!(VERSION <= u8::MAX as u32 && HANDOFF_FDS_MAX <= u8::MAX as usize);

/// Why a packet is refused, as it is shown to a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) String);

fn malformed<T>(text: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(text.into()))
}

/// The head and the JSON of a packet; the octets belong behind them.
///
/// # Errors
///
/// If it would not be taken: it is too long, or does not fit its descriptors or octets.
pub fn encode(message: &Message, fds: usize, octets: usize) -> Result<Vec<u8>, Malformed> {
    check(message, fds, octets)?;
    let mut packet = vec![0; HEAD];
    if let Err(error) = serde_json::to_writer(&mut packet, message) {
        return malformed(format!("a message cannot be written: {error}"));
    }
    let json = packet.len() - HEAD;
    if packet.len() + octets > HANDOFF_MESSAGE_MAX {
        return malformed(format!(
            "a message of {} octets is longer than {HANDOFF_MESSAGE_MAX}",
            packet.len() + octets
        ));
    }
    packet[..2].copy_from_slice(MAGIC);
    packet[2] = u8::try_from(VERSION).unwrap_or_default();
    packet[3] = u8::try_from(fds).unwrap_or_default();
    packet[4..8].copy_from_slice(&little(json));
    packet[8..HEAD].copy_from_slice(&little(octets));
    Ok(packet)
}

/// The message of a packet that came with so many descriptors, and where its octets begin.
///
/// # Errors
///
/// Anything that is not exactly a message of our version.
pub fn decode(packet: &[u8], fds: usize) -> Result<(Message, usize), Malformed> {
    if packet.len() > HANDOFF_MESSAGE_MAX {
        return malformed(format!("a message is longer than {HANDOFF_MESSAGE_MAX} octets"));
    }
    let Some((head, rest)) = packet.split_at_checked(HEAD) else {
        return malformed("a message is shorter than its head");
    };
    if &head[..2] != MAGIC {
        return malformed("this is no handoff: the other side speaks something else");
    }
    if u32::from(head[2]) != VERSION {
        return malformed(format!(
            "the other process speaks version {} of the handoff, this one version {VERSION}",
            head[2]
        ));
    }
    if usize::from(head[3]) != fds {
        return malformed(format!("{} descriptors were sent, {fds} have come", head[3]));
    }
    let (json, octets) = (length(&head[4..8]), length(&head[8..]));
    if json.checked_add(octets) != Some(rest.len()) {
        return malformed(format!(
            "a message says {json} + {octets} octets and has {}",
            rest.len()
        ));
    }
    let message = parse(&rest[..json])?;
    check(&message, fds, octets)?;
    Ok((message, HEAD + json))
}

fn little(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or_default().to_le_bytes()
}

fn length(octets: &[u8]) -> usize {
    octets.iter().rev().fold(0, |length, octet| length << 8 | usize::from(*octet))
}

fn parse(json: &[u8]) -> Result<Message, Malformed> {
    let message: Message = match serde_json::from_slice(json) {
        Ok(message) => message,
        Err(error) => return malformed(format!("a message is not understood: {error}")),
    };
    // Of a message without fields, serde refuses none.
    if !message.has_fields() {
        let fields: BTreeMap<String, IgnoredAny> = serde_json::from_slice(json).unwrap_or_default();
        if let Some(field) = fields.keys().find(|name| *name != "type") {
            return malformed(format!("a message is not understood: unknown field `{field}`"));
        }
    }
    Ok(message)
}

/// That descriptors and octets are what the message says.
fn check(message: &Message, fds: usize, octets: usize) -> Result<(), Malformed> {
    let (wanted_fds, wanted_octets) = match message {
        Message::Sockets { sockets, .. } => (sockets.len(), 0),
        Message::Connections { connections, .. } => {
            let mut octets = 0_usize;
            for moved in connections {
                octets = octets.saturating_add(octets_of(moved)?);
            }
            (connections.iter().map(Moved::descriptors).sum(), octets)
        }
        _ => (0, 0),
    };
    if wanted_fds > HANDOFF_FDS_MAX {
        return malformed(format!("a message has {wanted_fds} descriptors: too many"));
    }
    if wanted_fds != fds {
        return malformed(format!("a message is about {wanted_fds} descriptors and has {fds}"));
    }
    if wanted_octets != octets {
        return malformed(format!("a message is about {wanted_octets} octets and has {octets}"));
    }
    Ok(())
}

fn octets_of(moved: &Moved) -> Result<usize, Malformed> {
    if let Some(tunnel) = &moved.tunnel
        && tunnel.octets() != Some(moved.octets)
    {
        return malformed(format!(
            "a tunnel holds {} and {} octets, with its texts, and comes with {}",
            tunnel.up.held, tunnel.down.held, moved.octets
        ));
    }
    Ok(usize::try_from(moved.octets).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::message::{Given, GivenKind, Keeper, State, Ticket, Welcome};
    use super::super::moved::tests::{connection, tunnel};
    use super::*;

    fn packet(message: &Message, fds: usize, octets: &[u8]) -> Vec<u8> {
        let mut packet = encode(message, fds, octets.len()).unwrap();
        packet.extend_from_slice(octets);
        packet
    }

    fn raw(version: u8, fds: u8, json: &str, octets: &[u8]) -> Vec<u8> {
        let mut packet = vec![b'E', b'H', version, fds];
        packet.extend_from_slice(&little(json.len()));
        packet.extend_from_slice(&little(octets.len()));
        packet.extend_from_slice(json.as_bytes());
        packet.extend_from_slice(octets);
        packet
    }

    #[track_caller]
    fn refused(packet: &[u8], fds: usize, why: &str) {
        let Malformed(text) = decode(packet, fds).unwrap_err();
        assert!(text.contains(why), "{text}");
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let counted = vec![(1, [("requests".to_owned(), u64::MAX)].into())];
        let tickets = vec![Ticket { name: [7; 16], secret: [255; 32], since: 1 << 40 }];
        let given = Given {
            kind: GivenKind::Listener,
            name: "127.0.0.1:0".to_owned(),
            keeper: Some(Keeper::Store),
            file: Some((u64::MAX, 7)),
        };
        let names = vec!["unix:/run/\u{e4}.sock".to_owned()];
        for (message, fds, octets) in [
            (Message::Hello { protocol: 1, version: "0.1.0".to_owned(), pid: 7 }, 0, &b""[..]),
            (
                Message::Welcome(Welcome { protocol: 1, generation: 2, pid: 1, tickets, counted }),
                0,
                b"",
            ),
            (Message::Sockets { batch: 1, sockets: vec![given] }, 1, b""),
            (Message::Begin, 0, b""),
            (Message::Ack { batch: u64::MAX }, 0, b""),
            (Message::Ready { released: names.clone(), unclaimed: vec![GivenKind::Admin] }, 0, b""),
            (Message::Failed { error: "\"\0\n".to_owned() }, 0, b""),
            (Message::Go { counted: Vec::new(), elders: Vec::new() }, 0, b""),
            (Message::Refused { error: String::new() }, 0, b""),
            (Message::Serving, 0, b""),
            (
                Message::Connections { batch: 2, connections: vec![connection(3), tunnel(1, 2)] },
                3,
                b"abcdef",
            ),
            (Message::Release { names: names.clone() }, 0, b""),
            (Message::Released { names }, 0, b""),
            (Message::Leave, 0, b""),
            (Message::Here { pid: 9, generation: 3 }, 0, b""),
            (Message::Hold, 0, b""),
            (Message::Main, 0, b""),
            (Message::State(State::default()), 0, b""),
            (Message::Kept { error: "x".to_owned() }, 0, b""),
            (Message::Bye(State { deadline_ms: Some(3), ..State::default() }), 0, b""),
        ] {
            let whole = packet(&message, fds, octets);
            let (back, at) = decode(&whole, fds).unwrap();
            assert_eq!(back, message);
            assert_eq!(&whole[at..], octets);
            let fd_count = u8::try_from(fds).unwrap();
            let json = String::from_utf8(whole[HEAD..at].to_vec()).unwrap();
            let more = json.replacen('{', r#"{"zz":1,"#, 1);
            refused(&raw(1, fd_count, &more, octets), fds, "unknown field `zz`");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        refused(&raw(2, 0, r#"{"type":"begin"}"#, b""), 0, "speaks version 2 of the handoff");
        refused(&raw(1, 0, r#"{"type":"fly"}"#, b""), 0, "unknown variant `fly`");
        refused(&raw(1, 0, r#"{"type":"ack","batch":1,"x":2}"#, b""), 0, "unknown field `x`");
        refused(&raw(1, 0, r#"{"type":"begin","x":2}"#, b""), 0, "unknown field `x`");
        refused(&raw(1, 0, r#"{"type":"bye","generation":1,"zz":2}"#, b""), 0, "`zz`");
        refused(&raw(1, 0, r#"{"type":"ack"}"#, b""), 0, "missing field `batch`");
        let kind = r#"{"type":"sockets","batch":1,"sockets":[{"kind":"pipe","name":""}]}"#;
        refused(&raw(1, 1, kind, b""), 1, "unknown variant `pipe`");
    }

    #[test]
    fn lengths_are_not_believed() {
        let whole = packet(&Message::Begin, 0, b"");
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut], 0).is_err(), "{cut}");
        }
        let longer = [whole.as_slice(), b" "].concat();
        refused(&longer, 0, "16 + 0 octets and has 17");
        let mut huge = whole.clone();
        huge[8..12].copy_from_slice(&[255; 4]);
        refused(&huge, 0, "octets and has 16");
        refused(&vec![b'E'; HANDOFF_MESSAGE_MAX + 1], 0, "longer than");
        refused(b"GET / HTTP/1.1\r\n\r\n", 0, "no handoff");
        let error = "x".repeat(HANDOFF_MESSAGE_MAX);
        assert!(encode(&Message::Failed { error }, 0, 0).is_err());
    }

    #[test]
    fn descriptors_and_octets_are_those_that_the_message_says() {
        refused(&raw(1, 1, r#"{"type":"begin"}"#, b""), 1, "about 0 descriptors and has 1");
        refused(&raw(1, 1, r#"{"type":"begin"}"#, b""), 0, "1 descriptors were sent, 0 have come");
        refused(&raw(1, 0, r#"{"type":"begin"}"#, b"x"), 0, "about 0 octets and has 1");
        let message = |moved| Message::Connections { batch: 1, connections: vec![moved] };
        assert!(encode(&message(connection(3)), 1, 2).is_err());
        assert!(encode(&message(connection(3)), 2, 3).is_err());
        assert!(encode(&message(tunnel(1, 2)), 1, 3).is_err());
        let mut wrong = tunnel(1, 2);
        wrong.octets = 4;
        assert!(encode(&message(wrong.clone()), 2, 4).is_err());
        wrong.octets = u32::MAX;
        let json = serde_json::to_string(&message(wrong)).unwrap();
        refused(&raw(1, 2, &json, b""), 2, "a tunnel holds 1 and 2 octets");
        let many = Message::Connections { batch: 1, connections: vec![connection(0); 254] };
        assert!(encode(&many, 254, 0).is_err());
    }
}
