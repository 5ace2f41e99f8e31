//! A worker's HTTP/2 connections, as far as they have no streams: one of them
//! makes room when there are too many connections. They are not in the lot,
//! because h2 keeps what it knows of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slab::Slab;

use crate::net::Alarm;

/// Who could make room.
#[derive(Default)]
pub(in crate::serve) struct Idlers {
    spots: RefCell<Slab<Rc<Spot>>>,
}

struct Spot {
    /// Since when there are no streams, if there are none.
    since: Cell<Option<u64>>,
    asked: Cell<bool>,
    alarm: Rc<Alarm>,
}

impl Idlers {
    /// Asks whoever has been idle longest to leave.
    pub(in crate::serve) fn ask_oldest(&self) {
        let spots = self.spots.borrow();
        let idle = spots.iter().filter(|(_, spot)| spot.since.get().is_some() && !spot.asked.get());
        if let Some((_, oldest)) = idle.min_by_key(|(_, spot)| spot.since.get()) {
            oldest.asked.set(true);
            oldest.alarm.ring();
        }
    }

    /// A place for one more connection.
    pub(super) fn enter(&self, alarm: &Rc<Alarm>) -> Place<'_> {
        let (since, asked) = (Cell::new(None), Cell::new(false));
        let spot = Rc::new(Spot { since, asked, alarm: Rc::clone(alarm) });
        let key = self.spots.borrow_mut().insert(Rc::clone(&spot));
        Place { idlers: self, key, spot }
    }
}

/// A connection's place; given back when it is dropped.
pub(super) struct Place<'a> {
    idlers: &'a Idlers,
    key: usize,
    spot: Rc<Spot>,
}

impl Place<'_> {
    /// Since when the connection has been idle, or that it is not.
    pub(super) fn set(&self, since: Option<u64>) {
        self.spot.since.set(since);
    }

    /// Whether it is asked to leave.
    pub(super) fn is_asked(&self) -> bool {
        self.spot.asked.get()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.idlers.spots.borrow_mut().try_remove(self.key);
    }
}
