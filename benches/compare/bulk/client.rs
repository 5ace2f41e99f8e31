//! Clients of large bodies: a thread for each connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Direction, body};
use crate::support::{Error, host, message};

const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that are asked one after the other.
pub(super) struct Clients {
    lanes: Vec<Lane>,
    direction: Direction,
    body: Arc<Vec<u8>>,
}

/// A connection, and how many requests it has had.
struct Lane {
    stream: TcpStream,
    asked: u64,
    buffer: Vec<u8>,
}

impl Clients {
    pub(super) fn connect(
        addr: SocketAddr,
        count: usize,
        direction: Direction,
    ) -> Result<Self, Error> {
        let open = |_| -> Result<Lane, Error> {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Lane { stream, asked: 0, buffer: vec![0; 256 * 1024] })
        };
        let lanes = (0..count).map(open).collect::<Result<_, _>>()?;
        Ok(Self { lanes, direction, body: Arc::new(body()) })
    }

    /// Body after body on all connections; how many octets that were. Each connection
    /// ends with a whole body, so a window lasts a little longer than `time`.
    pub(super) fn run(&mut self, time: Duration) -> Result<u64, Error> {
        let started = Instant::now();
        let (direction, body) = (self.direction, &self.body);
        thread::scope(|scope| {
            let work = |lane: &'_ mut Lane| -> Result<u64, Error> {
                host::pin_to(host::LOAD_CORE)?;
                let mut octets = 0;
                while started.elapsed() < time {
                    lane.ask(direction, body)?;
                    octets += body.len() as u64;
                }
                Ok(octets)
            };
            let lanes: Vec<_> =
                self.lanes.iter_mut().map(|lane| scope.spawn(move || work(lane))).collect();
            lanes.into_iter().map(|lane| lane.join().map_err(|_| "a client panicked")?).sum()
        })
    }
}

impl Lane {
    fn ask(&mut self, direction: Direction, body: &[u8]) -> Result<(), Error> {
        self.asked += 1;
        let number = message::number(self.asked);
        let text = String::from_utf8_lossy(&number);
        let fields = "Host: cost.example\r\nUser-Agent: cost\r\nAccept: */*\r\n";
        match direction {
            Direction::Down => {
                write!(self.stream, "GET /down/{text} HTTP/1.1\r\n{fields}\r\n")?;
                self.take_down(&number, body)
            }
            Direction::Up => {
                let length = body.len();
                let fields = format!("{fields}Content-Length: {length}\r\n");
                write!(self.stream, "POST /up/{text} HTTP/1.1\r\n{fields}\r\n")?;
                self.stream.write_all(body)?;
                self.take_answer(&number)
            }
        }
    }

    /// The response to an upload: 200 only if the application got each octet.
    fn take_answer(&mut self, number: &message::Number) -> Result<(), Error> {
        let mut received = Vec::new();
        while !message::check_response(&received, number)? {
            self.read_more(&mut received)?;
        }
        Ok(())
    }

    fn take_down(&mut self, number: &message::Number, body: &[u8]) -> Result<(), Error> {
        let mut received = Vec::new();
        let head = loop {
            if let Some(length) = message::head_length(&received) {
                break length;
            }
            self.read_more(&mut received)?;
        };
        let said = String::from_utf8_lossy(&received[..head]).to_ascii_lowercase();
        let length = format!("content-length: {}\r\n", body.len());
        let number = format!("x-number: {}\r\n", String::from_utf8_lossy(number));
        if !said.starts_with("http/1.1 200 ") || !said.contains(&length) || !said.contains(&number)
        {
            return Err(format!("wrong response: {said}").into());
        }
        let mut at = 0;
        let mut piece = &received[head..];
        loop {
            if body.get(at..at + piece.len()) != Some(piece) {
                return Err(format!("wrong octets after {at} of a body").into());
            }
            at += piece.len();
            if at == body.len() {
                return Ok(());
            }
            let read = self.stream.read(&mut self.buffer)?;
            if read == 0 {
                return Err(format!("a body ended after {at} octets").into());
            }
            piece = &self.buffer[..read];
        }
    }

    fn read_more(&mut self, received: &mut Vec<u8>) -> Result<(), Error> {
        let read = self.stream.read(&mut self.buffer)?;
        if read == 0 {
            return Err("the proxy closed a connection".into());
        }
        received.extend_from_slice(&self.buffer[..read]);
        Ok(())
    }
}
