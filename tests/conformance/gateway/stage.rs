//! The origin of the cases: it plays what a case says, also before it is asked, and keeps what
//! reached it. It listens where it is told to, for a proxy that was set up by somebody else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use socket2::Socket;

use super::case::{Act, Answer};
use crate::support::origin::Request;
use crate::support::wire::{End, Head, Place, Wire};
use crate::support::{PATIENCE, ms, pause};

/// What requests are for that belong to no case.
pub(crate) const INNOCENT: &str = "/innocent/";
/// The same, on a connection that the origin then ends.
pub(crate) const LAST: &str = "/innocent/last/";

#[derive(Debug, Default)]
struct Book {
    requests: Vec<Request>,
    connections: usize,
    /// What is still to be played of this scene.
    answers: VecDeque<Answer>,
    /// Which scene this is.
    scene: usize,
    /// How many answers are being played.
    playing: usize,
    /// How many connections are served.
    served: usize,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    over: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listening origin.
#[derive(Debug)]
pub(crate) struct Stage {
    place: Place,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Stage {
    /// Listens there.
    pub(crate) fn at(place: &Place) -> Stage {
        let listener = place.socket();
        listener.set_reuse_address(true).expect("an address that was in use");
        listener.bind(&place.sock_addr()).expect("the origin binds");
        listener.listen(1024).expect("the origin listens");
        let addr = listener.local_addr().expect("an address").as_socket().expect("TCP");
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            while let Ok((sock, _)) = listener.accept() {
                if ours.over.load(Ordering::SeqCst) {
                    return;
                }
                ours.lock().served += 1;
                let shared = Arc::clone(&ours);
                std::thread::spawn(move || {
                    serve(sock, &shared);
                    shared.lock().served -= 1;
                });
            }
        });
        Stage { place: Place::Tcp(addr), shared, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// From here on it plays this, and is silent no longer.
    pub(crate) fn play(&self, answers: &[Answer]) {
        let mut book = self.shared.lock();
        book.answers = answers.iter().cloned().collect();
        book.scene += 1;
    }

    /// Waits until everything that it has begun to say is said. What it says is then in the
    /// proxy's hands.
    pub(crate) fn wait_said(&self) {
        let end = Instant::now() + PATIENCE;
        while self.shared.lock().playing > 0 && Instant::now() < end {
            pause(ms(1));
        }
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.play(&[]);
        let _ = self.place.socket().connect(&self.place.sock_addr());
        let _ = self.accepting.take().map(JoinHandle::join);
        // The next stage may listen here: nothing of this one may still answer.
        for _ in 0..100 {
            if self.shared.lock().served == 0 {
                return;
            }
            pause(ms(5));
        }
    }
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Request,
    Close,
    Reset,
}

struct Player<'s> {
    wire: Wire,
    shared: &'s Shared,
    number: usize,
    /// The request at hand, and whether its body is still to be read.
    current: usize,
    body_due: bool,
}

fn serve(sock: Socket, shared: &Shared) {
    let _ = sock.set_tcp_nodelay(true);
    let wire = Wire::new(sock);
    wire.read_bound(PATIENCE);
    wire.write_bound(PATIENCE);
    let (number, eager) = {
        let mut book = shared.lock();
        book.connections += 1;
        let first = book.answers.front().is_some_and(|answer| answer.eager);
        let first = if first { book.answers.pop_front() } else { None };
        (book.connections - 1, first)
    };
    let mut player = Player { wire, shared, number, current: 0, body_due: false };
    match player.converse(eager) {
        Ok(Next::Reset) => player.wire.reset(),
        Ok(Next::Close) => {
            let _ = player.wire.sock.shutdown(std::net::Shutdown::Write);
            player.wire.until_end(&mut Vec::new());
        }
        Ok(Next::Request) | Err(_) => {}
    }
}

impl Player<'_> {
    fn converse(&mut self, eager: Option<Answer>) -> Result<Next, End> {
        let mut said_already = eager.is_some();
        if let Some(answer) = eager {
            let next = self.perform(&answer)?;
            if next != Next::Request {
                return Ok(next);
            }
        }
        loop {
            let request = self.request()?;
            let next = if std::mem::take(&mut said_already) {
                Next::Request
            } else {
                self.answer(&request)?
            };
            self.body()?;
            if next != Next::Request {
                return Ok(next);
            }
        }
    }

    fn request(&mut self) -> Result<Request, End> {
        let head = self.head()?;
        let mut words = head.start.split(' ').map(str::to_owned);
        let request = Request {
            connection: self.number,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            head,
            ..Request::default()
        };
        let mut book = self.shared.lock();
        book.requests.push(request.clone());
        self.current = book.requests.len() - 1;
        self.body_due = true;
        Ok(request)
    }

    /// The head of the next request, unless the stage is over before it comes.
    fn head(&mut self) -> Result<Head, End> {
        self.wire.read_bound(ms(50));
        let head = loop {
            match self.wire.head() {
                Err(End::TimedOut) if !self.shared.over.load(Ordering::SeqCst) => {}
                other => break other,
            }
        };
        self.wire.read_bound(PATIENCE);
        head
    }

    fn answer(&mut self, request: &Request) -> Result<Next, End> {
        let target = &request.target;
        if target.starts_with(INNOCENT) {
            let last = target.starts_with(LAST);
            let close = if last { "Connection: close\r\n" } else { "" };
            let len = target.len();
            let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {len}\r\n\r\n{target}");
            self.wire.send(head.as_bytes())?;
            return Ok(if last { Next::Close } else { Next::Request });
        }
        let scripted = self.shared.lock().answers.pop_front();
        if let Some(answer) = scripted {
            return self.perform(&answer);
        }
        self.body()?;
        let body = if request.method == "HEAD" { "" } else { "ok" };
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        self.wire.send([head, body].concat().as_bytes())?;
        Ok(Next::Request)
    }

    fn perform(&mut self, answer: &Answer) -> Result<Next, End> {
        self.shared.lock().playing += 1;
        let performed = self.acts(answer);
        self.shared.lock().playing -= 1;
        performed
    }

    fn acts(&mut self, answer: &Answer) -> Result<Next, End> {
        for act in &answer.acts {
            match act {
                Act::Body => self.body()?,
                Act::Write(octets) => self.wire.send(octets)?,
                Act::Pause(length) => pause(ms(*length)),
                Act::Close => return Ok(Next::Close),
                Act::Reset => return Ok(Next::Reset),
                Act::Silent => self.silent()?,
            }
        }
        Ok(Next::Request)
    }

    /// Says nothing until the scene is over or the proxy has ended the connection.
    fn silent(&self) -> Result<(), End> {
        let scene = self.shared.lock().scene;
        while self.shared.lock().scene == scene {
            if let Some(end) = self.wire.ended() {
                return Err(end);
            }
            pause(ms(2));
        }
        Err(End::TimedOut)
    }

    /// Reads the rest of the request.
    fn body(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.body_due) {
            return Ok(());
        }
        let head = self.shared.lock().requests[self.current].head.clone();
        let mut body = Vec::new();
        let read = if head.lists("transfer-encoding", "chunked") {
            self.wire.chunked(&mut body)
        } else {
            let length = head.all("content-length").first().and_then(|value| value.parse().ok());
            self.wire.exactly(length.unwrap_or(0), &mut body).map(|()| Vec::new())
        };
        let mut book = self.shared.lock();
        let request = &mut book.requests[self.current];
        request.body = body;
        request.whole = read.is_ok();
        request.trailers = read?;
        Ok(())
    }
}
