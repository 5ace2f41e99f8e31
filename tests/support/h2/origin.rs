//! The app server's side: it accepts connections of HTTP/2 and does what the test says,
//! frame by frame, and little by itself: it acknowledges SETTINGS and PING, and gives
//! windows back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConnection, StreamOwned};
use socket2::{SockRef, Socket};

use super::frame::{Code, Fields, Frame, Got, PREFACE, flag, kind, number, setting};
use super::hpack::{self, Decoder};
use super::link::Link;
use crate::support::wire::{End, Place};
use crate::support::{PATIENCE, within};

/// A listening app server.
#[derive(Debug)]
pub(crate) struct H2Origin {
    listener: Socket,
    place: Place,
}

impl H2Origin {
    /// On a TCP port.
    pub(crate) fn new() -> H2Origin {
        H2Origin::at(Place::parse("127.0.0.1:0"))
    }

    /// On a unix socket.
    pub(crate) fn unix(path: &Path) -> H2Origin {
        H2Origin::at(Place::Unix(path.to_owned()))
    }

    fn at(place: Place) -> H2Origin {
        let listener = place.socket();
        listener.bind(&place.sock_addr()).expect("the origin binds");
        listener.listen(1024).expect("the origin listens");
        listener.set_nonblocking(true).expect("an accept that does not block");
        let place = match listener.local_addr().expect("an address").as_socket() {
            Some(address) => Place::Tcp(address),
            None => place,
        };
        H2Origin { listener, place }
    }

    /// How the proxy is told of it, in clear text.
    pub(crate) fn endpoint(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("h2c://{address}"),
            Place::Unix(_) => format!("h2c:{}", self.place),
        }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.place.port()
    }

    /// Whether somebody waits to be accepted.
    pub(crate) fn accept_now(&self) -> Option<Socket> {
        let (sock, _) = self.listener.accept().ok()?;
        sock.set_nonblocking(false).expect("a blocking socket");
        sock.set_write_timeout(Some(PATIENCE)).expect("a bound on writes");
        Some(sock)
    }

    /// The next connection, on which nothing was said yet.
    #[track_caller]
    pub(crate) fn accept_bare(&self) -> Peer {
        Peer::over(Box::new(within(PATIENCE, "a connection", || self.accept_now())))
    }

    /// The next connection, with no settings to speak of.
    #[track_caller]
    pub(crate) fn accept(&self) -> Peer {
        self.accept_with(&[])
    }

    /// The next connection, with these settings.
    #[track_caller]
    pub(crate) fn accept_with(&self, settings: &[(u16, u32)]) -> Peer {
        let mut peer = self.accept_bare();
        peer.begin(settings);
        peer
    }

    /// The next connection, with TLS.
    #[track_caller]
    pub(crate) fn accept_tls(&self, config: &Arc<rustls::ServerConfig>) -> Peer {
        let sock = within(PATIENCE, "a connection", || self.accept_now());
        sock.set_read_timeout(Some(PATIENCE)).expect("a bound on reads");
        let session = ServerConnection::new(Arc::clone(config)).expect("a session");
        Peer::over(Box::new(StreamOwned::new(session, sock)))
    }
}

impl Link for StreamOwned<ServerConnection, Socket> {
    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self.get_ref())
    }

    fn scheme(&self) -> &'static str {
        "https"
    }
}

/// A request as far as it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Its fields, pseudo-header fields among them.
    pub(crate) fields: Fields,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// Its trailers.
    pub(crate) trailers: Fields,
    /// END_STREAM has come.
    pub(crate) whole: bool,
    /// It was given up.
    pub(crate) reset: Option<Code>,
}

impl Seen {
    /// The one value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known == name);
        let (first, more) = (found.next()?, found.next());
        assert!(more.is_none(), "{name} twice: {:?}", self.fields);
        Some(&first.1)
    }
}

/// One connection of the proxy's.
pub(crate) struct Peer {
    link: Box<dyn Link>,
    ahead: Vec<u8>,
    begun: Option<Frame>,
    decoder: Decoder,
    /// The requests so far, by stream.
    pub(crate) seen: BTreeMap<u32, Seen>,
    /// What the proxy has set.
    pub(crate) settings: BTreeMap<u16, u32>,
    /// Whether PINGs are acknowledged.
    pub(crate) pongs: bool,
    /// Whether windows are given back.
    pub(crate) windows: bool,
    /// PINGs that came.
    pub(crate) pings: usize,
    /// Acknowledgements of PINGs that came.
    pub(crate) acks: usize,
    /// Frames of GOAWAY that came.
    pub(crate) goaways: Vec<Code>,
    /// The last stream that a test has asked for.
    taken: u32,
    /// What the proxy lets us send, on streams and (0) on the connection.
    room: BTreeMap<u32, i64>,
}

impl Peer {
    fn over(link: Box<dyn Link>) -> Peer {
        Peer {
            link,
            ahead: Vec::new(),
            begun: None,
            decoder: Decoder::new(),
            seen: BTreeMap::new(),
            settings: BTreeMap::new(),
            pongs: true,
            windows: true,
            pings: 0,
            acks: 0,
            goaways: Vec::new(),
            taken: 0,
            room: BTreeMap::from([(0, 65_535)]),
        }
    }

    /// Reads the preface and says our settings.
    #[track_caller]
    pub(crate) fn begin(&mut self, settings: &[(u16, u32)]) {
        self.preface();
        self.send(&Frame::settings(settings));
    }

    /// Reads the preface.
    #[track_caller]
    pub(crate) fn preface(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.ahead.len() < PREFACE.len() {
            self.fill(deadline).expect("a preface");
        }
        let preface: Vec<u8> = self.ahead.drain(..PREFACE.len()).collect();
        assert_eq!(preface, PREFACE);
    }

    /// Sends octets; that nobody takes them is no failure.
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        let _gone = self.link.write_all(octets).and_then(|()| self.link.flush());
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &Frame) {
        if frame.kind == kind::DATA {
            let len = frame.payload.len() as i64;
            *self.room.entry(0).or_default() -= len;
            *self.room_of(frame.stream) -= len;
        }
        self.octets(&frame.octets());
    }

    fn room_of(&mut self, stream: u32) -> &mut i64 {
        let initial = self.settings.get(&setting::INITIAL_WINDOW_SIZE).copied().unwrap_or(65_535);
        self.room.entry(stream).or_insert(i64::from(initial))
    }

    /// What may be sent on a stream now.
    pub(crate) fn room(&mut self, stream: u32) -> usize {
        let room = (*self.room_of(stream)).min(self.room[&0]);
        usize::try_from(room).unwrap_or(0)
    }

    /// Sends HEADERS.
    pub(crate) fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        self.send(&Frame::headers(stream, hpack::plain(fields)).end_if(end));
    }

    /// Sends DATA as the windows let it, reading while they are shut.
    #[track_caller]
    pub(crate) fn data(&mut self, stream: u32, body: &[u8], end: bool) {
        let mut rest = body;
        while !rest.is_empty() {
            match self.room(stream).min(rest.len()).min(16_384) {
                0 => drop(self.next().expect("room for more")),
                n => {
                    let (now, later) = rest.split_at(n);
                    rest = later;
                    self.send(&Frame::data(stream, now).end_if(end && rest.is_empty()));
                }
            }
        }
        if body.is_empty() {
            self.send(&Frame::data(stream, []).end_if(end));
        }
    }

    /// Answers with 200 and a body.
    #[track_caller]
    pub(crate) fn answer(&mut self, stream: u32, body: &str) {
        let length = body.len().to_string();
        self.headers(stream, &[(":status", "200"), ("content-length", &length)], body.is_empty());
        if !body.is_empty() {
            self.data(stream, body.as_bytes(), true);
        }
    }

    /// The next stream that was opened, in their order.
    #[track_caller]
    pub(crate) fn request(&mut self) -> u32 {
        let before = self.taken;
        let next = |peer: &Peer| peer.seen.keys().find(|stream| **stream > before).copied();
        self.taken = self.wait("a request", next);
        self.taken
    }

    /// The next request, to its end.
    #[track_caller]
    pub(crate) fn whole_request(&mut self) -> (u32, Seen) {
        let stream = self.request();
        (stream, self.whole(stream))
    }

    /// A request, to its end.
    #[track_caller]
    pub(crate) fn whole(&mut self, stream: u32) -> Seen {
        let seen = |peer: &Peer| peer.seen.get(&stream).filter(|seen| seen.whole).cloned();
        self.wait("the end of a request", seen)
    }

    /// How a stream is given up.
    #[track_caller]
    pub(crate) fn reset(&mut self, stream: u32) -> Code {
        self.wait("RST_STREAM", |peer| peer.seen.get(&stream).and_then(|seen| seen.reset))
    }

    /// Reads until the book shows what is looked for.
    #[track_caller]
    pub(crate) fn wait<T>(&mut self, what: &str, look: impl Fn(&Peer) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(end) = self.next_within(left.max(Duration::from_millis(1))) {
                panic!("{end:?} instead of {what}; {:?}", self.seen);
            }
        }
    }

    /// Reads to the end of the connection.
    #[track_caller]
    pub(crate) fn wait_end(&mut self) -> End {
        loop {
            match self.next() {
                Ok(_) => {}
                Err(End::TimedOut) => panic!("the connection stays open; {:?}", self.seen),
                Err(end) => return end,
            }
        }
    }

    /// Sends PING and waits for its ACK: everything before it has been read by then.
    #[track_caller]
    pub(crate) fn fence(&mut self) {
        let before = self.acks;
        self.send(&Frame::ping(*b"fenced!!"));
        self.wait("a PING ACK", |peer| (peer.acks > before).then_some(()));
    }

    /// The next frame, noted; or how the connection ended.
    pub(crate) fn next(&mut self) -> Result<Got, End> {
        self.next_within(PATIENCE)
    }

    /// The same within `bound`.
    pub(crate) fn next_within(&mut self, bound: Duration) -> Result<Got, End> {
        let deadline = Instant::now() + bound;
        loop {
            let Some(frame) = Frame::take(&mut self.ahead) else {
                self.fill(deadline)?;
                continue;
            };
            if let Some(got) = self.understand(frame) {
                self.note(&got);
                return Ok(got);
            }
        }
    }

    /// Reads octets to the end.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Err(end) = self.fill(deadline) {
                return (std::mem::take(&mut self.ahead), end);
            }
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn abort(self) {
        self.link.sock().set_linger(Some(Duration::ZERO)).expect("linger of zero");
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.link.sock().set_read_timeout(Some(left)).expect("a bound on reads");
        let mut chunk = [0; 64 * 1024];
        match self.link.read(&mut chunk) {
            Ok(0) => Err(End::Eof),
            Ok(n) => {
                self.ahead.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(End::Eof),
            Err(error) => Err(End::of(&error)),
        }
    }

    fn understand(&mut self, frame: Frame) -> Option<Got> {
        let whole = match self.begun.take() {
            Some(mut begun) => {
                assert!(frame.kind == kind::CONTINUATION && frame.stream == begun.stream);
                begun.payload.extend(&frame.payload);
                begun.flags |= frame.flags & flag::END_HEADERS;
                begun
            }
            None if frame.kind == kind::HEADERS => {
                let flags = frame.flags & (flag::END_STREAM | flag::END_HEADERS);
                Frame::new(frame.kind, flags, frame.stream, frame.content())
            }
            None => return Some(Got::of(frame)),
        };
        if !whole.has(flag::END_HEADERS) {
            self.begun = Some(whole);
            return None;
        }
        let fields = self.decoder.decode(&whole.payload).expect("a field block");
        Some(Got::Headers { stream: whole.stream, fields, end: whole.has(flag::END_STREAM) })
    }

    fn note(&mut self, got: &Got) {
        match got {
            Got::Headers { stream, fields, end } => {
                let seen = self.seen.entry(*stream).or_default();
                assert!(!seen.whole, "fields behind END_STREAM: {fields:?}");
                let small = fields.iter().all(|(n, _)| !n.bytes().any(|b| b.is_ascii_uppercase()));
                assert!(small, "a field name that is not in small letters: {fields:?}");
                let part =
                    if seen.fields.is_empty() { &mut seen.fields } else { &mut seen.trailers };
                *part = fields.clone();
                seen.whole |= end;
            }
            Got::Data { stream, body, counted, end } => {
                let seen = self.seen.entry(*stream).or_default();
                assert!(!seen.whole, "a body behind END_STREAM");
                seen.body.extend_from_slice(body);
                seen.whole |= end;
                if self.windows && *counted > 0 {
                    let by = u32::try_from(*counted).expect("a length");
                    self.send(&Frame::window_update(0, by));
                    self.send(&Frame::window_update(*stream, by));
                }
            }
            Got::Reset { stream, code } => {
                self.seen.entry(*stream).or_default().reset = Some(*code);
            }
            Got::Settings { values } => {
                self.settings.extend(values.iter().copied());
                self.send(&Frame::settings_ack());
            }
            Got::Ping { opaque } => {
                self.pings += 1;
                if self.pongs {
                    self.send(&Frame::pong(*opaque));
                }
            }
            Got::Pong { .. } => self.acks += 1,
            Got::Goaway { code, .. } => self.goaways.push(*code),
            Got::WindowUpdate { stream: 0, by } => {
                *self.room.entry(0).or_default() += i64::from(*by);
            }
            Got::WindowUpdate { stream, by } => *self.room_of(*stream) += i64::from(*by),
            Got::SettingsAck => {}
            Got::Other(frame) => assert!(number(&frame.stream.to_be_bytes()) == 0, "{frame:?}"),
        }
    }
}
