//! Keep-alive clients in one thread: each sends its next request when the
//! response to the last one is whole and right.
//!
//! Any response that is late, wrong or missing ends the measurement: a figure
//! that includes errors would say nothing.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::poller::Poller;
use super::{Error, message};

/// Generous: callgrind slows the proxy down fifty times.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests under way at once while many connections are opened.
const OPENING: usize = 64;

/// When to stop sending.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Requests(u64),
    Elapsed(Duration),
}

/// A set of keep-alive connections to one address.
pub(crate) struct Load {
    addr: SocketAddr,
    poller: Poller,
    clients: Vec<Client>,
    sent: u64,
}

struct Client {
    stream: TcpStream,
    number: message::Number,
    received: Vec<u8>,
}

/// How the proxy closed idle connections.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    pub(crate) in_order: usize,
    pub(crate) reset: usize,
}

impl Load {
    /// No connection yet.
    pub(crate) fn new(addr: SocketAddr) -> Result<Self, Error> {
        Ok(Self { addr, poller: Poller::new()?, clients: Vec::new(), sent: 0 })
    }

    /// `count` connections that have sent nothing.
    pub(crate) fn connect(addr: SocketAddr, count: usize) -> Result<Self, Error> {
        let mut load = Self::new(addr)?;
        for opened in 1..=count {
            load.open()?;
            // Leaves the proxy time to accept: a full backlog drops a SYN,
            // which is sent again only a second later.
            if opened % OPENING == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(load)
    }

    /// `count` connections, each idle after one request.
    pub(crate) fn connect_and_ask(addr: SocketAddr, count: usize) -> Result<Self, Error> {
        let mut load = Self::new(addr)?;
        let first = count.min(OPENING);
        for _ in 0..first {
            let client = load.open()?;
            load.send(client)?;
        }
        load.drive(first, |load, _| {
            if load.clients.len() < count { load.open().map(Some) } else { Ok(None) }
        })?;
        Ok(load)
    }

    /// Runs all connections in a closed loop; returns the completed requests.
    pub(crate) fn run(&mut self, until: Until) -> Result<u64, Error> {
        let started = Instant::now();
        let before = self.sent;
        let more = |load: &Self| match until {
            Until::Requests(count) => load.sent - before < count,
            Until::Elapsed(time) => started.elapsed() < time,
        };
        let mut busy = 0;
        for client in 0..self.clients.len() {
            if more(self) {
                self.send(client)?;
                busy += 1;
            }
        }
        self.drive(busy, |load, client| Ok(more(load).then_some(client)))
    }

    /// Sends `rate` requests a second for `time`, each on the connection that has been
    /// idle for longest; later than due if there is none. Returns the completed requests.
    pub(crate) fn run_paced(&mut self, rate: u64, time: Duration) -> Result<u64, Error> {
        let total = (time.as_secs_f64() * rate as f64) as u64;
        let due_at = |n: u64| Duration::from_secs_f64(n as f64 / rate as f64);
        let mut idle: VecDeque<_> = (0..self.clients.len()).collect();
        let (mut sent, mut completed) = (0, 0);
        let started = Instant::now();
        while completed < total {
            while sent < total && started.elapsed() >= due_at(sent) {
                let Some(client) = idle.pop_front() else { break };
                self.send(client)?;
                sent += 1;
            }
            let is_pacing = sent < total && !idle.is_empty();
            if !is_pacing {
                self.wait()?;
            } else if self.poller.wait(Some(due_at(sent).saturating_sub(started.elapsed())))? == 0 {
                continue;
            }
            for index in 0..self.poller.count() {
                let client = self.poller.ready(index) as usize;
                if self.clients[client].receive()? {
                    completed += 1;
                    idle.push_back(client);
                }
            }
        }
        Ok(completed)
    }

    /// Closes each connection when the proxy does, until none is left.
    pub(crate) fn follow_closing(mut self) -> Result<Closed, Error> {
        let mut closed = Closed::default();
        let mut open: Vec<_> = self.clients.drain(..).map(|it| Some(it.stream)).collect();
        while closed.in_order + closed.reset < open.len() {
            for index in 0..self.wait()? {
                let client = self.poller.ready(index) as usize;
                let Some(mut stream) = open[client].take() else {
                    continue;
                };
                match stream.read(&mut [0; 1]) {
                    Ok(0) => closed.in_order += 1,
                    Ok(_) => return Err("octets that nobody asked for".into()),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => closed.reset += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(closed)
    }

    /// Receives until no request is under way. `next` names the connection to
    /// send on when one has its response, or none.
    fn drive(
        &mut self,
        mut busy: usize,
        next: impl Fn(&mut Self, usize) -> Result<Option<usize>, Error>,
    ) -> Result<u64, Error> {
        let mut completed = 0;
        while busy > 0 {
            for index in 0..self.wait()? {
                let client = self.poller.ready(index) as usize;
                if !self.clients[client].receive()? {
                    continue;
                }
                completed += 1;
                match next(self, client)? {
                    Some(client) => self.send(client)?,
                    None => busy -= 1,
                }
            }
        }
        Ok(completed)
    }

    fn wait(&mut self) -> Result<usize, Error> {
        match self.poller.wait(Some(PATIENCE))? {
            0 => Err(format!("nothing came from {} in {PATIENCE:?}", self.addr).into()),
            ready => Ok(ready),
        }
    }

    fn open(&mut self) -> Result<usize, Error> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        let index = self.clients.len();
        self.poller.add(&stream, index as u64)?;
        self.clients.push(Client { stream, number: message::number(0), received: Vec::new() });
        Ok(index)
    }

    fn send(&mut self, client: usize) -> Result<(), Error> {
        self.sent += 1;
        let client = &mut self.clients[client];
        client.number = message::number(self.sent);
        client.stream.write_all(&message::request(&client.number))?;
        Ok(())
    }
}

impl Client {
    /// Reads once; whether the response is whole.
    fn receive(&mut self) -> Result<bool, Error> {
        let mut octets = [0; 4096];
        let read = self.stream.read(&mut octets)?;
        if read == 0 {
            return Err("the proxy closed a connection".into());
        }
        self.received.extend_from_slice(&octets[..read]);
        let whole = message::check_response(&self.received, &self.number)?;
        if whole {
            self.received.clear();
        }
        Ok(whole)
    }
}
