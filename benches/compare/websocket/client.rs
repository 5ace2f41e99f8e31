//! Clients of WebSockets in one thread: each sends its next message when the last one has
//! come back as it was.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::frame;
use crate::support::poller::Poller;
use crate::support::{Error, message};

const PATIENCE: Duration = Duration::from_secs(30);

/// Room for a whole message in the kernel, so that who sends back never waits for who
/// sends on another connection.
const KERNEL_BUFFER: usize = 256 * 1024;

/// A set of WebSockets to one address.
pub(super) struct Clients {
    poller: Poller,
    lanes: Vec<Lane>,
    /// The message as it is sent and as it comes back; each begins with its number.
    sending: Template,
    coming: Template,
    buffer: Vec<u8>,
    sent: u64,
}

/// A frame, and where the number of its message stands.
struct Template {
    octets: Vec<u8>,
    number: usize,
}

struct Lane {
    stream: TcpStream,
    number: message::Number,
    /// Octets of the message that have come back.
    received: usize,
}

impl Template {
    fn new(payload: usize, is_masked: bool) -> Self {
        let mut octets = frame::head(payload, is_masked);
        let number = octets.len();
        octets.resize(number + payload, b'.');
        Self { octets, number }
    }

    fn numbered(&mut self, number: &message::Number) -> &[u8] {
        self.octets[self.number..][..number.len()].copy_from_slice(number);
        &self.octets
    }
}

impl Clients {
    /// So many WebSockets for messages of so many octets.
    pub(super) fn connect(addr: SocketAddr, count: usize, size: usize) -> Result<Self, Error> {
        let poller = Poller::new()?;
        let mut lanes = Vec::new();
        for index in 0..count {
            let stream = open(addr)?;
            poller.add(&stream, index as u64)?;
            lanes.push(Lane { stream, number: message::number(0), received: 0 });
        }
        let (sending, coming) = (Template::new(size, true), Template::new(size, false));
        Ok(Self { poller, lanes, sending, coming, buffer: vec![0; KERNEL_BUFFER], sent: 0 })
    }

    /// Messages on all for so long; how many came back.
    pub(super) fn run(&mut self, time: Duration) -> Result<u64, Error> {
        let started = Instant::now();
        self.drive(|| started.elapsed() < time)
    }

    /// One message on each.
    pub(super) fn run_once(&mut self) -> Result<u64, Error> {
        self.drive(|| false)
    }

    fn drive(&mut self, is_more_wanted: impl Fn() -> bool) -> Result<u64, Error> {
        let (mut busy, mut completed) = (self.lanes.len(), 0);
        (0..busy).try_for_each(|lane| self.send(lane))?;
        while busy > 0 {
            if self.poller.wait(Some(PATIENCE))? == 0 {
                return Err(format!("no message came back in {PATIENCE:?}").into());
            }
            for index in 0..self.poller.count() {
                let lane = self.poller.ready(index) as usize;
                if !self.receive(lane)? {
                    continue;
                }
                completed += 1;
                if is_more_wanted() {
                    self.send(lane)?;
                } else {
                    busy -= 1;
                }
            }
        }
        Ok(completed)
    }

    fn send(&mut self, lane: usize) -> Result<(), Error> {
        self.sent += 1;
        let lane = &mut self.lanes[lane];
        lane.number = message::number(self.sent);
        Ok(lane.stream.write_all(self.sending.numbered(&lane.number))?)
    }

    /// Reads once; whether the message is whole.
    fn receive(&mut self, lane: usize) -> Result<bool, Error> {
        let lane = &mut self.lanes[lane];
        let read = lane.stream.read(&mut self.buffer)?;
        if read == 0 {
            return Err("the proxy closed a tunnel".into());
        }
        let octets = &self.buffer[..read];
        let expected = self.coming.numbered(&lane.number);
        let before = lane.received;
        if expected.get(before..before + read) != Some(octets) {
            return Err(format!("wrong octets after {before} of a frame").into());
        }
        let is_whole = before + read == expected.len();
        lane.received = if is_whole { 0 } else { before + read };
        Ok(is_whole)
    }
}

/// A WebSocket on which nothing was said.
fn open(addr: SocketAddr) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    SockRef::from(&stream).set_recv_buffer_size(KERNEL_BUFFER)?;
    stream.write_all(frame::WISH)?;
    let mut received = Vec::new();
    while message::head_length(&received).is_none() {
        let mut octet = [0; 1024];
        let read = stream.read(&mut octet)?;
        if read == 0 {
            return Err("the proxy closed a connection instead of a handshake".into());
        }
        received.extend_from_slice(&octet[..read]);
    }
    let said = String::from_utf8_lossy(&received);
    let is_right = said.starts_with("HTTP/1.1 101 ") && said.contains(frame::PROOF);
    let is_all = message::head_length(&received) == Some(received.len());
    if is_right && is_all { Ok(stream) } else { Err(format!("no handshake: {said}").into()) }
}
