//! Clients that open a connection for each request and see it end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::poller::Poller;
use crate::support::{Error, message};

const PATIENCE: Duration = Duration::from_secs(30);

struct Client {
    stream: TcpStream,
    number: message::Number,
    received: Vec<u8>,
}

/// Keeps so many requests under way for a time; how many were answered, each with the
/// right response and then the end of the connection.
pub(crate) fn run(addr: SocketAddr, at_once: usize, time: Duration) -> Result<u64, Error> {
    let mut poller = Poller::new()?;
    let (mut sent, mut completed) = (0, 0);
    let started = Instant::now();
    let mut clients: Vec<Option<Client>> = Vec::new();
    for slot in 0..at_once {
        clients.push(Some(Client::open(addr, &poller, slot, sent)?));
        sent += 1;
    }
    while completed < sent {
        if poller.wait(Some(PATIENCE))? == 0 {
            return Err(format!("nothing came from {addr} in {PATIENCE:?}").into());
        }
        for index in 0..poller.count() {
            let slot = poller.ready(index) as usize;
            let Some(client) = &mut clients[slot] else { continue };
            if !client.receive()? {
                continue;
            }
            completed += 1;
            clients[slot] = None;
            if started.elapsed() < time {
                clients[slot] = Some(Client::open(addr, &poller, slot, sent)?);
                sent += 1;
            }
        }
    }
    Ok(completed)
}

impl Client {
    fn open(addr: SocketAddr, poller: &Poller, slot: usize, sent: u64) -> Result<Self, Error> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, slot as u64)?;
        let number = message::number(sent);
        stream.write_all(&message::last_request(&number))?;
        Ok(Self { stream, number, received: Vec::new() })
    }

    /// Reads once; whether response and connection are over.
    fn receive(&mut self) -> Result<bool, Error> {
        let mut octets = [0; 4096];
        let read = self.stream.read(&mut octets)?;
        self.received.extend_from_slice(&octets[..read]);
        let whole = message::check_response(&self.received, &self.number)?;
        if read == 0 && !whole {
            return Err("a connection ended before its response".into());
        }
        Ok(read == 0)
    }
}
