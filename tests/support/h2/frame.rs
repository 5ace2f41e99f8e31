//! Frames: what a test sends, octet by octet as it likes, and what it receives,
//! taken apart (RFC 9113, sections 4.1 and 6).

use std::fmt;

/// What a client sends first (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The octets of a frame's head.
pub(crate) const HEAD: usize = 9;

/// Types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const NONE: u8 = 0;
    /// Of SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x1;
    /// Of DATA and HEADERS.
    pub(crate) const END_STREAM: u8 = 0x1;
    /// Of HEADERS, PUSH_PROMISE and CONTINUATION.
    pub(crate) const END_HEADERS: u8 = 0x4;
    /// Of DATA, HEADERS and PUSH_PROMISE.
    pub(crate) const PADDED: u8 = 0x8;
    /// Of HEADERS.
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Identifiers of settings.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
}

/// An error code, of RST_STREAM and GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const NO_ERROR: Code = Code(0x0);
    pub(crate) const PROTOCOL_ERROR: Code = Code(0x1);
    pub(crate) const INTERNAL_ERROR: Code = Code(0x2);
    pub(crate) const FLOW_CONTROL_ERROR: Code = Code(0x3);
    pub(crate) const SETTINGS_TIMEOUT: Code = Code(0x4);
    pub(crate) const STREAM_CLOSED: Code = Code(0x5);
    pub(crate) const FRAME_SIZE_ERROR: Code = Code(0x6);
    pub(crate) const REFUSED_STREAM: Code = Code(0x7);
    pub(crate) const CANCEL: Code = Code(0x8);
    pub(crate) const COMPRESSION_ERROR: Code = Code(0x9);
    pub(crate) const ENHANCE_YOUR_CALM: Code = Code(0xb);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

/// A frame as octets with a head: nothing here keeps it from being wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its type, of [`kind`] or none of them.
    pub(crate) kind: u8,
    /// Its flags, of [`flag`] or none of them.
    pub(crate) flags: u8,
    /// Its stream; bit 31 is the reserved one.
    pub(crate) stream: u32,
    /// What follows the head.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Any frame.
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    /// DATA.
    pub(crate) fn data(stream: u32, body: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::DATA, flag::NONE, stream, body)
    }

    /// HEADERS with a whole field block.
    pub(crate) fn headers(stream: u32, block: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::HEADERS, flag::END_HEADERS, stream, block)
    }

    /// HEADERS with the beginning of a field block.
    pub(crate) fn headers_begun(stream: u32, fragment: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::HEADERS, flag::NONE, stream, fragment)
    }

    /// CONTINUATION with the end of a field block.
    pub(crate) fn continuation(stream: u32, fragment: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, fragment)
    }

    /// CONTINUATION with a middle part of a field block.
    pub(crate) fn continuation_begun(stream: u32, fragment: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::CONTINUATION, flag::NONE, stream, fragment)
    }

    /// PRIORITY. `weight` is the octet on the wire, one less than the weight.
    pub(crate) fn priority(stream: u32, depends_on: u32, weight: u8) -> Frame {
        Frame::new(kind::PRIORITY, flag::NONE, stream, priority(depends_on, weight))
    }

    /// RST_STREAM.
    pub(crate) fn rst_stream(stream: u32, code: Code) -> Frame {
        Frame::new(kind::RST_STREAM, flag::NONE, stream, code.0.to_be_bytes())
    }

    /// SETTINGS.
    pub(crate) fn settings(values: &[(u16, u32)]) -> Frame {
        let octets = values.iter().flat_map(|(id, value)| {
            id.to_be_bytes().into_iter().chain(value.to_be_bytes()).collect::<Vec<u8>>()
        });
        Frame::new(kind::SETTINGS, flag::NONE, 0, octets.collect::<Vec<u8>>())
    }

    /// SETTINGS with ACK.
    pub(crate) fn settings_ack() -> Frame {
        Frame::new(kind::SETTINGS, flag::ACK, 0, [])
    }

    /// PING.
    pub(crate) fn ping(opaque: [u8; 8]) -> Frame {
        Frame::new(kind::PING, flag::NONE, 0, opaque)
    }

    /// PING with ACK.
    pub(crate) fn pong(opaque: [u8; 8]) -> Frame {
        Frame::new(kind::PING, flag::ACK, 0, opaque)
    }

    /// GOAWAY.
    pub(crate) fn goaway(last: u32, code: Code, debug: &[u8]) -> Frame {
        let octets = [&last.to_be_bytes()[..], &code.0.to_be_bytes(), debug].concat();
        Frame::new(kind::GOAWAY, flag::NONE, 0, octets)
    }

    /// WINDOW_UPDATE.
    pub(crate) fn window_update(stream: u32, by: u32) -> Frame {
        Frame::new(kind::WINDOW_UPDATE, flag::NONE, stream, by.to_be_bytes())
    }

    /// PUSH_PROMISE with a whole field block.
    pub(crate) fn push_promise(stream: u32, promised: u32, block: &[u8]) -> Frame {
        let octets = [&promised.to_be_bytes()[..], block].concat();
        Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, stream, octets)
    }

    /// The same with more flags.
    pub(crate) fn with(mut self, flags: u8) -> Frame {
        self.flags |= flags;
        self
    }

    /// The same with END_STREAM.
    pub(crate) fn end(self) -> Frame {
        self.with(flag::END_STREAM)
    }

    /// The same with END_STREAM or not.
    pub(crate) fn end_if(self, end: bool) -> Frame {
        if end { self.end() } else { self }
    }

    /// The same with the reserved bit set.
    pub(crate) fn reserved(mut self) -> Frame {
        self.stream |= 1 << 31;
        self
    }

    /// The same with padding of so many octets.
    pub(crate) fn padded(self, padding: u8) -> Frame {
        let mut payload = vec![padding];
        payload.extend(&self.payload);
        payload.resize(payload.len() + usize::from(padding), 0);
        Frame { payload, ..self }.with(flag::PADDED)
    }

    /// HEADERS with the priority fields of RFC 7540.
    pub(crate) fn prioritised(self, depends_on: u32, weight: u8) -> Frame {
        let payload = [&priority(depends_on, weight)[..], &self.payload].concat();
        Frame { payload, ..self }.with(flag::PRIORITY)
    }

    /// The octets on the wire.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let len = u32::try_from(self.payload.len()).expect("a length");
        let mut octets = Vec::with_capacity(HEAD + self.payload.len());
        octets.extend(&len.to_be_bytes()[1..]);
        octets.extend([self.kind, self.flags]);
        octets.extend(self.stream.to_be_bytes());
        octets.extend(&self.payload);
        octets
    }

    /// Takes the first frame off `octets`, when it is there as a whole.
    pub(crate) fn take(octets: &mut Vec<u8>) -> Option<Frame> {
        let head = octets.get(..HEAD)?;
        let len = number(&[0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = number(&head[5..]) & !(1 << 31);
        if octets.len() < HEAD + len {
            return None;
        }
        let payload = octets[HEAD..HEAD + len].to_vec();
        octets.drain(..HEAD + len);
        Some(Frame { kind, flags, stream, payload })
    }

    /// Whether it has all these flags.
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// What is left of the payload without padding and priority fields.
    ///
    /// # Panics
    /// When there is more padding than payload.
    pub(crate) fn content(&self) -> &[u8] {
        let mut content = &self.payload[..];
        if matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(flag::PADDED) {
            let padding = usize::from(content[0]);
            content = &content[1..content.len() - padding];
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = &content[5..];
        }
        content
    }
}

/// The priority fields of RFC 7540: dependency and weight.
fn priority(depends_on: u32, weight: u8) -> [u8; 5] {
    let [a, b, c, d] = depends_on.to_be_bytes();
    [a, b, c, d, weight]
}

/// The bit before a stream that makes a dependency exclusive.
pub(crate) const EXCLUSIVE: u32 = 1 << 31;

/// A number of four octets.
pub(crate) fn number(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().expect("four octets"))
}

/// Header or trailer fields, in order.
pub(crate) type Fields = Vec<(String, String)>;

/// A frame as it was received and understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// DATA, with the octets that count for flow control.
    Data { stream: u32, body: Vec<u8>, counted: usize, end: bool },
    /// HEADERS with its CONTINUATIONs, decoded.
    Headers { stream: u32, fields: Fields, end: bool },
    /// RST_STREAM.
    Reset { stream: u32, code: Code },
    /// SETTINGS without ACK.
    Settings { values: Vec<(u16, u32)> },
    /// SETTINGS with ACK.
    SettingsAck,
    /// PING without ACK.
    Ping { opaque: [u8; 8] },
    /// PING with ACK.
    Pong { opaque: [u8; 8] },
    /// GOAWAY.
    Goaway { last: u32, code: Code, debug: Vec<u8> },
    /// WINDOW_UPDATE.
    WindowUpdate { stream: u32, by: u32 },
    /// Any other.
    Other(Frame),
}

impl Got {
    /// Takes apart a frame that is no HEADERS.
    ///
    /// # Panics
    /// When the frame has a length or a stream that its type forbids.
    pub(crate) fn of(frame: Frame) -> Got {
        let Frame { stream, ref payload, .. } = frame;
        let len = payload.len();
        let connection = matches!(frame.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let either = frame.kind >= kind::WINDOW_UPDATE;
        assert!(either || connection == (stream == 0), "the wrong stream: {frame:?}");
        match frame.kind {
            kind::DATA => {
                let body = frame.content().to_vec();
                Got::Data { stream, body, counted: len, end: frame.has(flag::END_STREAM) }
            }
            kind::RST_STREAM if len == 4 => Got::Reset { stream, code: Code(number(payload)) },
            kind::SETTINGS if frame.has(flag::ACK) && len == 0 => Got::SettingsAck,
            kind::SETTINGS if !frame.has(flag::ACK) && len.is_multiple_of(6) => {
                let values = payload
                    .chunks(6)
                    .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), number(&pair[2..])));
                Got::Settings { values: values.collect() }
            }
            kind::PING if len == 8 => {
                let opaque = payload[..].try_into().expect("eight octets");
                if frame.has(flag::ACK) { Got::Pong { opaque } } else { Got::Ping { opaque } }
            }
            kind::GOAWAY if len >= 8 => Got::Goaway {
                last: number(payload) & !(1 << 31),
                code: Code(number(&payload[4..])),
                debug: payload[8..].to_vec(),
            },
            kind::WINDOW_UPDATE if len == 4 => {
                Got::WindowUpdate { stream, by: number(payload) & !(1 << 31) }
            }
            known if known <= kind::CONTINUATION => panic!("a frame that is wrong: {frame:?}"),
            _ => Got::Other(frame),
        }
    }
}
