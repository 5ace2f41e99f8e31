//! Connections that go to a successor.
//!
//! | what it is doing | when it leaves |
//! | --- | --- |
//! | parked: fresh, idle | at once, a few at a time |
//! | waiting for a request in a task | at once |
//! | serving a request | behind its response, with what was read of further ones |
//! | relaying | at once, wherever in a frame it is, but not in the middle of a farewell |
//!
//! Nobody who can be served waits for room on the way: while there is none, all goes on
//! here. What is closing stays, and so does what speaks TLS or HTTP/2.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::OwnedPermit;

use super::delivery::Departure;
use super::kept::Kept;
use super::lot::Parked;
use super::session::End;
use super::tunnel::{self, Leaving, Left, Resumed};
use super::worker::Worker;
use crate::handoff::{Moved, Parcel, Transport};
use crate::limits::{MOVED_AT_ONCE, MOVED_OCTETS_MAX};
use crate::net::{self, Alarm, Peer};
use crate::proxy::Tunnel;
use crate::proxy::h1::Client;
use crate::telemetry::{CloseReason, ConnectionState, MovedKind};

impl Worker {
    /// Whether a connection goes to a successor as soon as nothing is under way on it, if
    /// so many octets go with it. While there is no room on the way, none does.
    #[inline]
    pub(super) fn may_leave(&self, secure: bool, octets: usize) -> bool {
        self.proxy.moves()
            && !secure
            && octets <= MOVED_OCTETS_MAX
            && self.departures.capacity() > 0
    }

    /// A connection on which nothing is under way leaves, or waits here for what comes.
    pub(super) fn pause(self: &Rc<Self>, client: Client, kept: Kept, served: bool) {
        if self.may_leave(kept.door.secure, client.buffer.len())
            && let Ok(room) = self.departures.try_reserve()
        {
            let Client { socket, buffer, half_line, .. } = client;
            let kept = Kept { half_line, ..kept };
            match socket.release() {
                Ok((fd, _)) => {
                    room.send(self.departure(fd, kept, buffer.filled().to_vec(), served));
                }
                Err(_) => self.proxy.counters.closed(CloseReason::Error),
            }
            self.proxy.spare.give(buffer);
        } else if client.buffer.is_empty() {
            self.after(client, kept, End::Park);
        } else {
            // Somebody else took the room.
            let Client { socket, buffer, half_line, .. } = client;
            self.serve(socket, Kept { half_line, ..kept }, buffer, false);
        }
    }

    /// Sends parked connections away while orders say that they move.
    pub(super) async fn send_parked_away(self: Rc<Self>) {
        loop {
            self.leaving.notified().await;
            let (mut at, mut sent) = (0, 0);
            while self.proxy.moves() {
                let Ok(room) = self.departures.reserve().await else { return };
                // It may have waited for long.
                if !self.proxy.moves() {
                    break;
                }
                let next = self.lot.borrow_mut().take_next(&mut at, |it| it.kept.can_move());
                let Some(Parked { fd, kept, .. }) = next else { break };
                room.send(self.departure(fd, kept, Vec::new(), false));
                sent += 1;
                if sent % MOVED_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                    self.proxy.clock.refresh();
                }
            }
        }
    }

    /// Relays a tunnel until it is over, or leaves.
    pub(super) async fn relay(
        &self,
        alarm: &Alarm,
        mut client: Client,
        kept: Kept,
        (tunnel, resumed): (Box<Tunnel>, Option<Resumed>),
    ) {
        match tunnel::serve(self, alarm, (&mut client, &kept), tunnel, resumed).await {
            Left::Ended(end) => {
                let end = self.end(alarm, &mut client, end).await;
                self.after(client, kept, end);
            }
            Left::Leaves(leaving) => self.send_tunnel_away(client, &kept, *leaving),
        }
    }

    fn send_tunnel_away(&self, client: Client, kept: &Kept, leaving: Leaving) {
        let Leaving { room, kind, upstream, moved: tunnel, octets } = leaving;
        let (Ok((client, _)), Ok((upstream, _))) = (client.socket.release(), upstream.release())
        else {
            self.proxy.counters.closed(CloseReason::Error);
            return;
        };
        let moved = Moved { tunnel: Some(Box::new(tunnel)), ..self.moved(kept, octets.len()) };
        let hold = self.shard.hold();
        let parcel = Parcel { moved, fds: vec![client, upstream], octets };
        room.send(Departure { kind, parcel, hold });
    }

    fn departure(&self, fd: OwnedFd, kept: Kept, octets: Vec<u8>, served: bool) -> Departure {
        let fresh = kept.guard.kind() == ConnectionState::H1Fresh;
        let kind = match (fresh, served) {
            (true, _) => MovedKind::H1Fresh,
            (false, true) => MovedKind::H1Active,
            (false, false) => MovedKind::H1Idle,
        };
        let moved = self.moved(&kept, octets.len());
        // Held before the guard of `kept` is dropped: there is no gap.
        let hold = self.shard.hold();
        Departure { kind, parcel: Parcel { moved, fds: vec![fd], octets }, hold }
    }

    /// What is told of a connection with which so many octets go.
    pub(super) fn moved(&self, kept: &Kept, octets: usize) -> Moved {
        let age = |since: u64| self.proxy.clock.now().saturating_sub(since);
        Moved {
            transport: told(kept.transport),
            peer: match kept.peer {
                Peer::Tcp(address) => Some(address),
                Peer::Unix | Peer::Own => None,
            },
            trusted: kept.trusted,
            may_announce: kept.may_announce,
            half_line: kept.half_line,
            port: kept.door.port,
            fresh: kept.guard.kind() == ConnectionState::H1Fresh,
            accepted: age(kept.accepted),
            since: age(kept.since),
            octets: u32::try_from(octets).unwrap_or(u32::MAX),
            tunnel: None,
        }
    }
}

/// A place in the row of those who wait until there is room on the way.
#[derive(Default)]
pub(super) struct Room {
    waiting: Option<Pin<Box<Reserving>>>,
}

type Reserving = dyn Future<Output = Option<OwnedPermit<Departure>>>;

impl Room {
    /// Waits until there is room; none if there never will be.
    pub(super) fn poll(
        &mut self,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Poll<Option<OwnedPermit<Departure>>> {
        let waiting = self.waiting.get_or_insert_with(|| {
            let departures = worker.departures.clone();
            Box::pin(async { departures.reserve_owned().await.ok() })
        });
        let room = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(room)
    }

    /// Waits no more. Who is not asked for keeps his turn from others.
    pub(super) fn forget(&mut self) {
        self.waiting = None;
    }
}

pub(super) fn told(transport: net::Transport) -> Transport {
    match transport {
        net::Transport::Tcp => Transport::Tcp,
        net::Transport::Unix => Transport::Unix,
    }
}
