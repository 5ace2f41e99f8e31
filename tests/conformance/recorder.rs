//! The origin behind a subject: it takes any octets, keeps them as they came, and
//! answers what is a request by the strict reading of [`crate::strict`]. One request
//! for each connection, so that a case is over when its connections are.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::strict;
use crate::support::wire::{Place, Wire};
use crate::support::{PATIENCE, ms};

/// How long a subject may keep a connection to the origin that the origin has ended.
const LINGER: Duration = ms(1500);

/// The recording origin.
#[derive(Debug)]
pub(crate) struct Recorder {
    place: Place,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    news: Condvar,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    records: Vec<Record>,
    /// Whose connections are ours and no subject's.
    markers: HashSet<SocketAddr>,
    reached: HashSet<SocketAddr>,
}

#[derive(Debug)]
struct Record {
    octets: Vec<u8>,
    ended: bool,
    sock: TcpStream,
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

    /// Waits for a state of the book; whether it came in time.
    fn wait(&self, bound: Duration, state: impl Fn(&Book) -> bool) -> bool {
        let end = Instant::now() + bound;
        let mut book = self.lock();
        while !state(&book) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.news.wait_timeout(book, left);
            book = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Recorder {
    /// Listens on a port of its own.
    pub(crate) fn new() -> Recorder {
        Recorder::at(&Place::parse("127.0.0.1:0"))
    }

    /// Listens where a subject expects it.
    pub(crate) fn at(place: &Place) -> Recorder {
        let Place::Tcp(wanted) = place else { panic!("{place} is no TCP address") };
        let listener = TcpListener::bind(wanted).expect("an address for the origin");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &worker));
        Recorder { place: Place::Tcp(addr), addr, shared }
    }

    /// Where it listens.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What reached it since the last time, connection by connection. The client has
    /// its answer, or its end: what a connection brings behind that is waited for.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        self.wait_for_accepted();
        let ended = |book: &Book| book.records.iter().all(|record| record.ended);
        if !self.shared.wait(LINGER, ended) {
            for record in &self.shared.lock().records {
                let _ = record.sock.shutdown(std::net::Shutdown::Both);
            }
            assert!(self.shared.wait(PATIENCE, ended), "connections that do not end");
        }
        let records = self.shared.tell(|book| std::mem::take(&mut book.records));
        records.into_iter().map(|record| record.octets).collect()
    }

    /// Waits until every connection that the kernel has made by now is accepted: they
    /// come in order, and so does one of our own.
    fn wait_for_accepted(&self) {
        let mut book = self.shared.lock();
        let marker = TcpStream::connect(self.addr).expect("a connection to ourselves");
        let from = marker.local_addr().expect("its address");
        book.markers.insert(from);
        drop(book);
        let reached = self.shared.wait(PATIENCE, |book| book.reached.contains(&from));
        assert!(reached, "the origin accepts no more");
        self.shared.tell(|book| (book.markers.remove(&from), book.reached.remove(&from)));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for sock in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(sock) = sock else { continue };
        let Ok(from) = sock.peer_addr() else { continue };
        let Ok(copy) = sock.try_clone() else { continue };
        let nth = shared.tell(|book| {
            if book.markers.contains(&from) {
                book.reached.insert(from);
                return None;
            }
            book.records.push(Record { octets: Vec::new(), ended: false, sock: copy });
            Some(book.records.len() - 1)
        });
        if let Some(nth) = nth {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || serve(sock, nth, &shared));
        }
    }
}

/// Reads a connection to its end, and answers its first request.
fn serve(sock: TcpStream, nth: usize, shared: &Shared) {
    let Ok(mut out) = sock.try_clone() else { return };
    let mut wire = Wire::new(sock.into());
    wire.read_bound(PATIENCE * 10);
    let (mut told, mut answered) = (false, false);
    while wire.fill().is_ok() {
        let octets = wire.ahead.clone();
        shared.tell(|book| book.records[nth].octets.clone_from(&octets));
        if answered {
            continue;
        }
        let reading = strict::read(&octets);
        let answer = match (&reading.broken, reading.requests.first()) {
            (None, None) if reading.waits && !told => {
                told = true;
                let _ = out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                continue;
            }
            (None, None) => continue,
            (_, Some(request)) => ok(&request.method),
            (Some(_), None) => BAD.to_owned(),
        };
        answered = true;
        let _ = out.write_all(answer.as_bytes());
        let _ = out.shutdown(std::net::Shutdown::Write);
    }
    shared.tell(|book| book.records[nth].ended = true);
}

fn ok(method: &[u8]) -> String {
    let body = if method == b"HEAD" { "" } else { "ok\n" };
    format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{body}")
}

/// The answer to what is no request, with a status that no proxy has of its own.
const BAD: &str = "HTTP/1.1 444 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
