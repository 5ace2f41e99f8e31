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

/// Starts the backend on a port of its own; it lives as long as the process.
pub(crate) fn start() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let mut backend = Backend::new(listener)?;
    thread::Builder::new().name("backend".into()).spawn(move || {
        let outcome = host::pin_to(host::LOAD_CORE).and_then(|()| backend.serve());
        if let Err(error) = outcome {
            eprintln!("the backend ended: {error}");
        }
    })?;
    Ok(addr)
}

struct Backend {
    listener: TcpListener,
    poller: Poller,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
}

struct Connection {
    stream: TcpStream,
    unanswered: Vec<u8>,
}

impl Backend {
    fn new(listener: TcpListener) -> Result<Self, Error> {
        let poller = Poller::new()?;
        poller.add(&listener, key(listener.as_raw_fd())?)?;
        Ok(Self { listener, poller, connections: Vec::new() })
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
        self.connections[slot] = Some(Connection { stream, unanswered: Vec::new() });
        Ok(())
    }

    /// A connection that ends or sends nonsense is closed; whoever is on the
    /// other side will report it.
    fn answer(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let open = connection.as_mut().is_some_and(|it| it.answer().unwrap_or(false));
        if !open {
            *connection = None;
        }
    }
}

impl Connection {
    /// Reads once and answers what is whole; `false` at the end of the input.
    fn answer(&mut self) -> Result<bool, Error> {
        let mut octets = [0; 4096];
        let read = self.stream.read(&mut octets)?;
        self.unanswered.extend_from_slice(&octets[..read]);
        while let Some((number, length)) = message::parse_request(&self.unanswered)? {
            self.stream.write_all(&message::response(&number))?;
            self.unanswered.drain(..length);
        }
        Ok(read > 0)
    }
}

fn key(fd: RawFd) -> Result<u64, Error> {
    Ok(u64::try_from(fd)?)
}
