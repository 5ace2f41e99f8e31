//! Requests, responses, and the windows that bodies need.

use std::time::{Duration, Instant};

use super::conn::H2;
use super::frame::{Code, Fields, Frame, Got, setting};
use super::hpack;
use crate::support::PATIENCE;
use crate::support::wire::End;

/// What came on a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    /// The status; 0 while there is none.
    pub(crate) status: u16,
    /// The fields, without `:status`.
    pub(crate) headers: Fields,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The fields behind the body.
    pub(crate) trailers: Fields,
    /// The 1xx responses before: status and fields.
    pub(crate) interims: Vec<(u16, Fields)>,
    /// The code of the RST_STREAM that ended it.
    pub(crate) reset: Option<Code>,
    /// Whether END_STREAM came.
    pub(crate) whole: bool,
    /// When END_STREAM or RST_STREAM was read.
    pub(crate) at: Option<Instant>,
}

impl Response {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The one value of a field.
    ///
    /// # Panics
    /// When the field was sent twice.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(n, _)| n == name);
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice: {:?}", self.headers);
        first
    }

    /// Whether nothing more can come.
    pub(crate) fn is_over(&self) -> bool {
        self.whole || self.reset.is_some()
    }

    pub(super) fn take_fields(&mut self, fields: Fields, end: bool) {
        assert!(!self.whole, "fields behind END_STREAM: {fields:?}");
        let small = fields.iter().all(|(n, _)| !n.bytes().any(|b| b.is_ascii_uppercase()));
        assert!(small, "a field name that is not in small letters: {fields:?}");
        let (pseudo, fields): (Fields, Fields) =
            fields.into_iter().partition(|(name, _)| name.starts_with(':'));
        match &pseudo[..] {
            [(name, status)] if name == ":status" && self.status == 0 => {
                let status = status.parse().unwrap_or_else(|_| panic!("no status: {status}"));
                if status < 200 {
                    assert!(!end, "an interim response that ends the stream");
                    self.interims.push((status, fields));
                } else {
                    (self.status, self.headers) = (status, fields);
                }
            }
            [] if self.status != 0 && end => self.trailers = fields,
            _ => panic!("a head that no server may send: {pseudo:?} {fields:?}"),
        }
        self.take_end(end);
    }

    pub(super) fn take_body(&mut self, body: &[u8], end: bool) {
        assert!(self.status != 0, "a body before its head");
        assert!(!self.whole, "a body behind END_STREAM");
        self.body.extend_from_slice(body);
        self.take_end(end);
    }

    fn take_end(&mut self, end: bool) {
        if end {
            self.whole = true;
            self.at.get_or_insert_with(Instant::now);
        }
    }
}

impl H2 {
    /// The pseudo-header fields of a request.
    pub(crate) fn pseudo(&self, method: &str, path: &str) -> Fields {
        let fields = [
            (":method", method),
            (":scheme", self.scheme()),
            (":path", path),
            (":authority", &self.authority),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// Opens the next stream with these fields.
    pub(crate) fn headers<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        fields: &[(N, V)],
        end: bool,
    ) -> u32 {
        let stream = self.fresh_stream();
        self.send_fields(stream, fields, end);
        stream
    }

    /// Sends a field block on a stream, in as many frames as it needs.
    pub(crate) fn send_fields<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        stream: u32,
        fields: &[(N, V)],
        end: bool,
    ) {
        let block = hpack::plain(fields);
        let most = self.peer(setting::MAX_FRAME_SIZE).unwrap_or_default() as usize;
        let mut parts = block.chunks(most);
        let first = parts.next().unwrap_or_default();
        let mut frames = vec![Frame::headers_begun(stream, first).end_if(end)];
        frames.extend(parts.map(|part| Frame::continuation_begun(stream, part)));
        if let Some(last) = frames.last_mut() {
            last.flags |= super::frame::flag::END_HEADERS;
        }
        self.send_all(&frames);
    }

    /// The number for a stream that the test opens itself.
    pub(crate) fn fresh_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.streams.entry(stream).or_default();
        stream
    }

    /// Sends a request without a body.
    pub(crate) fn request(&mut self, method: &str, path: &str) -> u32 {
        self.headers(&self.pseudo(method, path), true)
    }

    /// Sends a GET.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.request("GET", path)
    }

    /// Sends the head of a POST; the body is up to the test.
    pub(crate) fn post_head(&mut self, path: &str) -> u32 {
        self.headers(&self.pseudo("POST", path), false)
    }

    /// Sends a POST with its body, as fast as the server's windows let it.
    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> u32 {
        let stream = self.post_head(path);
        self.data(stream, body, true);
        stream
    }

    /// Sends DATA as the windows let it, reading while they are shut. Less is sent
    /// when the server resets the stream or ends the connection.
    pub(crate) fn data(&mut self, stream: u32, body: &[u8], end: bool) {
        let mut rest = body;
        while !rest.is_empty() {
            let n = self.room(stream).min(rest.len());
            if n == 0 {
                if self.is_over(stream) || self.next_frame().is_err() {
                    return;
                }
                continue;
            }
            let (now, later) = rest.split_at(n);
            rest = later;
            self.send(&Frame::data(stream, now).end_if(end && rest.is_empty()));
        }
        if body.is_empty() {
            self.send(&Frame::data(stream, []).end_if(end));
        }
    }

    /// How many octets of DATA may be sent on a stream at once.
    pub(crate) fn room(&self, stream: u32) -> usize {
        let frame = self.peer(setting::MAX_FRAME_SIZE).map_or(0, |most| most as usize);
        self.window_of(stream).min(self.room_of_connection()).min(frame)
    }

    /// What the server's window for the connection has room for.
    pub(crate) fn room_of_connection(&self) -> usize {
        usize::try_from(self.window).unwrap_or(0)
    }

    /// What the server's window for a stream has room for, whatever that of the
    /// connection has.
    pub(crate) fn window_of(&self, stream: u32) -> usize {
        let initial = self.peer(setting::INITIAL_WINDOW_SIZE).map_or(0, i64::from);
        let sent = self.streams.get(&stream).map_or(0, |stream| stream.sent);
        usize::try_from(initial - sent).unwrap_or(0)
    }

    /// Waits for the end of a response, by END_STREAM or RST_STREAM.
    ///
    /// # Panics
    /// When the connection ends before.
    #[track_caller]
    pub(crate) fn response(&mut self, stream: u32) -> Response {
        let response = self.try_response(stream);
        response.unwrap_or_else(|end| panic!("{end:?} before stream {stream}'s{}", self.story()))
    }

    /// Waits for the end of a response, or of the connection.
    pub(crate) fn try_response(&mut self, stream: u32) -> Result<Response, End> {
        self.read_until(|h2| h2.is_over(stream).then(|| h2.so_far(stream)))
    }

    /// Waits for the head of a response.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub(crate) fn response_head(&mut self, stream: u32) -> Response {
        let found = self.read_until(|h2| {
            let so_far = h2.so_far(stream);
            (so_far.status != 0 || so_far.is_over()).then_some(so_far)
        });
        match found {
            Ok(response) if response.status != 0 => response,
            other => panic!("no head on stream {stream}: {other:?}{}", self.story()),
        }
    }

    /// What came on a stream so far.
    pub(crate) fn so_far(&self, stream: u32) -> Response {
        self.streams.get(&stream).map(|stream| stream.response.clone()).unwrap_or_default()
    }

    /// Whether nothing more can come on a stream.
    pub(crate) fn is_over(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.response.is_over())
    }

    /// Reads until the book shows what is looked for, at most [`PATIENCE`]; or says
    /// how the connection ended.
    pub(crate) fn read_until<T>(
        &mut self,
        mut look: impl FnMut(&mut H2) -> Option<T>,
    ) -> Result<T, End> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::TimedOut);
            }
            self.next_within(left)?;
        }
    }

    /// Waits for a frame.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub(crate) fn wait<T>(&mut self, what: &str, fits: impl Fn(&Got) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_within(left.max(Duration::from_millis(1))) {
                Ok(got) => {
                    if let Some(found) = fits(&got) {
                        return found;
                    }
                }
                Err(end) => panic!("{end:?} instead of {what}{}", self.story()),
            }
        }
    }
}
