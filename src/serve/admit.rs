//! Taking a connection in, or turning it away.

use std::net::IpAddr;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::kept::{Door, Kept};
use super::session::End;
use super::worker::Worker;
use crate::http1::Buffer;
use crate::net::{Alarm, Peer, Socket};
use crate::proxy::h1::{self, Client};
use crate::proxy::{Ended, Failure};
use crate::telemetry::{CloseReason, ConnectionState};

impl Worker {
    /// Takes a new connection in.
    pub(super) fn admit(self: &Rc<Self>, socket: Socket, peer: Peer, door: Door) {
        self.proxy.clock.refresh();
        let guard = self.shard.guard(ConnectionState::H1Fresh);
        let accepted = self.proxy.clock.now();
        let trusted = self.is_trusted(peer);
        let (permit, admitted) = match self.admission.enter(counted(peer, trusted)) {
            Ok(permit) => (permit, true),
            Err(permit) => (permit, false),
        };
        let kept = Kept {
            peer,
            transport: peer.transport(),
            trusted,
            may_announce: trusted && self.hears_announcements(),
            half_line: false,
            door,
            accepted,
            since: accepted,
            guard,
            permit,
        };
        if admitted {
            self.serve(socket, kept, Buffer::default(), false)
        } else {
            self.refuse(socket, kept)
        }
    }

    /// Whether a peer is in `trusted_proxies`.
    pub(super) fn is_trusted(&self, peer: Peer) -> bool {
        peer != Peer::Own && self.proxy.config.trusted.contains(peer.ip())
    }

    /// One address has too many connections: says so, and closes this one.
    fn refuse(self: &Rc<Self>, socket: Socket, kept: Kept) {
        let (worker, (key, alarm)) = (Rc::clone(self), self.take_seat());
        let mut client = self.client(socket, &kept);
        spawn_local(async move {
            let end = worker.turn_away(&alarm, &mut client, &kept).await;
            let end = worker.end(&alarm, &mut client, end).await;
            worker.after(client, kept, end);
            worker.seats.borrow_mut().remove(key);
        });
    }

    /// Says that one address has too many connections.
    pub(super) async fn turn_away(&self, alarm: &Alarm, client: &mut Client, kept: &Kept) -> End {
        if kept.door.secure {
            // Saying so would cost a handshake, which is what the limit is to save.
            return End::Linger(CloseReason::Limit);
        }
        let began = self.proxy.clock.refresh();
        let failure = Failure::Overloaded("too many connections from this address");
        match h1::refuse(&self.proxy, alarm, client, &failure, (began, false)).await {
            Ended::Linger(reason) => End::Linger(reason),
            Ended::Drop(reason) => End::Drop(reason),
            Ended::Keep => End::Drop(CloseReason::Limit),
        }
    }
}

/// The address that a connection is counted for. A trusted peer's connections are
/// those of many clients.
pub(super) fn counted(peer: Peer, trusted: bool) -> Option<IpAddr> {
    peer.ip().filter(|_| !trusted)
}
