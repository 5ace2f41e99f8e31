//! What stays with a connection whether it is parked or served.

use super::admission::Permit;
use crate::drain::Guard;
use crate::net::{Peer, Transport};
use crate::telemetry::ConnectionState;

/// The listener a connection came through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    /// Its port, or 0; of a connection that was announced, the port that its client
    /// has connected to.
    pub(super) port: u16,
    /// Whether its clients speak TLS.
    pub(super) secure: bool,
}

/// A connection's own, whoever holds its socket.
pub(super) struct Kept {
    /// Who it is: the socket's peer, or whom that has announced.
    pub(super) peer: Peer,
    /// What its socket is.
    pub(super) transport: Transport,
    /// Whether it may speak for others.
    pub(super) trusted: bool,
    /// It may begin with the announcement of somebody else, and has not begun.
    pub(super) may_announce: bool,
    /// The CR of an empty line between requests has come.
    pub(super) half_line: bool,
    pub(super) door: Door,
    /// When it was accepted, on the worker's clock.
    pub(super) accepted: u64,
    /// Since when it is what it is.
    pub(super) since: u64,
    pub(super) guard: Guard<ConnectionState>,
    pub(super) permit: Permit,
}

impl Kept {
    /// Whether it can go to a successor: what TLS has agreed on stays here.
    pub(super) fn can_move(&self) -> bool {
        !self.door.secure && !self.guard.kind().is_closing()
    }

    /// Its address without port, as text; empty for a unix socket.
    pub(super) fn address(&self) -> Box<str> {
        self.peer.ip().map_or_else(String::new, |ip| ip.to_string()).into()
    }
}
