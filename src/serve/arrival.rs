//! Connections that come from an elder, or that could not go to a successor.

use std::rc::Rc;

use super::worker::Worker;
use crate::handoff::Parcel;
use crate::telemetry::CloseReason;

impl Worker {
    /// Goes on with a connection where it was left.
    pub(super) fn arrive(self: &Rc<Self>, parcel: Parcel) {
        drop(parcel);
        self.proxy.counters.closed(CloseReason::Error);
    }
}
