//! Clients that do not do their part when they are asked to leave: they are
//! named, so that an operator knows what a stop has waited for.

use std::time::Duration;

use super::worker::Worker;
use crate::net::Peer;
use crate::telemetry::{Event, Level};

/// How often one is named at most; how many were not is in the next line.
const EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Names a client and what it did not do.
    pub(super) fn hung(&self, peer: Peer, what: &'static str) {
        let event = Event::new(Level::Info, "client_hung")
            .with("client", peer.to_string())
            .with("what", what);
        self.proxy.events.limited("client_hung", EVERY, event);
    }
}
