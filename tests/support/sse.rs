//! Event streams: an app server that tells them piece by piece, and clients that read
//! them strictly, over each protocol.

use std::io::{self, Read, Write};

use super::client::Client;
use super::h2::{Code, H2};
use super::origin::{Next, Origin};
use super::process::Proxy;
use super::wire::{Head, find};

/// The head of an event stream in chunks.
pub(crate) const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The same up to the end of the connection.
pub(crate) const CLOSING: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n";

/// What an EventSource says.
pub(crate) const ACCEPT: (&str, &str) = ("accept", "text/event-stream");

/// A piece of a body as its head frames it.
pub(crate) fn piece(head: &str, text: &str) -> Vec<u8> {
    if head.contains("chunked") {
        format!("{:x}\r\n{text}\r\n", text.len()).into()
    } else {
        text.into()
    }
}

/// An app server that sends a head and a first piece, each further one when its number
/// is released, and then nothing until the proxy leaves.
pub(crate) fn telling(head: &str, pieces: &[&str]) -> Origin {
    let head = head.to_owned();
    let pieces: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    Origin::scripted(move |conn, _| {
        conn.body()?;
        conn.send(&head)?;
        for (number, text) in pieces.iter().enumerate() {
            if number > 0 {
                conn.hold(&number.to_string())?;
            }
            conn.send(piece(&head, text))?;
        }
        Err(conn.wait_end())
    })
}

/// The same, and then the proper end of the body.
pub(crate) fn ending(head: &str, pieces: &[&str]) -> Origin {
    let head = head.to_owned();
    let pieces: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    Origin::scripted(move |conn, _| {
        conn.body()?;
        conn.send(&head)?;
        for (number, text) in pieces.iter().enumerate() {
            if number > 0 {
                conn.hold(&number.to_string())?;
            }
            conn.send(piece(&head, text))?;
        }
        if head.contains("chunked") {
            conn.send("0\r\n\r\n")?;
            return Ok(Next::KeepAlive);
        }
        Ok(Next::Close)
    })
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tongue {
    H1,
    H1Tls,
    H2,
    H2Tls,
}

impl Tongue {
    /// All of them.
    pub(crate) const ALL: [Tongue; 4] = [Tongue::H1, Tongue::H1Tls, Tongue::H2, Tongue::H2Tls];

    /// Whether it has streams.
    pub(crate) fn is_h2(self) -> bool {
        matches!(self, Tongue::H2 | Tongue::H2Tls)
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

enum Link {
    Octets { stream: Box<dyn Stream>, raw: Vec<u8>, head: Option<Head> },
    Stream(Box<H2>, u32),
}

/// A response that is being read.
pub(crate) struct Feed(Link);

/// How a response ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As its framing has it; over HTTP/1 the connection did, too.
    pub(crate) clean: bool,
    /// All of it.
    pub(crate) body: String,
}

impl Feed {
    /// Asks as an EventSource does.
    pub(crate) fn open(proxy: &Proxy, tongue: Tongue, target: &str) -> Feed {
        Feed::ask(proxy, tongue, ("GET", target), &[ACCEPT])
    }

    /// Asks for a target with these fields.
    pub(crate) fn ask(
        proxy: &Proxy,
        tongue: Tongue,
        (method, target): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Feed {
        if tongue.is_h2() {
            let mut h2 = match tongue {
                Tongue::H2Tls => H2::connect_tls(&proxy.tls_place()),
                _ => H2::connect(&proxy.place()),
            };
            let mut all = h2.pseudo(method, target);
            all.extend(fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
            let stream = h2.fresh_stream();
            h2.send_fields(stream, &all, true);
            return Feed(Link::Stream(Box::new(h2), stream));
        }
        let mut stream: Box<dyn Stream> = match tongue {
            Tongue::H1Tls => Box::new(proxy.tls_client()),
            _ => Box::new(proxy.client().wire.sock),
        };
        let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).expect("the request goes out");
        Feed(Link::Octets { stream, raw: Vec::new(), head: None })
    }

    /// Of a client that has asked already.
    pub(crate) fn of(client: Client) -> Feed {
        let Client { wire } = client;
        Feed(Link::Octets { stream: Box::new(wire.sock), raw: wire.ahead, head: None })
    }

    /// Reads until so many octets of the body have come; all that have.
    #[track_caller]
    pub(crate) fn until(&mut self, octets: usize) -> String {
        loop {
            let (body, _) = self.body();
            if body.len() >= octets {
                return body;
            }
            let more = self.more();
            assert!(more.is_ok(), "{more:?} after {body:?} of {octets} octets");
        }
    }

    /// Waits for the head: its status.
    #[track_caller]
    pub(crate) fn status(&mut self) -> u16 {
        self.until(0);
        match &mut self.0 {
            Link::Stream(h2, stream) => h2.response_head(*stream).status,
            Link::Octets { .. } => loop {
                if let Some(status) = self.known_status() {
                    return status;
                }
                self.more().expect("a head");
            },
        }
    }

    fn known_status(&self) -> Option<u16> {
        match &self.0 {
            Link::Octets { head: Some(head), .. } => head.start.get(9..12)?.parse().ok(),
            Link::Octets { head: None, .. } => None,
            Link::Stream(h2, stream) => Some(h2.so_far(*stream).status),
        }
    }

    /// Reads to the end of a stream: the code it was reset with, if it was.
    pub(crate) fn reset(self) -> Option<Code> {
        match self.0 {
            Link::Stream(mut h2, stream) => h2.response(stream).reset,
            Link::Octets { .. } => None,
        }
    }

    /// Reads to the end.
    pub(crate) fn finish(mut self) -> Ended {
        let over = loop {
            if let Link::Stream(h2, stream) = &self.0
                && h2.is_over(*stream)
            {
                break true;
            }
            match self.more() {
                Ok(()) => {}
                // FIN, and close_notify before it over TLS.
                Err(error) => {
                    eprintln!("the connection ended with {error:?}");
                    break error.is_none();
                }
            }
        };
        let (body, whole) = self.body();
        eprintln!("whole: {whole:?}, over: {over}");
        Ended { clean: whole.unwrap_or(over) && over, body }
    }

    /// Reads more; how the connection ended if there is no more, with nothing for a FIN.
    fn more(&mut self) -> Result<(), Option<io::ErrorKind>> {
        match &mut self.0 {
            Link::Stream(h2, _) => match h2.next_frame() {
                Ok(_) => Ok(()),
                Err(end) => Err(Some(io::Error::other(format!("{end:?}")).kind())),
            },
            Link::Octets { stream, raw, head } => {
                let mut chunk = [0; 16 * 1024];
                match stream.read(&mut chunk) {
                    Ok(0) => return Err(None),
                    Ok(n) => raw.extend_from_slice(&chunk[..n]),
                    Err(error) => return Err(Some(error.kind())),
                }
                if head.is_none()
                    && let Some(at) = find(raw, b"\r\n\r\n")
                {
                    let whole: Vec<u8> = raw.drain(..at + 4).collect();
                    *head = Some(Head::parse(&whole));
                }
                Ok(())
            }
        }
    }

    /// The body so far, and whether it is whole, if its framing can tell.
    fn body(&self) -> (String, Option<bool>) {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        match &self.0 {
            Link::Stream(h2, stream) => {
                let response = h2.so_far(*stream);
                (text(&response.body), Some(response.whole))
            }
            Link::Octets { head: None, .. } => (String::new(), Some(false)),
            Link::Octets { raw, head: Some(head), .. } => {
                if head.lists("transfer-encoding", "chunked") {
                    let (body, whole) = dechunked(raw);
                    (text(&body), Some(whole))
                } else {
                    let length = head.field("content-length").and_then(|it| it.parse().ok());
                    (text(raw), length.map(|length: usize| raw.len() == length))
                }
            }
        }
    }
}

/// What is in chunks, and whether the last one is there with nothing behind it.
fn dechunked(raw: &[u8]) -> (Vec<u8>, bool) {
    let (mut body, mut rest) = (Vec::new(), raw);
    while let Some(end) = find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no size: {size}"));
        rest = &rest[end + 2..];
        if size == 0 {
            let whole = rest.ends_with(b"\r\n");
            return (body, whole);
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return (body, false);
        }
        assert_eq!(&rest[size..size + 2], b"\r\n", "a chunk ends with its line");
        rest = &rest[size + 2..];
    }
    (body, false)
}

/// The whole events of a text, and what is left behind the last of them. As the standard
/// has it: lines end with LF, CR or CRLF, and an empty one ends an event.
pub(crate) fn events(text: &str) -> (Vec<String>, String) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut events: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    let rest = events.pop().unwrap_or_default();
    (events, rest)
}
