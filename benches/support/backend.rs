//! An application that costs next to nothing: one thread, one epoll set.
//!
//! Sockets stay blocking. The set is level-triggered, so one read after each
//! report never waits, and a response of 1 KB always fits a socket's buffer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::thread;

use super::poller::Poller;
use super::{Error, host, message};

/// What a connection is spoken on. Answers are written at once: they have to fit a
/// socket's buffer, or the client has to read them while they are written.
pub(crate) trait App: Default + Send + 'static {
    /// How many octets are read at once.
    const READ: usize;

    /// Takes what was read, and answers what is whole.
    fn take(&mut self, octets: &mut [u8], stream: &mut TcpStream) -> Result<(), Error>;
}

/// Starts the backend on a port of its own; it lives as long as the process.
pub(crate) fn start() -> Result<SocketAddr, Error> {
    start_app::<Requests>()
}

/// The same with another application.
pub(crate) fn start_app<A: App>() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let mut backend = Backend::<A>::new(listener)?;
    thread::Builder::new().name("backend".into()).spawn(move || {
        let outcome = host::pin_to(host::LOAD_CORE).and_then(|()| backend.serve());
        if let Err(error) = outcome {
            eprintln!("the backend ended: {error}");
        }
    })?;
    Ok(addr)
}

struct Backend<A> {
    listener: TcpListener,
    poller: Poller,
    /// By descriptor.
    connections: Vec<Option<Connection<A>>>,
    buffer: Vec<u8>,
}

struct Connection<A> {
    stream: TcpStream,
    app: A,
}

impl<A: App> Backend<A> {
    fn new(listener: TcpListener) -> Result<Self, Error> {
        let poller = Poller::new()?;
        poller.add(&listener, key(listener.as_raw_fd())?)?;
        Ok(Self { listener, poller, connections: Vec::new(), buffer: vec![0; A::READ] })
    }

    fn serve(&mut self) -> Result<(), Error> {
        let listener = key(self.listener.as_raw_fd())?;
        loop {
            for index in 0..self.poller.wait(None)? {
                match self.poller.ready(index) {
                    fd if fd == listener => self.accept()?,
                    fd => self.answer(fd as usize),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Error> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd();
        self.poller.add(&stream, key(fd)?)?;
        let slot = usize::try_from(fd)?;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(Connection { stream, app: A::default() });
        Ok(())
    }

    /// A connection that ends or sends nonsense is closed; whoever is on the
    /// other side will report it.
    fn answer(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let buffer = &mut self.buffer;
        let open = connection.as_mut().is_some_and(|it| it.answer(buffer).unwrap_or(false));
        if !open {
            *connection = None;
        }
    }
}

impl<A: App> Connection<A> {
    /// Reads once and answers what is whole; `false` at the end of the input.
    fn answer(&mut self, buffer: &mut [u8]) -> Result<bool, Error> {
        let read = self.stream.read(buffer)?;
        self.app.take(&mut buffer[..read], &mut self.stream)?;
        Ok(read > 0)
    }
}

/// Answers requests with the one response of the bench.
#[derive(Default)]
pub(crate) struct Requests {
    unanswered: Vec<u8>,
}

impl App for Requests {
    const READ: usize = 4096;

    fn take(&mut self, octets: &mut [u8], stream: &mut TcpStream) -> Result<(), Error> {
        self.unanswered.extend_from_slice(octets);
        while let Some((number, length)) = message::parse_request(&self.unanswered)? {
            stream.write_all(&message::response(&number))?;
            self.unanswered.drain(..length);
        }
        Ok(())
    }
}

fn key(fd: RawFd) -> Result<u64, Error> {
    Ok(u64::try_from(fd)?)
}
