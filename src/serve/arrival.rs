//! Connections that come from an elder, or that could not go to a successor.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::admit::counted;
use super::kept::{Door, Kept};
use super::lot::Parked;
use super::tunnel::Resumed;
use super::worker::Worker;
use crate::handoff::{Moved, MovedTunnel, MovedWay, Parcel, Transport};
use crate::http1::Buffer;
use crate::limits::BUFFER;
use crate::net::{self, Peer, Socket};
use crate::proxy::Tunnel;
use crate::telemetry::{CloseReason, ConnectionState};

impl Worker {
    /// Goes on with a connection where it was left.
    pub(super) fn arrive(self: &Rc<Self>, parcel: Parcel) {
        self.proxy.clock.refresh();
        let Parcel { moved, fds, octets } = parcel;
        for fd in &fds {
            // As ours are; one that blocks would stop the worker. What is no socket fails
            // below.
            let _none = rustix::io::ioctl_fionbio(fd, true);
        }
        let (kept, mut fds) = (self.kept_of(&moved), fds.into_iter());
        match (moved.tunnel, fds.next(), fds.next()) {
            (None, Some(fd), None) => self.go_on(fd, kept, &octets),
            (Some(tunnel), Some(client), Some(upstream)) => {
                self.go_on_relaying((client, upstream), kept, tunnel, &octets);
            }
            _ => self.proxy.counters.closed(CloseReason::Error),
        }
    }

    fn go_on_relaying(
        self: &Rc<Self>,
        (client, upstream): (OwnedFd, OwnedFd),
        kept: Kept,
        moved: Box<MovedTunnel>,
        octets: &[u8],
    ) {
        let resume = || {
            let held = |way: &MovedWay| usize::try_from(way.held).ok();
            let (up, rest) = octets.split_at_checked(held(&moved.up)?)?;
            let (down, texts) = rest.split_at_checked(held(&moved.down)?)?;
            let upstream = Socket::adopt(upstream, transport(moved.transport), None).ok()?;
            let socket = Socket::adopt(client, kept.transport, None).ok()?;
            let tunnel = Tunnel::arrive(upstream, &moved, texts)?;
            Some((socket, Box::new(tunnel), (up.to_vec(), down.to_vec())))
        };
        let Some((socket, tunnel, held)) = resume() else {
            self.proxy.counters.closed(CloseReason::Error);
            return;
        };
        let (worker, (key, alarm)) = (Rc::clone(self), self.take_seat());
        let client = self.client(socket, &kept);
        spawn_local(async move {
            let resumed = Some(Resumed { moved, held });
            worker.relay(&alarm, client, kept, (tunnel, resumed)).await;
            worker.seats.borrow_mut().remove(key);
        });
    }

    /// One between requests. Without octets it needs no task until some come.
    fn go_on(self: &Rc<Self>, fd: OwnedFd, kept: Kept, octets: &[u8]) {
        if octets.is_empty() {
            let until = self.patience_of(&kept);
            self.put_down(Parked { fd, tls: None, kept, until, retired: false });
            return;
        }
        let mut ahead = if octets.len() < BUFFER {
            self.proxy.spare.small()
        } else {
            Buffer::with_capacity(octets.len() + 1)
        };
        ahead.append(octets);
        match Socket::adopt(fd, kept.transport, None) {
            Ok(socket) => self.serve(socket, kept, ahead, false),
            Err(_) => self.proxy.counters.closed(CloseReason::Error),
        }
    }

    /// What was known of it, by this process's clock and configuration: whom that does not
    /// trust is not trusted any more. It is let in however many there are.
    fn kept_of(&self, moved: &Moved) -> Kept {
        let peer = moved.peer.map_or(Peer::Unix, Peer::Tcp);
        let trusted = moved.trusted && self.is_trusted(peer);
        let state = if moved.fresh { ConnectionState::H1Fresh } else { ConnectionState::H1Idle };
        let now = self.proxy.clock.now();
        Kept {
            peer,
            transport: transport(moved.transport),
            trusted,
            may_announce: moved.may_announce && trusted && self.hears_announcements(),
            half_line: moved.half_line,
            door: Door { port: moved.port, secure: false },
            accepted: now.saturating_sub(moved.accepted),
            since: now.saturating_sub(moved.since),
            guard: self.shard.guard(state),
            permit: self.admission.readmit(counted(peer, trusted)),
        }
    }
}

fn transport(told: Transport) -> net::Transport {
    match told {
        Transport::Tcp => net::Transport::Tcp,
        Transport::Unix => net::Transport::Unix,
    }
}
