//! WebSocket peers that are strict: a frame that RFC 6455 forbids fails the test, and
//! so does an octet behind a Close.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::Client;
use super::origin::{Next, OriginConn, Request};
use super::wire::{End, Head, Wire};

/// The key that every client sends.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A request for a WebSocket.
pub(crate) fn upgrade(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The proof for a key.
pub(crate) fn accept_of(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The last of its message.
    pub(crate) fin: bool,
    /// What it is.
    pub(crate) opcode: u8,
    /// Its payload, unmasked.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A whole message, or a control frame.
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
        Frame { fin: true, opcode, payload: payload.as_ref().to_vec() }
    }

    /// A Close with a code.
    pub(crate) fn close(code: u16) -> Frame {
        Frame::new(CLOSE, code.to_be_bytes())
    }

    /// The code of a Close.
    pub(crate) fn code(&self) -> Option<u16> {
        let code: [u8; 2] = self.payload.get(..2)?.try_into().ok()?;
        (self.opcode == CLOSE).then(|| u16::from_be_bytes(code))
    }

    /// Its octets, masked as a client has to.
    pub(crate) fn octets(&self, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut octets = vec![if self.fin { 0x80 } else { 0 } | self.opcode];
        match self.payload.len() {
            length @ 0..=125 => octets.push(bit | length as u8),
            length @ 126..=0xffff => {
                octets.push(bit | 126);
                octets.extend((length as u16).to_be_bytes());
            }
            length => {
                octets.push(bit | 127);
                octets.extend((length as u64).to_be_bytes());
            }
        }
        let key = [0x37, 0xfa, 0x21, 0x3d];
        if masked {
            octets.extend(key);
            octets.extend(self.payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
        } else {
            octets.extend(&self.payload);
        }
        octets
    }
}

/// Where frames come from.
pub(crate) trait Source {
    /// Reads just so many octets, or says how they ended before.
    fn exactly(&mut self, len: usize, into: &mut Vec<u8>) -> Result<(), End>;
}

impl Source for Wire {
    fn exactly(&mut self, len: usize, into: &mut Vec<u8>) -> Result<(), End> {
        Wire::exactly(self, len, into)
    }
}

/// Reads one frame; how the connection ended if none comes.
pub(crate) fn read(wire: &mut impl Source, masked: bool) -> Result<Frame, End> {
    let mut head = Vec::new();
    wire.exactly(2, &mut head)?;
    let (first, second) = (head[0], head[1]);
    assert_eq!(first & 0x70, 0, "reserved bits: {first:#x}");
    assert_eq!(second & 0x80 != 0, masked, "masked or not");
    let length = match second & 0x7f {
        126 => {
            wire.exactly(2, &mut head)?;
            usize::from(u16::from_be_bytes([head[2], head[3]]))
        }
        127 => {
            wire.exactly(8, &mut head)?;
            u64::from_be_bytes(head[2..10].try_into().expect("eight octets")) as usize
        }
        length => usize::from(length),
    };
    let mut key = Vec::new();
    if masked {
        wire.exactly(4, &mut key)?;
    }
    let mut payload = Vec::new();
    wire.exactly(length, &mut payload)?;
    if masked {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(octet, key)| *octet ^= key);
    }
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    assert!([0, TEXT, BINARY, CLOSE, PING, PONG].contains(&opcode), "opcode {opcode}");
    assert!(opcode < 8 || (fin && length <= 125), "a control frame of {length}, fin {fin}");
    Ok(Frame { fin, opcode, payload })
}

/// Whether octets begin with a whole frame of a server.
pub(crate) fn is_whole(octets: &[u8]) -> bool {
    let Some((_, rest)) = octets.split_first() else { return false };
    let Some((&length, rest)) = rest.split_first() else { return false };
    let (wide, length) = match length {
        126 => (2, rest.get(..2).map(|it| usize::from(u16::from_be_bytes([it[0], it[1]])))),
        127 => (8, rest.get(4..8).map(|it| u32::from_be_bytes([it[0], it[1], it[2], it[3]]) as _)),
        length => (0, Some(usize::from(length))),
    };
    length.is_some_and(|length| rest.len() >= wide + length)
}

/// A client that has a WebSocket.
pub(crate) struct Socket {
    /// Its wire.
    pub(crate) wire: Wire,
    /// The answer to its wish.
    pub(crate) head: Head,
}

impl Socket {
    /// Asks for one.
    ///
    /// # Panics
    /// If the answer is not the one of the RFC.
    pub(crate) fn open(client: Client, target: &str) -> Socket {
        let mut client = client;
        client.send(upgrade(target));
        Socket::opened(client)
    }

    /// Waits for the answer to a wish that was sent.
    pub(crate) fn opened(mut client: Client) -> Socket {
        let head = client.head();
        assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(head.field("upgrade"), Some("websocket"));
        assert!(head.lists("connection", "upgrade"));
        assert_eq!(head.field("sec-websocket-accept"), Some(&*accept_of(KEY)));
        Socket { wire: client.wire, head }
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.wire.send(&frame.octets(true)).expect("the proxy takes a frame");
    }

    /// Reads a frame; how the connection ended if none comes.
    pub(crate) fn read(&mut self) -> Result<Frame, End> {
        read(&mut self.wire, false)
    }

    /// Reads frames up to a Close, which must be the last thing that is said; its code,
    /// and the messages before it.
    pub(crate) fn read_to_close(&mut self) -> (Option<u16>, Vec<Frame>) {
        let mut before = Vec::new();
        loop {
            let frame = self.read().expect("a Close before the end");
            if frame.opcode == CLOSE {
                return (frame.code(), before);
            }
            before.push(frame);
        }
    }

    /// The end, with nothing before it.
    pub(crate) fn end(&mut self) -> End {
        let mut rest = Vec::new();
        let end = self.wire.until_end(&mut rest);
        assert!(rest.is_empty(), "{} octets behind the last", rest.len());
        end
    }

    /// Sends a message and waits for its echo.
    pub(crate) fn echo(&mut self, payload: impl AsRef<[u8]>) {
        let frame = Frame::new(BINARY, payload);
        self.send(&frame);
        assert_eq!(self.read(), Ok(frame));
    }
}

/// The head of the answer to a wish.
pub(crate) fn agree(request: &Request) -> String {
    assert!(request.head.lists("connection", "upgrade"), "{:?}", request.head);
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-version"), Some("13"));
    let accept = accept_of(request.field("sec-websocket-key").expect("a key"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// An app server that sends every frame back, answers a Close, and then reads to the
/// end: nothing may come behind a Close.
pub(crate) fn echo(conn: &mut OriginConn, request: &Request) -> Result<Next, End> {
    conn.send(agree(request))?;
    loop {
        let frame = read(conn.wire(), true)?;
        match frame.opcode {
            PING => conn.send(Frame::new(PONG, frame.payload).octets(false))?,
            PONG => {}
            CLOSE => {
                conn.send(frame.octets(false))?;
                return Ok(Next::Close);
            }
            _ => conn.send(frame.octets(false))?,
        }
    }
}
