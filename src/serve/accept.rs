//! Letting new connections in.

use std::rc::Rc;
use std::time::Duration;

use super::kept::Door;
use super::worker::Worker;
use crate::drain::{Stage, Watch};
use crate::limits::{ACCEPT_BACKOFF_MAX, ACCEPT_BACKOFF_MIN};
use crate::net::{Acceptor, is_exhaustion};
use crate::telemetry::{Event, Level};

/// Accepts until draining begins; then the queue is left to whoever closes the
/// listener. An error never ends it: it waits a little longer each time.
pub(super) async fn accept(
    worker: Rc<Worker>,
    mut acceptor: Acceptor,
    door: Door,
    mut watch: Watch,
) {
    let mut backoff = ACCEPT_BACKOFF_MIN;
    let mut rest = Duration::ZERO;
    loop {
        let next = async {
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
            room(&worker, &acceptor).await;
            acceptor.accept().await
        };
        let accepted = tokio::select! {
            biased;
            () = watch.reaches(Stage::Draining) => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                (backoff, rest) = (ACCEPT_BACKOFF_MIN, Duration::ZERO);
                worker.admit(socket, peer, door);
            }
            Err(error) => {
                let why = if is_exhaustion(&error) { "out of resources" } else { "listener" };
                let event = Event::new(Level::Error, "accept_failed")
                    .with("why", why)
                    .with("error", error.to_string())
                    .with("retry_ms", backoff.as_millis() as u64);
                worker.proxy.events.limited("accept_failed", Duration::from_secs(5), event);
                worker.make_room();
                // Inside the select: closing the listener waits for us to return.
                rest = backoff;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

/// Waits while there are as many connections as there may be; newcomers wait in
/// the kernel's queue. Whoever has been idle longest makes room for them.
async fn room(worker: &Worker, acceptor: &Acceptor) {
    while worker.admission.is_full() {
        // Nobody loses his connection for a newcomer who is not there.
        acceptor.knocked().await;
        if !worker.admission.is_full() {
            return;
        }
        let event = Event::new(Level::Warn, "connection_limit_reached")
            .with("limit", worker.admission.limit())
            .with("message", "newcomers wait; see limits.connections and the limit of open files");
        worker.proxy.events.limited("connection_limit", Duration::from_secs(5), event);
        worker.make_room();
        // Another worker's idle connections may be the only ones there are.
        let _passed = tokio::time::timeout(ACCEPT_BACKOFF_MAX, worker.admission.freed()).await;
    }
}
