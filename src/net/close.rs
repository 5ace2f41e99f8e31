//! Closing a listening socket without resetting anybody.
//!
//! `close(2)` on a listener resets every connection in its accept queue, and a
//! client that was told "connected" may have sent its request already. So new
//! handshakes are stopped first, those under way complete, the queue is
//! emptied, and only then the socket is closed. A client whose SYN was dropped
//! sends it again after about a second and is then refused.

use std::net::SocketAddr;

use socket2::{SockFilter, SockRef};

use super::listener::{Kind, Listener};
use super::plug::{Plug, Spare, plug};
use super::sweep::{Sweep, Taker};
use crate::drain::{Deadline, Rule, kept};

/// How new handshakes were kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A packet filter on the socket dropped bare SYNs; needs CAP_NET_ADMIN.
    SynFilter,
    /// The backlog was made one long and plugged with a connection of our own.
    BacklogPlug,
    /// Newcomers could not be kept out: the queue was emptied to the end.
    BacklogOnly,
    /// The path of a unix socket was removed.
    Unlinked,
    /// Nobody was kept out: another process holds the socket, and its queue.
    Shared,
}

impl Way {
    /// The name used in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Way::SynFilter => "syn-filter",
            Way::BacklogPlug => "backlog-plug",
            Way::BacklogOnly => "backlog-only",
            Way::Unlinked => "unlinked",
            Way::Shared => "shared",
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
    /// Connections that could not be accepted in time and were reset.
    pub reset: usize,
}

/// Closes `listener`, which nobody else accepts from any more, and delivers
/// what was in its queue. Takes a second at most, unless there is no room for
/// those who wait: then until `patience` is over. What another process holds, too
/// ([`Listener::is_held`]), is closed at once and its queue left to that one.
pub async fn close(mut listener: Listener, taker: impl Taker, patience: Deadline) -> Closed {
    if listener.is_held() {
        return Closed { way: Way::Shared, accepted: 0, reset: 0 };
    }
    let mut spare = match &mut listener.kind {
        Kind::Tcp { spare, .. } => spare.take(),
        Kind::Unix { file, .. } => {
            // The path goes first: whoever comes now is refused.
            drop(file.take());
            None
        }
    };
    let mut sweep = Sweep::new(&listener, taker, patience);
    let (way, plug, emptied) = match (&listener.kind, &mut spare) {
        (Kind::Tcp { address, .. }, Some(spare)) => {
            close_tcp(&listener, *address, spare, &mut sweep).await
        }
        (Kind::Tcp { .. }, None) => (Way::BacklogOnly, None, settle(&mut sweep, || false).await),
        (Kind::Unix { .. }, _) => (Way::Unlinked, None, settle(&mut sweep, || true).await),
    };
    let reset = if emptied { 0 } else { left_behind(&sweep, spare) };
    let accepted = sweep.accepted;
    drop(sweep);
    drop(listener);
    // Not before the listener: it keeps newcomers out.
    drop(plug);
    Closed { way, accepted, reset }
}

async fn close_tcp<T: Taker>(
    listener: &Listener,
    address: SocketAddr,
    spare: &mut Spare,
    sweep: &mut Sweep<'_, T>,
) -> (Way, Option<Plug>, bool) {
    if SockRef::from(listener).attach_filter(&drop_bare_syns()).is_ok() {
        let emptied = settle(sweep, || spare.probe.no_half_open()).await;
        return (Way::SynFilter, None, emptied);
    }
    let (plug, emptied) = plug(listener, address, spare, sweep).await;
    let way = if plug.is_some() { Way::BacklogPlug } else { Way::BacklogOnly };
    (way, plug, emptied)
}

async fn settle<T: Taker>(sweep: &mut Sweep<'_, T>, no_half_open: impl FnMut() -> bool) -> bool {
    !kept(Rule::EmptyAcceptQueue) || sweep.settle(no_half_open).await
}

/// How many are reset by closing now; at least one where nobody can tell.
fn left_behind<T: Taker>(sweep: &Sweep<'_, T>, spare: Option<Spare>) -> usize {
    if !sweep.is_waiting() {
        return 0;
    }
    let queue = spare.and_then(|mut spare| spare.probe.queue());
    queue.map_or(1, |queue| queue.length as usize).max(1)
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
