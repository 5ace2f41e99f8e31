//! The proof that a process serves: each worker answers a request of our own, which asks
//! for nothing but the proxy itself (RFC 9110 section 7.6.2).

use std::io;
use std::os::unix::net::UnixStream as Plain;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::elders::Port;
use crate::limits::PROBE;
use crate::net::Peer;
use crate::serve::Delivery;

const REQUEST: &[u8] = b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\n\
    User-Agent: ebbtide (probe of its own)\r\nConnection: close\r\n\r\n";

/// Asks every worker. What it asks is neither counted nor logged.
pub(in crate::server) async fn probe(port: &Port) -> io::Result<()> {
    for turn in 0..port.workers.len() {
        let asked = tokio::time::timeout(PROBE, ask(port, turn)).await;
        asked.map_err(|_| late(PROBE))??;
    }
    Ok(())
}

fn late(bound: Duration) -> io::Error {
    io::Error::other(format!("a worker has not answered a request of our own in {bound:?}"))
}

async fn ask(port: &Port, turn: usize) -> io::Result<()> {
    let (ours, theirs) = Plain::pair()?;
    theirs.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    let hold = port.overview.scope.hold();
    let (fd, peer) = (theirs.into(), Peer::Own);
    let connection = Delivery::Connection { fd, peer, port: 0, secure: false, hold };
    let worker = &port.workers[turn];
    worker.send(connection).await.map_err(|_| io::Error::other("a worker has ended"))?;
    let mut ours = UnixStream::from_std(ours)?;
    ours.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 2") {
        return Ok(());
    }
    let line = answer.split(|octet| *octet == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    Err(io::Error::other(format!("a worker has answered a request of our own with {line:?}")))
}
