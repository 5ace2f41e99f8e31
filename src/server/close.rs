//! Closing the listeners: workers stop accepting, then what is left in the
//! queues is accepted here and delivered to them.

use std::rc::Rc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::overview::Overview;
use crate::net::{self, Listener};
use crate::serve::Delivery;
use crate::telemetry::{Event, Events, Level};

/// Where connections that a closing listener still had are sent.
pub(super) struct Deliverer {
    pub(super) overview: Rc<Overview>,
    pub(super) workers: Vec<mpsc::Sender<Delivery>>,
    pub(super) events: Events,
}

/// Closes all listeners side by side. The workers have been told; `accepting`
/// ends when the last of them has stopped.
pub(super) async fn close(
    listeners: Vec<Listener>,
    mut accepting: mpsc::Receiver<()>,
    deliverer: Rc<Deliverer>,
) {
    while accepting.recv().await.is_some() {}
    let mut closing = JoinSet::new();
    for listener in listeners {
        closing.spawn_local(close_one(listener, Rc::clone(&deliverer)));
    }
    while closing.join_next().await.is_some() {}
}

async fn close_one(listener: Listener, deliverer: Rc<Deliverer>) {
    let address = listener.to_string();
    let port = listener.port().unwrap_or(0);
    let began = Instant::now();
    let mut turn = 0;
    let closed = net::close(listener, |socket, peer| {
        turn += 1;
        deliverer.deliver(socket, peer, port, turn);
    })
    .await;
    let event = match closed {
        Ok(closed) => Event::new(Level::Info, "listener_closed")
            .with("addr", address)
            .with("way", closed.way.name())
            .with("accepted", closed.accepted)
            .with("elapsed_ms", began.elapsed().as_millis() as u64),
        Err(error) => Event::new(Level::Error, "listener_close_failed")
            .with("addr", address)
            .with("error", error.to_string()),
    };
    deliverer.events.emit(event);
}

impl Deliverer {
    /// Hands a connection to a worker; the drain sees it all the while.
    fn deliver(&self, socket: net::Socket, peer: net::Peer, port: u16, turn: usize) {
        let hold = self.overview.scope.hold();
        let Ok(fd) = socket.release() else { return };
        let mut delivery = Delivery { fd, peer, port, hold };
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
        let event = Event::new(Level::Error, "connection_lost").with("client", peer.to_string());
        self.events.emit(event);
    }
}
