//! Keeping newcomers out without a capability: a connection of our own, never
//! accepted, in a queue that is one long.
//!
//! A queue with a backlog of zero is full with one entry, and a full queue
//! drops SYNs. While such a queue is *empty* the kernel answers a SYN with a
//! cookie, and when the queue is full by the time the handshake ends, that
//! client believes that it is connected while the kernel knows nothing of it.
//! So the backlog is short only while something is in the queue: the plug goes
//! in while it is long, and it is long again before the plug comes out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Socket as RawSocket, Type};

use super::listener::Listener;
use super::probe::Probe;
use super::sweep::{Look, Sweep, Taker};
use crate::drain::{Rule, kept};
use crate::limits::BACKLOG;

/// What closing a listener needs, opened with it: descriptors may have run out.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) probe: Probe,
    plug: Option<RawSocket>,
}

impl Spare {
    pub(super) fn new(listener: &TcpListener, address: SocketAddr) -> io::Result<Spare> {
        Ok(Spare { probe: Probe::open(listener, address)?, plug: Some(unconnected(address)?) })
    }
}

fn unconnected(address: SocketAddr) -> io::Result<RawSocket> {
    RawSocket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)
}

/// A connection to our own listener that is never served. Closing it before the
/// listener would end what keeps newcomers out.
pub(super) struct Plug {
    _socket: RawSocket,
    address: SocketAddr,
}

/// How plugging has gone.
enum Plugged {
    /// The plug alone is in the queue, and no handshake is under way.
    Tight,
    /// The plug came out, or somebody is behind it.
    Out,
    /// A handshake is under way that finds no room. Its client may repeat itself
    /// only after 200 ms: for its sake the backlog is opened again.
    HalfOpen,
    /// The kernel does not tell.
    Unknown,
}

/// How often making a plug may fail.
const FAILURES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Leaves nothing but a plug in the queue. Without one newcomers cannot be kept
/// out: then the queue has been emptied as far as that goes. `false`: not wholly.
pub(super) async fn plug<T: Taker>(
    listener: &Listener,
    address: SocketAddr,
    spare: &mut Spare,
    sweep: &mut Sweep<'_, T>,
) -> (Option<Plug>, bool) {
    let mut failures = 0;
    while failures < FAILURES_MAX && !sweep.is_late() {
        if kept(Rule::EmptyAcceptQueue) && !sweep.empty().await {
            return (None, false);
        }
        let Ok(plug) = put_in(spare.plug.take(), address, &mut sweep.own).await else {
            failures += 1;
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if rustix::net::listen(listener, 0).is_err() {
            break;
        }
        if !kept(Rule::EmptyAcceptQueue) {
            return (Some(plug), true);
        }
        let plugged = up_to(&plug, &mut spare.probe, sweep).await;
        if matches!(plugged, Plugged::Tight) {
            return (Some(plug), true);
        }
        // It has worked a moment ago.
        let _reopened = rustix::net::listen(listener, BACKLOG);
        match plugged {
            Plugged::Unknown => break,
            Plugged::HalfOpen => {
                sweep.settle(|| spare.probe.no_half_open()).await;
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    let kept = kept(Rule::EmptyAcceptQueue);
    (None, !kept || sweep.settle(|| spare.probe.no_half_open()).await)
}

/// Accepts what came before the plug.
async fn up_to<T: Taker>(plug: &Plug, probe: &mut Probe, sweep: &mut Sweep<'_, T>) -> Plugged {
    loop {
        let Some(queue) = probe.queue() else { return Plugged::Unknown };
        if queue.length <= 1 {
            if queue.half_open > 0 {
                return Plugged::HalfOpen;
            }
            if !probe.has(plug.address) {
                return Plugged::Out;
            }
            if sweep.is_settled() {
                return Plugged::Tight;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // One stays, be it the plug or not: the queue is never empty.
        for _ in 1..queue.length {
            if sweep.one().await != Look::Taken {
                return Plugged::Out;
            }
        }
        if sweep.is_late() {
            return Plugged::Out;
        }
    }
}

/// Connects to ourselves; the handshake needs nobody but the kernel.
async fn put_in(
    spare: Option<RawSocket>,
    listener: SocketAddr,
    own: &mut Vec<SocketAddr>,
) -> io::Result<Plug> {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    // With its scope, where it has one.
    let mut target = listener;
    target.set_ip(ip);
    let socket = match spare {
        Some(socket) => socket,
        None => unconnected(target)?,
    };
    match socket.connect(&target.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            return Err(error);
        }
        _ => {}
    }
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let address = SocketAddr::new(local.ip().to_canonical(), local.port());
    // Before it is in the queue: it may come out at any time from then on.
    own.push(address);
    for _ in 0..10 {
        if socket.peer_addr().is_ok() {
            return Ok(Plug { _socket: socket, address });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}
