//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The connection limits, shared by all workers.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    count: AtomicUsize,
    freed: Notify,
    per_address: Option<PerAddress>,
}

#[derive(Debug)]
struct PerAddress {
    limit: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    /// At most `limit` connections, at most `per_address` of them from one address.
    pub fn new(limit: usize, per_address: Option<usize>) -> Arc<Self> {
        let per_address = per_address.map(|limit| PerAddress { limit, counts: Mutex::default() });
        let count = AtomicUsize::new(0);
        Arc::new(Admission { limit, count, freed: Notify::new(), per_address })
    }

    /// The most connections there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether another connection would be one too many.
    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.limit
    }

    /// Waits until somebody has left; may end without that.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Counts a connection in, also for an address if it has one of its own. It is
    /// counted even beyond the limit, because it is there; `Err` says that its
    /// address has too many.
    pub(super) fn enter(self: &Arc<Self>, ip: Option<IpAddr>) -> Result<Permit, Permit> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut permit = Permit { admission: Arc::clone(self), ip: None };
        if permit.count_for(ip) { Ok(permit) } else { Err(permit) }
    }

    /// Counts a connection in that was let in by another process, however many there are.
    pub(super) fn readmit(self: &Arc<Self>, ip: Option<IpAddr>) -> Permit {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let (Some(ip), Some(per_address)) = (ip, &self.per_address) {
            let mut counts = per_address.counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(ip).or_default() += 1;
        }
        let ip = ip.filter(|_| self.per_address.is_some());
        Permit { admission: Arc::clone(self), ip }
    }
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
}

impl Permit {
    /// Counts a connection that was not counted for any address; whether this one
    /// has no more than it may.
    pub(super) fn count_for(&mut self, ip: Option<IpAddr>) -> bool {
        let (Some(ip), Some(per_address)) = (ip, &self.admission.per_address) else {
            return true;
        };
        debug_assert!(self.ip.is_none(), "it has one address");
        let mut counts = per_address.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= per_address.limit {
            // Being turned away takes nobody's place.
            return false;
        }
        *count += 1;
        drop(counts);
        self.ip = Some(ip);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.admission.count.fetch_sub(1, Ordering::Relaxed);
        if before >= self.admission.limit {
            self.admission.freed.notify_waiters();
        }
        let (Some(ip), Some(per_address)) = (self.ip, &self.admission.per_address) else {
            return;
        };
        let mut counts = per_address.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_places_back_when_its_connections_end() {
        let admission = Admission::new(10, Some(1));
        let ip = |text: &str| Some(text.parse().unwrap());
        let first = admission.enter(ip("192.0.2.1")).unwrap();
        let second = admission.enter(ip("192.0.2.1")).unwrap_err();
        assert!(admission.enter(ip("192.0.2.2")).is_ok());
        drop((first, second));
        assert!(admission.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn who_was_let_in_by_another_process_is_counted_however_many_there_are() {
        let admission = Admission::new(2, Some(1));
        let ip = Some("192.0.2.1".parse().unwrap());
        let moved = [0; 3].map(|_| admission.readmit(ip));
        assert!(admission.is_full() && admission.enter(ip).is_err());
        let [first, second, third] = moved;
        drop((first, second));
        assert!(admission.enter(ip).is_err());
        drop(third);
        assert!(!admission.is_full() && admission.enter(ip).is_ok());
    }

    #[test]
    fn who_is_known_later_is_counted_from_then_on() {
        let admission = Admission::new(10, Some(1));
        let ip = Some("192.0.2.1".parse().unwrap());
        let mut relayed = [0; 3].map(|_| admission.enter(None).unwrap());
        assert!(relayed[0].count_for(ip) && !relayed[1].count_for(ip));
        assert!(admission.enter(ip).is_err());
        drop(relayed);
        assert!(admission.enter(ip).is_ok());
    }
}
