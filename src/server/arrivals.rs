//! Connections that come from another process, or come back from one: each goes to a
//! worker, or is closed and counted.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::control::Control;
use super::overview::Overview;
use crate::handoff::Parcel;
use crate::serve::{Delivery, Departure};
use crate::telemetry::{CloseReason, Event, Level};

/// Where they go.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) overview: Rc<Overview>,
    pub(super) workers: Vec<mpsc::Sender<Delivery>>,
}

impl Port {
    /// Gives a connection to one of the workers; the drain sees it all the while. Whether
    /// there is any that takes it.
    pub(super) async fn deliver(&self, parcel: Parcel, turn: usize) -> bool {
        let hold = self.overview.scope.hold();
        deliver(&self.workers, Delivery::Arrival { parcel, hold }, turn).await
    }
}

/// Gives it to the worker whose turn it is, as soon as that has room; to the next one if it
/// has ended. Whether there was any: else it is closed.
async fn deliver(workers: &[mpsc::Sender<Delivery>], mut delivery: Delivery, turn: usize) -> bool {
    for offset in 0..workers.len() {
        match workers[(turn + offset) % workers.len()].send(delivery).await {
            Ok(()) => return true,
            Err(mpsc::error::SendError(back)) => delivery = back,
        }
    }
    false
}

impl Control {
    /// Connections that did not get to a successor go on here.
    pub(super) async fn redeliver(&mut self) {
        let workers = self.workers.as_ref().map_or(&[][..], |workers| &workers.deliveries);
        let mut lost = 0;
        for (turn, Departure { parcel, hold, .. }) in self.returned.drain(..).enumerate() {
            let is_taken = deliver(workers, Delivery::Arrival { parcel, hold }, turn).await;
            lost += usize::from(!is_taken);
        }
        self.count_lost(lost, "no worker is left that takes it");
    }

    /// So many connections were closed because nobody could take them.
    pub(super) fn count_lost(&mut self, lost: usize, why: &str) {
        if lost == 0 {
            return;
        }
        self.stopping.lost = true;
        let phase = self.overview.phase();
        self.overview.count_error(phase);
        self.stopping.report.add_error(phase, format!("{lost} connections were lost: {why}"));
        for _ in 0..lost {
            self.overview.counted_here.closed(CloseReason::Error);
        }
        let event = Event::new(Level::Error, "connection_lost").with("count", lost);
        self.events.emit(event.with("why", why.to_owned()));
    }
}
