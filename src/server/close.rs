//! Closing the listeners: workers stop accepting, then what is left in the
//! queues is accepted here and delivered to them.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::overview::Overview;
use crate::drain::Deadline;
use crate::net::{self, Listener};
use crate::serve::Delivery;
use crate::telemetry::{CloseReason, Event, Events, Level};

/// Where connections that a closing listener still had are sent.
pub(super) struct Deliverer {
    pub(super) overview: Rc<Overview>,
    pub(super) workers: Vec<mpsc::Sender<Delivery>>,
    /// How many connections there are descriptors for.
    pub(super) fits: usize,
    /// How long to wait for room.
    pub(super) patience: Deadline,
    pub(super) events: Events,
}

/// Closes all listeners side by side, and says what went wrong. The workers
/// have been told; each of `accepting` ends when the last of them has stopped.
pub(super) async fn close(
    listeners: Vec<Listener>,
    accepting: Vec<mpsc::Receiver<()>>,
    deliverer: Rc<Deliverer>,
) -> Vec<String> {
    for mut accepting in accepting {
        while accepting.recv().await.is_some() {}
    }
    let mut closing = JoinSet::new();
    for listener in listeners {
        closing.spawn_local(close_one(listener, Rc::clone(&deliverer)));
    }
    let mut errors = Vec::new();
    while let Some(closed) = closing.join_next().await {
        errors.extend(closed.unwrap_or_else(|panic| Some(format!("closing a listener: {panic}"))));
    }
    errors
}

async fn close_one(listener: Listener, deliverer: Rc<Deliverer>) -> Option<String> {
    let address = listener.to_string();
    let began = Instant::now();
    let door = Door {
        deliverer: Rc::clone(&deliverer),
        port: listener.port().unwrap_or(0),
        secure: listener.is_secure(),
        turn: 0,
    };
    let closed = net::close(listener, door, deliverer.patience).await;
    let event = Event::new(Level::Info, "listener_closed")
        .with("addr", address.clone())
        .with("way", closed.way.name())
        .with("accepted", closed.accepted)
        .with("elapsed_ms", began.elapsed().as_millis() as u64);
    deliverer.events.emit(event);
    if closed.reset == 0 {
        return None;
    }
    let error = format!("{address} was closed with {} in its queue, who were reset", closed.reset);
    let event = Event::new(Level::Error, "listener_queue_reset").with("addr", address);
    deliverer.events.emit(event.with("reset", closed.reset).with("message", error.clone()));
    Some(error)
}

/// Delivers what comes from one listener.
struct Door {
    deliverer: Rc<Deliverer>,
    port: u16,
    secure: bool,
    turn: usize,
}

impl net::Taker for Door {
    /// A connection that is let in needs a second descriptor for its upstream side.
    fn has_room(&self) -> bool {
        let Deliverer { overview, workers, fits, .. } = &*self.deliverer;
        overview.scope.alive() < *fits && workers.iter().any(|worker| worker.capacity() > 0)
    }

    fn take(&mut self, fd: OwnedFd, peer: net::Peer) {
        self.turn += 1;
        let hold = self.deliverer.overview.scope.hold();
        let delivery =
            Delivery::Connection { fd, peer, port: self.port, secure: self.secure, hold };
        self.deliverer.deliver(delivery, peer, self.turn);
    }
}

impl Deliverer {
    /// Hands a connection to a worker; the drain sees it all the while.
    fn deliver(&self, mut delivery: Delivery, peer: net::Peer, turn: usize) {
        for offset in 0..self.workers.len() {
            match self.workers[(turn + offset) % self.workers.len()].try_send(delivery) {
                Ok(()) => return,
                Err(
                    mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back),
                ) => {
                    delivery = back;
                }
            }
        }
        self.overview.counted_here.closed(CloseReason::Error);
        let event = Event::new(Level::Error, "connection_lost").with("client", peer.to_string());
        self.events.emit(event);
    }
}
