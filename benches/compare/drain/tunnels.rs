//! WebSockets on which a message goes to and fro now and then, and is followed by another
//! connection when its own is closed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{Error, host};
use crate::websocket::frame;

/// The time between two messages.
const EVERY: Duration = Duration::from_millis(100);

const PATIENCE: Duration = Duration::from_secs(30);

/// Clients with a WebSocket each.
pub(super) struct Tunnels {
    over: Arc<AtomicBool>,
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

/// What they counted.
#[derive(Debug, Default)]
pub(super) struct Seen {
    messages: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
    wrong: AtomicU64,
}

impl Seen {
    /// Messages, closed, refused, wrong.
    pub(super) fn counts(&self) -> [u64; 4] {
        [&self.messages, &self.closed, &self.refused, &self.wrong]
            .map(|it| it.load(Ordering::Relaxed))
    }
}

impl Tunnels {
    /// So many of them, once all are open.
    pub(super) fn open(addr: SocketAddr, count: usize) -> Result<Self, Error> {
        let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let mut clients = Vec::new();
        for number in 0..count {
            let first = open(addr)?;
            let (over, seen) = (Arc::clone(&over), Arc::clone(&seen));
            clients.push(thread::spawn(move || {
                // Not all at once.
                thread::sleep(EVERY * u32::try_from(number).unwrap_or(0) / 16);
                drop(host::pin_to(host::LOAD_CORE));
                work(addr, first, &over, &seen);
            }));
        }
        Ok(Self { over, seen, clients })
    }

    /// Ends them; what they counted.
    pub(super) fn finish(self) -> Result<Arc<Seen>, Error> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().map_err(|_| "a WebSocket's client panicked")?;
        }
        Ok(self.seen)
    }
}

fn work(addr: SocketAddr, first: TcpStream, over: &AtomicBool, seen: &Seen) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let mut stream = Some(first);
    let mut number = 0u32;
    while !over.load(Ordering::Relaxed) {
        let Some(open_stream) = stream.as_mut() else {
            match open(addr) {
                Ok(next) => stream = Some(next),
                Err(_) => {
                    count(&seen.refused);
                    thread::sleep(EVERY);
                }
            }
            continue;
        };
        number += 1;
        match echo(open_stream, number) {
            Ok(true) => {
                count(&seen.messages);
                thread::sleep(EVERY);
            }
            Ok(false) => {
                count(&seen.wrong);
                stream = None;
            }
            Err(_) => {
                count(&seen.closed);
                stream = None;
            }
        }
    }
}

/// A message and its echo; whether it came back as it was. A Close counts as the end.
fn echo(stream: &mut TcpStream, number: u32) -> std::io::Result<bool> {
    let payload = format!("{number:064}");
    let octets = [frame::head(payload.len(), true), payload.clone().into_bytes()].concat();
    stream.write_all(&octets)?;
    let want = [frame::head(payload.len(), false), payload.into_bytes()].concat();
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got[..2])?;
    if got[0] & 0x0f == 8 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut got[2..])?;
    Ok(got == want)
}

fn open(addr: SocketAddr) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(frame::WISH)?;
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        said.extend(octet);
    }
    let said = String::from_utf8_lossy(&said);
    if said.starts_with("HTTP/1.1 101 ") && said.contains(frame::PROOF) {
        Ok(stream)
    } else {
        Err(format!("no handshake: {said}").into())
    }
}
