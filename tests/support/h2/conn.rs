//! The connection: octets and frames both ways, and the book of what came.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::exchange::Response;
use super::frame::{Code, Frame, Got, HEAD, PREFACE, flag, kind, number, setting};
use super::hpack::Decoder;
use super::link::{self, Link};
use crate::support::PATIENCE;
use crate::support::wire::{End, Place};

/// What the client does by itself while it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Auto {
    /// Acknowledge PING.
    pub(crate) ping: bool,
    /// Acknowledge SETTINGS.
    pub(crate) settings: bool,
    /// Give back the windows that DATA has used.
    pub(crate) window: bool,
}

/// A GOAWAY that was received.
#[derive(Clone, Debug)]
pub(crate) struct Goaway {
    /// The last stream that the server says it may act on.
    pub(crate) last: u32,
    /// Why.
    pub(crate) code: Code,
    /// What else it says.
    pub(crate) debug: Vec<u8>,
    /// When it was read.
    pub(crate) at: Instant,
}

/// A stream in the book.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) response: Response,
    /// What was sent against the window, less what the server gave back.
    pub(super) sent: i64,
}

/// One connection.
pub(crate) struct H2 {
    link: Box<dyn Link>,
    ahead: Vec<u8>,
    /// HEADERS that wait for their CONTINUATIONs.
    begun: Option<Frame>,
    decoder: Decoder,
    /// What it does by itself; a test may change it at any time.
    pub(crate) auto: Auto,
    /// What `:authority` says.
    pub(crate) authority: String,
    pub(super) next_stream: u32,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// What DATA may still be sent on the connection.
    pub(super) window: i64,
    /// What the server may still send on the connection.
    allowed: i64,
    peer: BTreeMap<u16, u32>,
    goaways: Vec<Goaway>,
    pings: Vec<[u8; 8]>,
    pub(super) pongs: Vec<[u8; 8]>,
    pub(super) settings_acks: usize,
    write_end: Option<End>,
    end: Option<End>,
    unclean: bool,
    story: VecDeque<String>,
}

impl H2 {
    /// Connects in clear text with prior knowledge, and exchanges SETTINGS.
    ///
    /// # Panics
    /// When nobody accepts, or the server does not begin as it has to.
    #[track_caller]
    pub(crate) fn connect(place: &Place) -> H2 {
        let mut h2 = H2::bare(place);
        h2.handshake(&[]);
        h2
    }

    /// Connects over TLS with ALPN, and exchanges SETTINGS.
    ///
    /// # Panics
    /// As [`H2::connect`].
    #[track_caller]
    pub(crate) fn connect_tls(place: &Place) -> H2 {
        let mut h2 = H2::bare_tls(place);
        h2.handshake(&[]);
        h2
    }

    /// A clear text connection on which nothing is said yet.
    pub(crate) fn bare(place: &Place) -> H2 {
        H2::over(Box::new(link::clear(place)))
    }

    /// A TLS connection, its handshake done, on which nothing is said yet.
    pub(crate) fn bare_tls(place: &Place) -> H2 {
        H2::over(Box::new(link::encrypted(link::clear(place))))
    }

    /// As [`H2::bare`], with a receive buffer of about so many octets.
    pub(crate) fn bare_narrow(place: &Place, octets: usize) -> H2 {
        H2::over(Box::new(link::narrow(place, octets)))
    }

    /// As [`H2::bare_tls`], with a receive buffer of about so many octets.
    pub(crate) fn bare_tls_narrow(place: &Place, octets: usize) -> H2 {
        H2::over(Box::new(link::encrypted(link::narrow(place, octets))))
    }

    /// Any connection on which nothing is said yet.
    pub(crate) fn over(link: Box<dyn Link>) -> H2 {
        H2 {
            link,
            ahead: Vec::new(),
            begun: None,
            decoder: Decoder::new(),
            auto: Auto { ping: true, settings: true, window: true },
            authority: "app.test".to_owned(),
            next_stream: 1,
            streams: BTreeMap::new(),
            window: 65_535,
            allowed: 65_535,
            peer: BTreeMap::new(),
            goaways: Vec::new(),
            pings: Vec::new(),
            pongs: Vec::new(),
            settings_acks: 0,
            write_end: None,
            end: None,
            unclean: false,
            story: VecDeque::new(),
        }
    }

    /// Sends preface and SETTINGS, and waits for the server's SETTINGS and its ACK.
    #[track_caller]
    pub(crate) fn handshake(&mut self, settings: &[(u16, u32)]) {
        self.octets(PREFACE);
        self.send(&Frame::settings(settings));
        let first = self.next_frame();
        assert!(matches!(first, Ok(Got::Settings { .. })), "SETTINGS first, not {first:?}");
        self.wait_settings_ack();
    }

    /// Sends octets. That the connection takes no more is no failure yet: what the
    /// server had to say is still to be read.
    pub(crate) fn octets(&mut self, octets: &[u8]) -> &mut H2 {
        if self.write_end.is_none() {
            let sent = self.link.write_all(octets).and_then(|()| self.link.flush());
            self.write_end = sent.err().map(|error| End::of(&error));
        }
        self
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &Frame) -> &mut H2 {
        self.send_all(std::slice::from_ref(frame))
    }

    /// Sends frames in one piece.
    pub(crate) fn send_all(&mut self, frames: &[Frame]) -> &mut H2 {
        let mut octets = Vec::new();
        for frame in frames {
            self.tell("->", &brief(frame));
            let len = frame.payload.len();
            match frame.kind {
                kind::DATA => {
                    self.window -= len as i64;
                    self.streams.entry(frame.stream).or_default().sent += len as i64;
                }
                kind::WINDOW_UPDATE if frame.stream == 0 && len == 4 => {
                    self.allowed += i64::from(number(&frame.payload));
                }
                kind::SETTINGS if !frame.has(flag::ACK) => {
                    let most = frame.payload.chunks_exact(6).find(|pair| pair[..2] == [0, 1]);
                    let most = most.map_or(0, |pair| number(&pair[2..]) as usize);
                    self.decoder.most = self.decoder.most.max(most);
                }
                _ => {}
            }
            octets.extend(frame.octets());
        }
        self.octets(&octets)
    }

    /// The scheme of requests over this connection.
    pub(crate) fn scheme(&self) -> &'static str {
        self.link.scheme()
    }

    /// What the server has set, or what holds without (RFC 9113, section 6.5.2).
    pub(crate) fn peer(&self, id: u16) -> Option<u32> {
        let initial = match id {
            setting::HEADER_TABLE_SIZE => Some(4096),
            setting::ENABLE_PUSH => Some(1),
            setting::INITIAL_WINDOW_SIZE => Some(65_535),
            setting::MAX_FRAME_SIZE => Some(16_384),
            _ => None,
        };
        self.peer.get(&id).copied().or(initial)
    }

    /// Every GOAWAY so far.
    pub(crate) fn goaways(&self) -> &[Goaway] {
        &self.goaways
    }

    /// The PINGs so far that were not acknowledged; see [`Auto::ping`].
    pub(crate) fn pings(&self) -> &[[u8; 8]] {
        &self.pings
    }

    /// Acknowledges the oldest PING that waits for it.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn pong(&mut self) {
        let opaque = self.pings.remove(0);
        self.send(&Frame::pong(opaque));
    }

    /// How the connection ended, once that was read.
    pub(crate) fn ended(&self) -> Option<End> {
        self.end
    }

    /// Whether TLS ended without close_notify.
    pub(crate) fn is_unclean(&self) -> bool {
        self.unclean
    }

    /// The next frame, its effect noted; or how the connection ended.
    pub(crate) fn next_frame(&mut self) -> Result<Got, End> {
        self.next_within(PATIENCE)
    }

    /// The next frame within `bound`.
    ///
    /// # Panics
    /// When the server sends what no server may.
    pub(crate) fn next_within(&mut self, bound: Duration) -> Result<Got, End> {
        let deadline = Instant::now() + bound;
        loop {
            let frame = loop {
                match Frame::take(&mut self.ahead) {
                    Some(frame) => break frame,
                    None => self.fill(deadline)?,
                }
            };
            self.tell("<-", &brief(&frame));
            assert!(frame.payload.len() <= 16_384, "a frame that is too large: {}", brief(&frame));
            if let Some(got) = self.understand(frame) {
                self.note(&got);
                return Ok(got);
            }
        }
    }

    /// Reads everything to the end of the connection as octets: frames or whatever
    /// else they are.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Err(end) = self.fill(deadline) {
                return (std::mem::take(&mut self.ahead), end);
            }
        }
    }

    /// Sends a FIN (over TLS without close_notify) and goes on reading.
    pub(crate) fn half_close(&mut self) {
        self.link.sock().shutdown(std::net::Shutdown::Write).expect("a FIN");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        self.link.sock().set_linger(Some(Duration::ZERO)).expect("linger of zero");
    }

    /// What was said last on this connection, for a message.
    pub(crate) fn story(&self) -> String {
        let lines: Vec<&str> = self.story.iter().map(String::as_str).collect();
        format!("\n{}\nthe end: {:?}", lines.join("\n"), self.end)
    }

    fn tell(&mut self, way: &str, what: &str) {
        if self.story.len() == 40 {
            self.story.pop_front();
        }
        self.story.push_back(format!("  {way} {what}"));
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), End> {
        if let Some(end) = self.end {
            return Err(end);
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.link.sock().set_read_timeout(Some(left)).expect("a bound on reads");
        let mut chunk = [0; 64 * 1024];
        let end = match self.link.read(&mut chunk) {
            Ok(0) => self.write_end.unwrap_or(End::Eof),
            Ok(n) => {
                self.ahead.extend_from_slice(&chunk[..n]);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.unclean = true;
                self.write_end.unwrap_or(End::Eof)
            }
            Err(error) => End::of(&error),
        };
        if end != End::TimedOut {
            self.end = Some(end);
        }
        Err(end)
    }

    /// Takes a frame apart; `None` while a field block is not complete.
    fn understand(&mut self, frame: Frame) -> Option<Got> {
        let whole = match self.begun.take() {
            Some(mut begun) => {
                let fits = frame.kind == kind::CONTINUATION && frame.stream == begun.stream;
                assert!(fits, "inside a field block: {}{}", brief(&frame), self.story());
                begun.payload.extend(&frame.payload);
                begun.flags |= frame.flags & flag::END_HEADERS;
                begun
            }
            None if frame.kind == kind::HEADERS => {
                let flags = frame.flags & (flag::END_STREAM | flag::END_HEADERS);
                Frame::new(frame.kind, flags, frame.stream, frame.content())
            }
            None => {
                let never = matches!(frame.kind, kind::PUSH_PROMISE | kind::CONTINUATION);
                assert!(!never, "no server may send this: {}{}", brief(&frame), self.story());
                return Some(Got::of(frame));
            }
        };
        if !whole.has(flag::END_HEADERS) {
            self.begun = Some(whole);
            return None;
        }
        let fields = self.decoder.decode(&whole.payload);
        let fields = fields.unwrap_or_else(|wrong| panic!("{wrong} in {whole:?}{}", self.story()));
        Some(Got::Headers { stream: whole.stream, fields, end: whole.has(flag::END_STREAM) })
    }

    fn note(&mut self, got: &Got) {
        match got {
            Got::Data { stream, body, counted, end } => {
                self.allowed -= *counted as i64;
                assert!(self.allowed >= 0, "more than the window of the connection");
                self.response_of(*stream).take_body(body, *end);
                let by = u32::try_from(*counted).expect("a length");
                if self.auto.window && by > 0 {
                    self.send(&Frame::window_update(0, by));
                    if !end {
                        self.send(&Frame::window_update(*stream, by));
                    }
                }
            }
            Got::Headers { stream, fields, end } => {
                self.response_of(*stream).take_fields(fields.clone(), *end);
            }
            Got::Reset { stream, code } => {
                let response = self.response_of(*stream);
                response.reset.get_or_insert(*code);
                response.at.get_or_insert_with(Instant::now);
            }
            Got::Settings { values } => {
                self.peer.extend(values.iter().copied());
                if self.auto.settings {
                    self.send(&Frame::settings_ack());
                }
            }
            Got::SettingsAck => self.settings_acks += 1,
            Got::Ping { opaque } => {
                self.pings.push(*opaque);
                if self.auto.ping {
                    self.pong();
                }
            }
            Got::Pong { opaque } => self.pongs.push(*opaque),
            Got::Goaway { last, code, debug } => {
                let debug = debug.clone();
                self.goaways.push(Goaway { last: *last, code: *code, debug, at: Instant::now() });
            }
            Got::WindowUpdate { stream: 0, by } => self.window += i64::from(*by),
            Got::WindowUpdate { stream, by } => {
                self.streams.entry(*stream).or_default().sent -= i64::from(*by);
            }
            Got::Other(_) => {}
        }
    }

    fn response_of(&mut self, stream: u32) -> &mut Response {
        &mut self.streams.entry(stream).or_default().response
    }
}

/// A frame in a line.
fn brief(frame: &Frame) -> String {
    const NAMES: [&str; 10] = [
        "DATA",
        "HEADERS",
        "PRIORITY",
        "RST_STREAM",
        "SETTINGS",
        "PUSH_PROMISE",
        "PING",
        "GOAWAY",
        "WINDOW_UPDATE",
        "CONTINUATION",
    ];
    let Frame { kind, flags, stream, payload } = frame;
    let name = NAMES.get(usize::from(*kind)).copied().unwrap_or("unknown");
    let more = match *kind {
        kind::RST_STREAM if payload.len() == 4 => format!(" {:?}", Code(number(payload))),
        kind::GOAWAY if payload.len() >= 8 => {
            let debug = String::from_utf8_lossy(&payload[8..]);
            format!(" last {} {:?} {debug}", number(payload), Code(number(&payload[4..])))
        }
        _ => String::new(),
    };
    format!("{name} flags {flags:#x} stream {stream}, {} + {HEAD} octets{more}", payload.len())
}
