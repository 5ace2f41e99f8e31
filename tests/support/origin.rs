//! The app server, scripted by the test: it records what reached it, waits where
//! the test says, and goes on when it is released.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::wire::{End, Head, Place, Wire};
use super::{PATIENCE, pattern, pause};

/// A request as it reached the app server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    /// Its method.
    pub(crate) method: String,
    /// Its target.
    pub(crate) target: String,
    /// Its head, as sent.
    pub(crate) head: Head,
    /// What came of its body.
    pub(crate) body: Vec<u8>,
    /// The trailers of a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether all of it came.
    pub(crate) whole: bool,
}

impl Request {
    /// The one value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

/// What a handler has decided about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read the next request.
    KeepAlive,
    /// FIN.
    Close,
    /// RST.
    Reset,
}

#[derive(Debug, Default)]
struct Book {
    requests: Vec<Request>,
    ends: Vec<Option<(End, Instant)>>,
    sockets: Vec<Socket>,
    released: HashSet<String>,
    all_released: bool,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    news: Condvar,
    over: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let result = change(&mut self.lock());
        self.news.notify_all();
        result
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&Book) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut book = self.lock();
        loop {
            if let Some(found) = look(&book) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let had: Vec<_> = book.requests.iter().map(|r| r.head.start.clone()).collect();
                drop(book);
                panic!("the origin waited in vain for {what}; it had {had:?}");
            }
            let woken = self.news.wait_timeout(book, left);
            book = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A listening app server; everything of it ends on drop.
#[derive(Debug)]
pub(crate) struct Origin {
    place: Place,
    shared: Arc<Shared>,
}

type Handler = dyn Fn(&mut OriginConn, &Request) -> Result<Next, End> + Send + Sync;

impl Origin {
    /// On a TCP port, answering by [`standard`].
    pub(crate) fn new() -> Origin {
        Origin::scripted(standard)
    }

    /// At this place, answering by [`standard`].
    pub(crate) fn on(place: Place) -> Origin {
        Origin::at(place, Arc::new(standard))
    }

    /// On a TCP port, with a script of its own.
    pub(crate) fn scripted(
        handler: impl Fn(&mut OriginConn, &Request) -> Result<Next, End> + Send + Sync + 'static,
    ) -> Origin {
        Origin::at(Place::parse("127.0.0.1:0"), Arc::new(handler))
    }

    /// At this place, with a script of its own.
    pub(crate) fn scripted_at(
        place: Place,
        handler: impl Fn(&mut OriginConn, &Request) -> Result<Next, End> + Send + Sync + 'static,
    ) -> Origin {
        Origin::at(place, Arc::new(handler))
    }

    /// On a unix socket, answering by [`standard`].
    pub(crate) fn unix(path: &std::path::Path) -> Origin {
        Origin::at(Place::Unix(path.to_owned()), Arc::new(standard))
    }

    fn at(place: Place, handler: Arc<Handler>) -> Origin {
        let listener = place.socket();
        listener.bind(&place.sock_addr()).expect("the origin binds");
        listener.listen(1024).expect("the origin listens");
        let place = match place {
            Place::Tcp(_) => {
                let addr = listener.local_addr().expect("an address");
                Place::Tcp(addr.as_socket().expect("a TCP address"))
            }
            unix => unix,
        };
        Origin::over(listener, place, handler)
    }

    fn over(listener: Socket, place: Place, handler: Arc<Handler>) -> Origin {
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((sock, _)) = listener.accept() {
                if ours.over.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, handler) = (Arc::clone(&ours), Arc::clone(&handler));
                std::thread::spawn(move || serve(sock, shared, &*handler));
            }
        });
        Origin { place, shared }
    }

    /// Where it listens.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Every request so far, in the order of their heads.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The requests so far for one target.
    pub(crate) fn requests_for(&self, target: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.target == target).collect()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().ends.len()
    }

    /// Waits for the head of a request for this target: the work has started.
    pub(crate) fn wait_started(&self, target: &str) -> Request {
        self.wait_request(target, |request| request.target == target)
    }

    /// Waits until the request for this target has come whole.
    pub(crate) fn wait_whole(&self, target: &str) -> Request {
        self.wait_request(target, |request| request.target == target && request.whole)
    }

    /// Waits for a request.
    pub(crate) fn wait_request(&self, what: &str, fits: impl Fn(&Request) -> bool) -> Request {
        self.shared.wait(what, |book| book.requests.iter().find(|r| fits(r)).cloned())
    }

    /// Lets every handler that waits for `name` go on.
    pub(crate) fn release(&self, name: &str) {
        self.shared.tell(|book| book.released.insert(name.to_owned()));
    }

    /// Lets every handler go on, now and later.
    pub(crate) fn release_all(&self) {
        self.shared.tell(|book| book.all_released = true);
    }

    /// Waits until the proxy has ended this connection.
    pub(crate) fn wait_connection_end(&self, connection: usize) -> (End, Instant) {
        self.shared.wait(&format!("the end of connection {connection}"), |book| {
            book.ends.get(connection).copied().flatten()
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.release_all();
        for sock in &self.shared.lock().sockets {
            let _ = sock.shutdown(std::net::Shutdown::Both);
        }
        let _ = self.place.socket().connect(&self.place.sock_addr());
    }
}

/// A listening address that nobody can reach yet: its accept queue is full, so that
/// every connect waits.
#[derive(Debug)]
pub(crate) struct Crowd {
    listener: Socket,
    place: Place,
    waiting: Vec<Socket>,
}

impl Crowd {
    /// Listens, and fills the queue.
    pub(crate) fn new() -> Crowd {
        let place = Place::parse("127.0.0.1:0");
        let listener = place.socket();
        listener.bind(&place.sock_addr()).expect("the crowd binds");
        listener.listen(0).expect("the crowd listens");
        let addr = listener.local_addr().expect("an address").as_socket().expect("TCP");
        let place = Place::Tcp(addr);
        let mut waiting = Vec::new();
        loop {
            let sock = place.socket();
            let connected = sock.connect_timeout(&place.sock_addr(), Duration::from_millis(200));
            if connected.is_err() {
                return Crowd { listener, place, waiting };
            }
            waiting.push(sock);
            assert!(waiting.len() < 64, "the queue does not fill");
        }
    }

    /// Where it listens.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Lets the crowd in, and whoever tries again.
    pub(crate) fn open(self) -> Origin {
        drop(self.waiting);
        self.listener.listen(128).expect("a longer queue");
        Origin::over(self.listener, self.place, Arc::new(standard))
    }
}

/// One connection from the proxy, in the hands of a handler.
#[derive(Debug)]
pub(crate) struct OriginConn {
    wire: Wire,
    number: usize,
    current: usize,
    shared: Arc<Shared>,
    body_read: bool,
}

impl OriginConn {
    /// Its wire, for another protocol.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Writes octets.
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) -> Result<(), End> {
        self.wire.send(octets.as_ref())
    }

    /// Answers with a length.
    pub(crate) fn answer(&mut self, status: &str, body: impl AsRef<[u8]>) -> Result<Next, End> {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat())?;
        Ok(Next::KeepAlive)
    }

    /// Reads the rest of the request.
    pub(crate) fn body(&mut self) -> Result<Request, End> {
        let request = self.shared.lock().requests[self.current].clone();
        if self.body_read {
            return Ok(request);
        }
        self.body_read = true;
        let mut body = Vec::new();
        let read = if request.head.lists("transfer-encoding", "chunked") {
            self.wire.chunked(&mut body)
        } else {
            let len = request.field("content-length").map_or(0, |v| v.parse().expect("a length"));
            self.wire.exactly(len, &mut body).map(|()| Vec::new())
        };
        let current = self.current;
        self.shared.tell(|book| {
            let request = &mut book.requests[current];
            request.body = body;
            request.whole = read.is_ok();
            if let Ok(trailers) = &read {
                request.trailers = trailers.clone();
            }
        });
        read?;
        Ok(self.shared.lock().requests[current].clone())
    }

    /// Takes what follows the head for the next request, whatever the head says.
    pub(crate) fn forget_body(&mut self) {
        self.body_read = true;
    }

    /// Waits until the test releases `name`, or the proxy ends the connection.
    pub(crate) fn hold(&mut self, name: &str) -> Result<(), End> {
        let start = Instant::now();
        loop {
            {
                let book = self.shared.lock();
                if book.all_released || book.released.contains(name) {
                    return Ok(());
                }
                let woken = self.shared.news.wait_timeout(book, Duration::from_millis(2));
                drop(woken.unwrap_or_else(PoisonError::into_inner));
            }
            if let Some(end) = self.wire.ended() {
                return Err(end);
            }
            if start.elapsed() > PATIENCE * 2 {
                return Err(End::TimedOut);
            }
        }
    }

    /// Waits for the proxy to end the connection.
    pub(crate) fn wait_end(&mut self) -> End {
        self.wire.until_end(&mut Vec::new())
    }
}

fn serve(sock: Socket, shared: Arc<Shared>, handler: &Handler) {
    let _ = sock.set_tcp_nodelay(true);
    let number = shared.tell(|book| {
        book.ends.push(None);
        book.sockets.extend(sock.try_clone());
        book.ends.len() - 1
    });
    let wire = Wire::new(sock);
    wire.read_bound(PATIENCE * 3);
    wire.write_bound(PATIENCE * 3);
    let mut conn =
        OriginConn { wire, number, current: 0, shared: Arc::clone(&shared), body_read: false };
    let end = converse(&mut conn, handler);
    shared.tell(|book| book.ends[number] = Some((end, Instant::now())));
}

/// Serves requests until one side ends the connection; how it ended.
fn converse(conn: &mut OriginConn, handler: &Handler) -> End {
    loop {
        let head = match conn.wire.head() {
            Ok(head) => head,
            Err(end) => return end,
        };
        let mut words = head.start.split(' ').map(str::to_owned);
        let request = Request {
            connection: conn.number,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            head,
            ..Request::default()
        };
        let bodiless = request.field("content-length").is_none_or(|v| v == "0")
            && request.field("transfer-encoding").is_none();
        conn.body_read = false;
        conn.current = conn.shared.tell(|book| {
            book.requests.push(Request { whole: bodiless, ..request.clone() });
            book.requests.len() - 1
        });
        let next = handler(conn, &request).and_then(|next| match next {
            Next::KeepAlive => conn.body().map(|_| next),
            _ => Ok(next),
        });
        match next {
            Ok(Next::KeepAlive) => {}
            Ok(Next::Close) => {
                let _ = conn.wire.sock.shutdown(std::net::Shutdown::Write);
                return conn.wait_end();
            }
            Ok(Next::Reset) => {
                conn.wire.reset();
                let mut book = conn.shared.lock();
                // The copy kept for the end of the test would keep the socket open.
                book.sockets.retain(|copy| !same(copy, &conn.wire.sock));
                return End::Reset;
            }
            Err(end) => return end,
        }
    }
}

fn same(a: &Socket, b: &Socket) -> bool {
    let ends = |s: &Socket| (s.local_addr().ok(), s.peer_addr().ok());
    ends(a) == ends(b)
}

/// What an origin answers unless a test scripts it:
///
/// | target | answer |
/// | --- | --- |
/// | `/echo` | the request's body and trailers, framed as the request was |
/// | `/hold…` | 200 `held`, once the test releases this target |
/// | `/part/length…`, `/part/chunked…`, `/part/close…` | a head and half a body; the other half once released |
/// | `/die/length`, `/die/chunked`, `/die/close` | a head and half a body, then the end: FIN, FIN, RST |
/// | `/chunked` | two chunks and a trailer |
/// | `/close` | a body that ends with the connection |
/// | `/early/N` | N octets at once, without reading the request's body |
/// | `/curt/N` | the same, and closes |
/// | `/bytes/N` | N octets of [`pattern`] |
/// | `/think/MS` | 200, after so long |
/// | `/none`, `/unmodified` | 204, 304 |
/// | anything else | 200 with method, target and length of the body |
pub(crate) fn standard(conn: &mut OriginConn, request: &Request) -> Result<Next, End> {
    let target = request.target.split('?').next().unwrap_or_default();
    let mut words = target.split('/').skip(1);
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let number = || second.parse::<usize>().unwrap_or_else(|_| panic!("no number: {target}"));
    if first == "early" {
        return early(conn, number());
    }
    if first == "curt" {
        return conn.answer("200 OK", pattern(number())).map(|_| Next::Close);
    }
    let request = conn.body()?;
    match first {
        "echo" => echo(conn, &request),
        "part" => part(conn, &request, second),
        "die" => die(conn, second),
        "chunked" => {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")?;
            conn.send("5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n")?;
            Ok(Next::KeepAlive)
        }
        "close" => {
            conn.send("HTTP/1.1 200 OK\r\n\r\nuntil the end")?;
            Ok(Next::Close)
        }
        "bytes" => {
            if request.method == "HEAD" {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", number());
                return conn.send(head).map(|()| Next::KeepAlive);
            }
            conn.answer("200 OK", pattern(number()))
        }
        "think" => {
            pause(Duration::from_millis(number() as u64));
            conn.answer("200 OK", "thought")
        }
        "none" => conn.send("HTTP/1.1 204 No Content\r\n\r\n").map(|()| Next::KeepAlive),
        "unmodified" => conn
            .send("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 5\r\n\r\n")
            .map(|()| Next::KeepAlive),
        _ if first.starts_with("hold") => {
            conn.hold(&request.target)?;
            conn.answer("200 OK", "held")
        }
        _ => {
            let text = format!("{} {} {}", request.method, request.target, request.body.len());
            if request.method == "HEAD" {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len()))?;
                return Ok(Next::KeepAlive);
            }
            conn.answer("200 OK", text)
        }
    }
}

fn echo(conn: &mut OriginConn, request: &Request) -> Result<Next, End> {
    if !request.head.lists("transfer-encoding", "chunked") {
        return conn.answer("200 OK", &request.body);
    }
    conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for piece in request.body.chunks(10_000) {
        conn.send(format!("{:x}\r\n", piece.len()))?;
        conn.send(piece)?;
        conn.send("\r\n")?;
    }
    let trailers = request.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    conn.send(format!("0\r\n{}\r\n", trailers.collect::<String>()))?;
    Ok(Next::KeepAlive)
}

/// The halves of the body of `/part` and `/die`.
pub(crate) const HALVES: [&str; 2] = ["first half, ", "second half"];

fn first_half(conn: &mut OriginConn, framing: &str) -> Result<(), End> {
    let [first, second] = HALVES;
    match framing {
        "length" => {
            let len = first.len() + second.len();
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{first}"))
        }
        "chunked" => {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            conn.send(format!("{:x}\r\n{first}\r\n", first.len()))
        }
        _ => conn.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{first}")),
    }
}

fn part(conn: &mut OriginConn, request: &Request, framing: &str) -> Result<Next, End> {
    first_half(conn, framing)?;
    conn.hold(&request.target)?;
    let second = HALVES[1];
    match framing {
        "length" => conn.send(second)?,
        "chunked" => conn.send(format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len()))?,
        _ => {
            conn.send(second)?;
            return Ok(Next::Close);
        }
    }
    Ok(Next::KeepAlive)
}

fn die(conn: &mut OriginConn, framing: &str) -> Result<Next, End> {
    first_half(conn, framing)?;
    // A reset overtakes what is not read yet: it may come only when the client has its half.
    conn.hold("/die")?;
    Ok(if framing == "close" { Next::Reset } else { Next::Close })
}

fn early(conn: &mut OriginConn, len: usize) -> Result<Next, End> {
    conn.answer("200 OK", pattern(len))?;
    let mut rest = Vec::new();
    conn.wire.until_end(&mut rest);
    Ok(Next::Close)
}
