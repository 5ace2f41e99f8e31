//! Connections that come from an elder, or that could not go to a successor.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::admit::counted;
use super::kept::{Door, Kept};
use super::lot::Parked;
use super::worker::Worker;
use crate::handoff::{Moved, Parcel, Transport};
use crate::http1::Buffer;
use crate::limits::BUFFER;
use crate::net::{self, Peer, Socket};
use crate::telemetry::{CloseReason, ConnectionState};

impl Worker {
    /// Goes on with a connection where it was left.
    pub(super) fn arrive(self: &Rc<Self>, parcel: Parcel) {
        self.proxy.clock.refresh();
        let Parcel { moved, fds, octets } = parcel;
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next()) {
            (Some(fd), None) => self.go_on(fd, self.kept_of(&moved), &octets),
            _ => self.proxy.counters.closed(CloseReason::Error),
        }
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
            transport: match moved.transport {
                Transport::Tcp => net::Transport::Tcp,
                Transport::Unix => net::Transport::Unix,
            },
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
