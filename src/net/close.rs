//! Closing a listening socket without resetting anybody.
//!
//! `close(2)` on a listener resets every connection in its accept queue, and a
//! client that was told "connected" may have sent its request already. So new
//! handshakes are stopped first, those under way complete, the queue is
//! emptied, and only then the socket is closed. A client whose SYN was dropped
//! sends it again after about a second and is then refused.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::{Domain, SockFilter, SockRef, Socket as RawSocket, Type};

use super::accept::Acceptor;
use super::diag::{self, ESTABLISHED, LISTEN, SYN_RECV};
use super::listener::{Kind, Listener, identity};
use super::socket::{Peer, Socket};
use crate::drain::{Rule, kept};
use crate::limits::{BACKLOG, CLOSE_QUEUE_MAX, CLOSE_QUEUE_MIN};

/// How new handshakes were kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A packet filter on the socket dropped bare SYNs; needs CAP_NET_ADMIN.
    SynFilter,
    /// The backlog was made one long and plugged with a connection of our own.
    BacklogPlug,
    /// The backlog was made one long, but could not be plugged in time.
    BacklogOnly,
    /// The path of a unix socket was removed.
    Unlinked,
}

impl Way {
    /// The name used in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Way::SynFilter => "syn-filter",
            Way::BacklogPlug => "backlog-plug",
            Way::BacklogOnly => "backlog-only",
            Way::Unlinked => "unlinked",
        }
    }
}

/// How a listener was closed.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// How newcomers were kept out.
    pub way: Way,
    /// Connections that were still in the queue, and delivered.
    pub accepted: usize,
}

/// Closes `listener`, which nobody else accepts from any more, and delivers
/// what was in its queue. Ends within [`CLOSE_QUEUE_MAX`] and a little.
pub async fn close(listener: Listener, deliver: impl FnMut(Socket, Peer)) -> io::Result<Closed> {
    let acceptor = listener.acceptor()?;
    let mut sweep = Sweep { acceptor, deliver, accepted: 0, began: Instant::now() };
    let way = match &listener.kind {
        Kind::Tcp { address, .. } => close_tcp(&listener, *address, &mut sweep).await?,
        Kind::Unix { path, identity, .. } => {
            unlink(path, *identity);
            sweep.until(|| true).await;
            Way::Unlinked
        }
    };
    Ok(Closed { way, accepted: sweep.accepted })
}

async fn close_tcp<D: FnMut(Socket, Peer)>(
    listener: &Listener,
    address: SocketAddr,
    sweep: &mut Sweep<D>,
) -> io::Result<Way> {
    let port = address.port();
    if SockRef::from(listener).attach_filter(&drop_bare_syns()).is_ok() {
        sweep.until(|| no_half_open(port)).await;
        return Ok(Way::SynFilter);
    }
    Ok(if plug(listener, address, sweep).await? { Way::BacklogPlug } else { Way::BacklogOnly })
}

/// Removes the path of a unix socket, if what is there is still ours.
fn unlink(path: &Path, ours: Option<(u64, u64)>) {
    if ours.is_some() && identity(path) == ours {
        // Gone in between is as good as removed.
        let _gone = std::fs::remove_file(path);
    }
}

/// `flags & (SYN|ACK) == SYN`: a bare SYN is dropped, everything else passes.
/// The filter of a TCP socket sees the packet from the TCP header on.
fn drop_bare_syns() -> [SockFilter; 5] {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Where the kernel does not tell, half-open handshakes get all of the time.
fn no_half_open(port: u16) -> bool {
    diag::sockets(port, None, &[SYN_RECV]).is_ok_and(|half_open| half_open.is_empty())
}

/// Empties the accept queue.
struct Sweep<D> {
    acceptor: Acceptor,
    deliver: D,
    accepted: usize,
    began: Instant,
}

impl<D: FnMut(Socket, Peer)> Sweep<D> {
    /// Accepts until the queue is empty and `settled`, at least
    /// [`CLOSE_QUEUE_MIN`], at most [`CLOSE_QUEUE_MAX`].
    async fn until(&mut self, settled: impl Fn() -> bool) {
        if !kept(Rule::EmptyAcceptQueue) {
            return;
        }
        loop {
            self.accept_all().await;
            let age = self.began.elapsed();
            if age >= CLOSE_QUEUE_MAX {
                return;
            }
            if age >= CLOSE_QUEUE_MIN && settled() {
                // What completed between the last accept and that look.
                self.accept_all().await;
                return;
            }
            let pause = Duration::from_millis(2).min(CLOSE_QUEUE_MAX - age);
            if let Ok(Ok((socket, peer))) =
                tokio::time::timeout(pause, self.acceptor.accept()).await
            {
                self.take(socket, peer);
            }
        }
    }

    /// Accepts what is there, without waiting.
    async fn accept_all(&mut self) {
        while let Some((socket, peer)) = self.accepted().await {
            self.take(socket, peer);
        }
    }

    /// The next in the queue, without waiting.
    async fn accepted(&mut self) -> Option<(Socket, Peer)> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match self.acceptor.poll_accept(cx) {
                Poll::Ready(Ok(accepted)) => Some(accepted),
                _ => None,
            })
        })
        .await
    }

    fn take(&mut self, socket: Socket, peer: Peer) {
        self.accepted += 1;
        (self.deliver)(socket, peer);
    }
}

/// Keeps newcomers out with a connection of our own at the end of the queue.
///
/// A queue with a backlog of zero is full with one entry, and a full queue
/// drops SYNs. The plug goes in while the backlog is still long: shrinking it
/// under load first would let handshakes overflow, and with SYN cookies such a
/// client believes that it is connected while the kernel knows nothing of it.
/// Then all that came before the plug is accepted. A handshake that was under
/// way at that instant needs room to complete, and its client may repeat itself
/// only after 200 ms: for its sake the backlog is opened again.
async fn plug<D: FnMut(Socket, Peer)>(
    listener: &Listener,
    address: SocketAddr,
    sweep: &mut Sweep<D>,
) -> io::Result<bool> {
    let port = address.port();
    while !sweep.is_late() {
        let plug = connect_to_ourselves(address)?;
        rustix::net::listen(listener.as_fd(), 0)?;
        if !kept(Rule::EmptyAcceptQueue) {
            return Ok(true);
        }
        match sweep.up_to(&plug, port).await {
            Plugged::Tight => return Ok(true),
            Plugged::Out => {}
            Plugged::HalfOpen => {
                drop(plug);
                rustix::net::listen(listener.as_fd(), BACKLOG)?;
                sweep.until(|| no_half_open(port)).await;
            }
        }
    }
    Ok(false)
}

/// A connection to our own listener that is never served.
struct Plug {
    /// Closing it would leave its place in the queue to somebody else.
    _socket: RawSocket,
    port: u16,
}

/// How plugging has gone.
enum Plugged {
    /// The plug alone is in the queue, and no handshake is under way.
    Tight,
    /// The plug came out, or never got in.
    Out,
    /// A handshake is under way that finds no room.
    HalfOpen,
}

impl<D: FnMut(Socket, Peer)> Sweep<D> {
    /// Accepts what came before the plug.
    async fn up_to(&mut self, plug: &Plug, port: u16) -> Plugged {
        let mut waited = 0;
        loop {
            let Some(queue) = queue(port, plug.port) else {
                // The kernel does not tell: empty the queue as far as we can.
                self.accept_all().await;
                return Plugged::Out;
            };
            if queue.length <= 1 && queue.half_open > 0 {
                return Plugged::HalfOpen;
            }
            if queue.plugged && queue.length == 1 && self.began.elapsed() >= CLOSE_QUEUE_MIN {
                return Plugged::Tight;
            }
            let before = self.accepted;
            let ahead = queue.length.saturating_sub(1).max(u32::from(!queue.plugged));
            if self.accept_some(ahead, plug.port).await || self.is_late() {
                return Plugged::Out;
            }
            waited += u32::from(!queue.plugged);
            if waited > PLUG_WAITS {
                return Plugged::Out;
            }
            if self.accepted == before {
                // Also lets the runtime see what is in the queue.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn is_late(&self) -> bool {
        self.began.elapsed() >= CLOSE_QUEUE_MAX
    }

    /// Accepts up to `count` of the queue; `true` if the plug was among them.
    async fn accept_some(&mut self, count: u32, plug: u16) -> bool {
        for _ in 0..count {
            match self.accepted().await {
                Some((_, Peer::Tcp(from))) if from.port() == plug => return true,
                Some((socket, peer)) => self.take(socket, peer),
                None => return false,
            }
        }
        false
    }
}

/// How often a plug that is not seen in the queue is looked for again.
const PLUG_WAITS: u32 = 10;

struct Queue {
    length: u32,
    plugged: bool,
    half_open: usize,
}

fn queue(port: u16, plug: u16) -> Option<Queue> {
    let waiting = diag::sockets(port, None, &[LISTEN, SYN_RECV]).ok()?;
    let plugs = diag::sockets(port, Some(plug), &[ESTABLISHED]).ok()?;
    let listening = waiting.iter().filter(|socket| socket.state == LISTEN);
    Some(Queue {
        length: listening.map(|socket| socket.queue).max().unwrap_or(0),
        plugged: !plugs.is_empty(),
        half_open: waiting.iter().filter(|socket| socket.state == SYN_RECV).count(),
    })
}

/// Makes a [`Plug`]; on this machine the handshake is over when connect(2) returns.
fn connect_to_ourselves(address: SocketAddr) -> io::Result<Plug> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let target = SocketAddr::new(ip, address.port());
    let socket = RawSocket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&target.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            return Err(error);
        }
        _ => {}
    }
    let port = socket.local_addr()?.as_socket().map_or(0, |local| local.port());
    Ok(Plug { _socket: socket, port })
}
