//! The handshake and the messages, as octets.
//!
//! A client has to mask its frames, but may choose the key: with one of zeros the payload
//! stands in its frame as it is, so that neither end does work that no proxy does.

use crate::support::Error;

/// The one wish for a WebSocket: every client has the key of the RFC's example.
pub(crate) const WISH: &[u8] = b"GET /echo HTTP/1.1\r\nHost: cost.example\r\nUser-Agent: cost\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The proof for that key.
pub(crate) const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What an application answers to the wish.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const KEY: [u8; 4] = [0; 4];

/// The head of a binary message in one frame, with its key if it is a client's.
pub(crate) fn head(payload: usize, is_masked: bool) -> Vec<u8> {
    let mut octets = vec![BINARY];
    match payload {
        length @ 0..=125 => octets.push(length as u8),
        length @ 126..=0xffff => {
            octets.push(126);
            octets.extend((length as u16).to_be_bytes());
        }
        length => {
            octets.push(127);
            octets.extend((length as u64).to_be_bytes());
        }
    }
    if is_masked {
        octets[1] |= MASKED;
        octets.extend(KEY);
    }
    octets
}

/// The lengths of head and payload of the client's frame that `octets` begin with, once
/// its head is whole.
pub(super) fn parse(octets: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let Some([first, second]) = octets.first_chunk() else { return Ok(None) };
    let (head, payload) = match second & !MASKED {
        126 => (8, octets.get(2..4).map(|it| usize::from(it[0]) << 8 | usize::from(it[1]))),
        127 => (
            14,
            octets.get(2..10).map(|it| it.iter().fold(0, |all, &it| all << 8 | usize::from(it))),
        ),
        length => (6, Some(usize::from(length))),
    };
    let (Some(payload), Some(key)) = (payload, octets.get(head - 4..head)) else {
        return Ok(None);
    };
    if *first != BINARY || second & MASKED == 0 || key != KEY {
        return Err("a frame that no client has sent".into());
    }
    Ok(Some((head, payload)))
}
