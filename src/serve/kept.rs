//! What stays with a connection whether it is parked or served.

use super::admission::Permit;
use crate::drain::Guard;
use crate::net::Peer;
use crate::telemetry::ConnectionState;

/// The listener a connection came through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    /// Its port, or 0.
    pub(super) port: u16,
    /// Whether its clients speak TLS.
    pub(super) secure: bool,
}

/// A connection's own, whoever holds its socket.
pub(super) struct Kept {
    /// Who it is.
    pub(super) peer: Peer,
    pub(super) door: Door,
    /// When it was accepted, on the worker's clock.
    pub(super) accepted: u64,
    /// Since when it is what it is.
    pub(super) since: u64,
    pub(super) guard: Guard<ConnectionState>,
    pub(super) permit: Permit,
}
