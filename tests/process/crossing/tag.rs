//! What one request and its answer look like, all of it decided by the request's tag:
//! whoever knows the tag knows every octet that may come.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::Rng;

/// Of a tag that no client has sent.
const FORGED: u64 = 1 << 63;

/// What names one request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag(pub(super) u64);

/// Gives every request a tag of its own, as many as there are to be.
#[derive(Debug)]
pub(super) struct Tags {
    next: AtomicU64,
    most: u64,
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Get,
    Head,
    /// POST with `Content-Length`.
    Length,
    /// POST in chunks.
    Chunked,
}

impl Tags {
    pub(super) fn new(most: u64) -> Tags {
        Tags { next: AtomicU64::new(0), most }
    }

    /// The next tag; none when the run has had all its requests.
    pub(super) fn next(&self) -> Option<Tag> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Neighbours differ in many digits.
        (n < self.most).then(|| Tag(n << 24 | Rng::new(n).next() >> 40))
    }
}

impl Tag {
    /// Reads a tag as it is written.
    pub(super) fn parse(text: &str) -> Option<Tag> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| plain).map(Tag)
    }

    /// The tag of an answer that nobody asked for.
    pub(super) fn forged(self) -> Tag {
        Tag(self.0 | FORGED)
    }

    pub(super) fn is_forged(self) -> bool {
        self.0 & FORGED != 0
    }

    /// Random numbers that belong to the tag.
    pub(super) fn rng(self, salt: u64) -> Rng {
        Rng::new(self.0.rotate_left(20) ^ salt)
    }

    pub(super) fn shape(self) -> Shape {
        match self.rng(1).below(100) {
            _ if self.is_forged() => Shape::Get,
            0..60 => Shape::Get,
            60..70 => Shape::Head,
            70..85 => Shape::Length,
            _ => Shape::Chunked,
        }
    }

    /// The status of its answer: some never have a body.
    pub(super) fn status(self) -> u16 {
        match self.rng(2).below(20) {
            _ if self.is_forged() => 200,
            0 => 204,
            1 => 304,
            _ => 200,
        }
    }

    /// Whether its answer has a body, as far as the protocol goes.
    pub(super) fn has_body(self) -> bool {
        self.status() == 200 && self.shape() != Shape::Head
    }

    pub(super) fn target(self) -> String {
        format!("/{self}")
    }

    pub(super) fn method(self) -> &'static str {
        match self.shape() {
            Shape::Get => "GET",
            Shape::Head => "HEAD",
            Shape::Length | Shape::Chunked => "POST",
        }
    }

    /// The body of the request.
    pub(super) fn question(self) -> Vec<u8> {
        match self.shape() {
            Shape::Get | Shape::Head => Vec::new(),
            Shape::Length | Shape::Chunked => self.octets('?', 3),
        }
    }

    /// The body of the answer to GET, whatever the method is.
    pub(super) fn answer(self) -> Vec<u8> {
        self.octets('!', 4)
    }

    /// The request for an HTTP/1 connection; `more` are further lines of the head.
    pub(super) fn request(self, version: &str, more: &str) -> Vec<u8> {
        let start = format!("{} {} {version}\r\n", self.method(), self.target());
        let mut octets = format!("{start}Host: app.test\r\nX-Tag: {self}\r\n{more}").into_bytes();
        let body = self.question();
        match self.shape() {
            Shape::Get | Shape::Head => octets.extend(b"\r\n"),
            Shape::Chunked if version == "HTTP/1.1" => {
                octets.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                octets.extend(chunks(&body, &mut self.rng(5)));
                octets.extend(b"0\r\n\r\n");
            }
            Shape::Length | Shape::Chunked => {
                octets.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                octets.extend(body);
            }
        }
        octets
    }

    /// Octets each few of which name the tag; mostly few, at times more than a buffer.
    fn octets(self, kind: char, salt: u64) -> Vec<u8> {
        let mut rng = self.rng(salt);
        let most = match rng.below(100) {
            0..70 => 400,
            70..95 => 4_000,
            95..99 => 20_000,
            _ => 60_000,
        };
        let len = rng.below(most) as usize;
        let mut octets = format!("{self}{kind}").into_bytes().repeat(len / 17 + 1);
        octets.truncate(len);
        octets
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A body in chunks of any size, without the last one.
pub(super) fn chunks(body: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut octets = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    while !rest.is_empty() {
        let n = (rng.below(6_000) as usize + 1).min(rest.len());
        let (now, later) = rest.split_at(n);
        octets.extend(format!("{n:x}\r\n").as_bytes());
        octets.extend_from_slice(now);
        octets.extend(b"\r\n");
        rest = later;
    }
    octets
}
