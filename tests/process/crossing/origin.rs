//! The app server: answers each request by its tag, and breaks in every way it knows,
//! decided by a seed and the tag.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::fault::{Fault, Late, Where};
use super::judge::{Book, Crossed, Forgery};
use super::tag::{Tag, chunks};
use crate::support::wire::{End, Head, Place, Wire};
use crate::support::{PATIENCE, Rng, ms, pause};

/// What holds for all connections.
#[derive(Debug)]
struct Shared {
    seed: u64,
    book: Arc<Book>,
    over: AtomicBool,
}

/// Numbers the connections of all origins, for the tags of what nobody asked for.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// A listening app server.
#[derive(Debug)]
pub(super) struct Origin {
    /// Where it listens.
    pub(super) place: Place,
    shared: Arc<Shared>,
}

impl Origin {
    pub(super) fn new(seed: u64, book: &Arc<Book>) -> Origin {
        let place = Place::parse("127.0.0.1:0");
        let listener = place.socket();
        listener.bind(&place.sock_addr()).expect("the origin binds");
        listener.listen(1024).expect("the origin listens");
        let place = listener.local_addr().expect("an address").as_socket().map(Place::Tcp);
        let shared =
            Arc::new(Shared { seed, book: Arc::clone(book), over: AtomicBool::new(false) });
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((sock, _)) = listener.accept() {
                if ours.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&ours);
                std::thread::spawn(move || Conn::new(sock, shared).serve());
            }
        });
        Origin { place: place.expect("a TCP address"), shared }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = self.place.socket().connect(&self.place.sock_addr());
    }
}

/// A proxy that sends what no request is must not go unseen.
impl Drop for Conn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = "the origin did not understand what came".to_owned();
            self.shared.book.cross(Crossed { tag: Tag(0), what, forged: None });
        }
    }
}

/// How a connection goes on after a request.
#[derive(Clone, Copy, Debug)]
enum Next {
    Keep,
    Close,
    Reset,
    /// There are octets behind the answer: no request may come any more.
    Spoilt,
    /// There are octets behind the answer, sent when it had long been out.
    Forged(Forgery),
}

/// One connection from the proxy.
struct Conn {
    wire: Wire,
    shared: Arc<Shared>,
    rng: Rng,
    number: u64,
    served: u64,
}

impl Conn {
    fn new(sock: Socket, shared: Arc<Shared>) -> Conn {
        sock.set_tcp_nodelay(true).expect("no delay");
        let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let wire = Wire::new(sock);
        // The proxy closes what is idle; a stuck one is the clients' to notice.
        wire.read_bound(PATIENCE * 3);
        wire.write_bound(PATIENCE);
        let rng = Rng::new(shared.seed ^ number << 20);
        Conn { wire, shared, rng, number, served: 0 }
    }

    /// Serves to the end of the connection, however it comes.
    fn serve(mut self) {
        let _ended = self.converse();
    }

    fn converse(&mut self) -> Result<(), End> {
        let mut last = self.greet()?;
        loop {
            let head = match self.wire.head() {
                Ok(head) => head,
                Err(end) => {
                    if let Next::Forged(forgery) = last {
                        self.shared.book.count(forgery.late.seen());
                    }
                    return Err(end);
                }
            };
            let Some(tag) = self.tag_of(&head) else { return Ok(()) };
            match last {
                Next::Forged(forgery) => {
                    self.shared.book.taken(forgery, tag);
                    self.wire.reset();
                    return Ok(());
                }
                Next::Spoilt => {
                    let what =
                        "was sent on a connection with octets behind the last answer".to_owned();
                    self.shared.book.cross(Crossed { tag, what, forged: None });
                    return Ok(());
                }
                _ => {}
            }
            last = self.answer(tag, &head)?;
            self.served += 1;
            match last {
                Next::Close => {
                    let _gone = self.wire.sock.shutdown(Shutdown::Write);
                    return Ok(());
                }
                Next::Reset => {
                    self.wire.reset();
                    return Ok(());
                }
                Next::Keep | Next::Spoilt | Next::Forged(_) => {}
            }
        }
    }

    /// Now and then it speaks before it was asked at all.
    fn greet(&mut self) -> Result<Next, End> {
        if !self.rng.one_in(40) {
            return Ok(Next::Keep);
        }
        let tag = Tag(u64::MAX >> 4 ^ self.number).forged();
        Ok(self.unless_asked(tag, Late::Greeting)?.unwrap_or(Next::Keep))
    }

    /// The tag of a request; its head has to name it everywhere.
    fn tag_of(&self, head: &Head) -> Option<Tag> {
        let target = head.start.split(' ').nth(1).unwrap_or_default();
        let tag = Tag::parse(target.trim_start_matches('/'));
        let named = head.all("x-tag");
        match tag {
            Some(tag) if named == [tag.to_string()] && head.start.starts_with(tag.method()) => {
                Some(tag)
            }
            other => {
                let tag = other.unwrap_or(Tag(0));
                let what = format!("a request that is mixed up: {head:?}");
                self.shared.book.cross(Crossed { tag, what, forged: None });
                None
            }
        }
    }

    /// Reads the body of a request, which has to be all its own.
    fn read_body(&mut self, tag: Tag, head: &Head) -> Result<(), End> {
        let mut body = Vec::new();
        let read = if head.lists("transfer-encoding", "chunked") {
            self.wire.chunked(&mut body).map(|_| ())
        } else {
            let len = head.field("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
            self.wire.exactly(len, &mut body)
        };
        let due = tag.question();
        if !due.starts_with(&body) || (read.is_ok() && due.len() != body.len()) {
            let what = format!("a request body of {} octets, not {}", body.len(), due.len());
            self.shared.book.cross(Crossed { tag, what, forged: None });
        }
        read
    }

    /// Answers one request, or does worse.
    fn answer(&mut self, tag: Tag, head: &Head) -> Result<Next, End> {
        // The same request meets the same fault again, unless it is its second try.
        self.rng = tag.rng(self.shared.seed ^ self.served.min(1));
        let fault = Fault::pick(&mut self.rng, tag);
        self.shared.book.count(fault.name());
        if let Fault::Early { close } = fault {
            self.wire.send(&answer(tag))?;
            if close {
                return Ok(Next::Close);
            }
            pause(Duration::from_micros(self.rng.below(2_000)));
            self.read_body(tag, head)?;
            return Ok(Next::Keep);
        }
        self.read_body(tag, head)?;
        match fault {
            Fault::Cut { at, reset } => self.cut(tag, at, reset),
            Fault::CloseAfter { reset } => {
                self.wire.send(&answer(tag))?;
                Ok(if reset { Next::Reset } else { Next::Close })
            }
            Fault::Behind { forged } => self.behind(tag, forged),
            Fault::Late(late) => self.late(tag, late),
            Fault::BodyWithoutRoom => {
                let len = self.rng.below(3_000) as usize + 1;
                let mut octets = head_of(tag, &format!("Content-Length: {len}\r\n"));
                octets.resize(octets.len() + len, b'#');
                self.wire.send(&octets)?;
                Ok(Next::Spoilt)
            }
            Fault::TwoLengths => {
                let two = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
                let mut octets = head_of(tag, two);
                octets.extend(b"0\r\n\r\n");
                self.wire.send(&octets)?;
                Ok(Next::Spoilt)
            }
            Fault::Interims => {
                let mut octets = Vec::new();
                for _ in 0..=self.rng.below(6) {
                    let status = ["100 Continue", "102 Processing", "103 Early Hints"];
                    let status = status[self.rng.below(3) as usize];
                    octets.extend(format!("HTTP/1.1 {status}\r\nX-Tag: {tag}\r\n\r\n").bytes());
                }
                octets.extend(answer(tag));
                self.wire.send(&octets)?;
                Ok(Next::Keep)
            }
            Fault::Slow => self.slowly(tag),
            Fault::Silence => {
                pause(ms(self.rng.below(20)));
                self.wire.send(&answer(tag))?;
                Ok(Next::Keep)
            }
            Fault::UntilClose => {
                let mut octets = head_of(tag, "");
                octets.extend(body_of(tag));
                self.wire.send(&octets)?;
                Ok(Next::Close)
            }
            Fault::None | Fault::Early { .. } => {
                let octets = if self.rng.one_in(2) { answer(tag) } else { self.chunked(tag) };
                self.wire.send(&octets)?;
                Ok(Next::Keep)
            }
        }
    }

    /// The answer in chunks, and its tag once more behind them.
    fn chunked(&mut self, tag: Tag) -> Vec<u8> {
        let mut octets = head_of(tag, "Trailer: X-End\r\nTransfer-Encoding: chunked\r\n");
        if tag.has_body() {
            octets.extend(chunks(&body_of(tag), &mut self.rng));
            octets.extend(format!("0\r\nX-End: {tag}\r\n\r\n").bytes());
        }
        octets
    }

    /// A part of the answer, then the end.
    fn cut(&mut self, tag: Tag, at: Where, reset: bool) -> Result<Next, End> {
        let octets = match at {
            Where::UntilClose => [head_of(tag, ""), body_of(tag)].concat(),
            _ if self.rng.one_in(2) => answer(tag),
            _ => self.chunked(tag),
        };
        let head = crate::support::wire::find(&octets, b"\r\n\r\n").map_or(0, |at| at + 4);
        let n = match at {
            Where::BeforeHead => 0,
            Where::InHead => self.rng.below(head as u64) as usize,
            Where::InBody | Where::UntilClose => {
                head + self.rng.below((octets.len() - head).max(1) as u64) as usize
            }
        };
        self.wire.send(&octets[..n])?;
        if self.rng.one_in(3) {
            pause(Duration::from_micros(self.rng.below(3_000)));
        }
        Ok(if reset { Next::Reset } else { Next::Close })
    }

    /// The answer, and more in the same piece.
    fn behind(&mut self, tag: Tag, forged: bool) -> Result<Next, End> {
        let mut octets = if self.rng.one_in(2) { answer(tag) } else { self.chunked(tag) };
        // Of a longer one the rest may come a moment later: see `Fault::Late`.
        let spoils = octets.len() < 4_000;
        if spoils && forged {
            octets.extend(answer(tag.forged()));
            octets.truncate(8_000);
        } else if spoils {
            octets.extend(garbage(&mut self.rng));
        }
        self.wire.send(&octets)?;
        Ok(if spoils { Next::Spoilt } else { Next::Keep })
    }

    /// The answer, and more when the connection has been idle for a moment.
    fn late(&mut self, tag: Tag, late: Late) -> Result<Next, End> {
        if late == Late::Idle {
            let heard = self.shared.book.expect(tag);
            self.wire.send(&answer(tag))?;
            // Clients that have gone never have it.
            let _gone = heard.recv_timeout(ms(50));
        } else {
            self.wire.send(&answer(tag))?;
            pause(self.rng.span(Duration::from_micros(1), ms(3)));
        }
        Ok(self.unless_asked(tag.forged(), late)?.unwrap_or(Next::Keep))
    }

    /// Sends what nobody asked for, unless a request has begun to come: behind it, it
    /// would be an answer.
    fn unless_asked(&mut self, forged: Tag, late: Late) -> Result<Option<Next>, End> {
        let octets = match late {
            Late::Forged | Late::Idle | Late::Greeting => answer(forged),
            Late::Garbage => garbage(&mut self.rng),
            Late::Blank => b"\r\n\r\n".to_vec(),
        };
        if self.is_asked() {
            return Ok(None);
        }
        self.wire.send(&octets)?;
        let first = !self.is_asked();
        self.shared.book.count(late.name());
        Ok(Some(Next::Forged(Forgery { forged, late, at: Instant::now(), first })))
    }

    /// Whether octets have come that were not read, or the end.
    fn is_asked(&self) -> bool {
        let unread = rustix::io::ioctl_fionread(&self.wire.sock).map_or(1, |n| n);
        unread > 0 || !self.wire.ahead.is_empty() || self.wire.ended().is_some()
    }

    /// The answer in pieces.
    fn slowly(&mut self, tag: Tag) -> Result<Next, End> {
        let octets = if self.rng.one_in(2) { answer(tag) } else { self.chunked(tag) };
        let mut rest = &octets[..];
        while !rest.is_empty() {
            let n = (self.rng.below(octets.len() as u64 / 2) as usize + 1).min(rest.len());
            self.wire.send(&rest[..n])?;
            rest = &rest[n..];
            pause(Duration::from_micros(self.rng.below(1_000)));
        }
        Ok(Next::Keep)
    }
}

fn head_of(tag: Tag, framing: &str) -> Vec<u8> {
    let status = match tag.status() {
        204 => "204 No Content",
        304 => "304 Not Modified",
        _ => "200 OK",
    };
    format!("HTTP/1.1 {status}\r\nX-Tag: {tag}\r\n{framing}\r\n").into_bytes()
}

fn body_of(tag: Tag) -> Vec<u8> {
    if tag.has_body() { tag.answer() } else { Vec::new() }
}

/// The answer with a length.
fn answer(tag: Tag) -> Vec<u8> {
    let framing = match tag.status() {
        204 => String::new(),
        _ => format!("Content-Length: {}\r\n", tag.answer().len()),
    };
    [head_of(tag, &framing), body_of(tag)].concat()
}

/// Octets that are no response.
fn garbage(rng: &mut Rng) -> Vec<u8> {
    let beginnings: [&[u8]; 4] = [b"\0", b"HTTP/1.1 20", b"#", b"HTTP/9.9 200 OK\r\n\r\n"];
    let mut octets = beginnings[rng.below(4) as usize].to_vec();
    octets.resize(octets.len() + rng.below(200) as usize, b'#');
    octets
}
