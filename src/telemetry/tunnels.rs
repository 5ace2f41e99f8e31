//! The tunnels that are open, for whoever asks how the process is.
//!
//! Owns the list and what each has moved. Promises that a tunnel which moves octets
//! writes to nothing but two counters of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use slab::Slab;

use super::event::millis;
use crate::limits::STATUS_TUNNELS_MAX;

/// The tunnels of a process.
#[derive(Clone, Debug, Default)]
pub struct Tunnels(Arc<Mutex<Slab<Arc<Tunnel>>>>);

/// Who and what a tunnel is.
#[derive(Clone, Debug)]
pub struct About {
    /// `websocket`, or what it was upgraded to.
    pub kind: String,
    /// The client's address.
    pub client: String,
    /// What it asked for, without its query unless that is logged.
    pub target: String,
    /// The app server.
    pub upstream: String,
}

#[derive(Debug)]
struct Tunnel {
    about: About,
    began: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A tunnel's place in the list, until it is dropped.
#[derive(Debug)]
pub struct TunnelEntry {
    tunnels: Tunnels,
    tunnel: Arc<Tunnel>,
    key: usize,
}

/// A tunnel as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// `websocket`, or what it was upgraded to.
    pub kind: String,
    /// The client's address.
    pub client: String,
    /// What it asked for.
    pub target: String,
    /// The app server.
    pub upstream: String,
    /// Since its 101.
    pub age_ms: u64,
    /// Octets from the client.
    pub bytes_in: u64,
    /// Octets to the client.
    pub bytes_out: u64,
}

impl Tunnels {
    /// Lists a tunnel.
    pub fn enter(&self, about: About, began: Instant) -> TunnelEntry {
        let zero = AtomicU64::default;
        let tunnel = Tunnel { about, began, bytes_in: zero(), bytes_out: zero() };
        let tunnel = Arc::new(tunnel);
        let key = self.list().insert(Arc::clone(&tunnel));
        TunnelEntry { tunnels: self.clone(), tunnel, key }
    }

    /// The oldest of them, as many as are shown.
    pub fn oldest(&self) -> Vec<TunnelStatus> {
        let mut all: Vec<_> = self.list().iter().map(|(_, tunnel)| Arc::clone(tunnel)).collect();
        all.sort_by_key(|tunnel| tunnel.began);
        all.truncate(STATUS_TUNNELS_MAX);
        all.iter().map(|tunnel| tunnel.shown()).collect()
    }

    fn list(&self) -> MutexGuard<'_, Slab<Arc<Tunnel>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tunnel {
    fn shown(&self) -> TunnelStatus {
        let About { kind, client, target, upstream } = self.about.clone();
        TunnelStatus {
            kind,
            client,
            target,
            upstream,
            age_ms: millis(self.began.elapsed()),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

impl TunnelEntry {
    /// Notes how many octets have come from the client and gone to it.
    pub fn note(&self, bytes_in: u64, bytes_out: u64) {
        self.tunnel.bytes_in.store(bytes_in, Ordering::Relaxed);
        self.tunnel.bytes_out.store(bytes_out, Ordering::Relaxed);
    }
}

impl Drop for TunnelEntry {
    fn drop(&mut self) {
        self.tunnels.list().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_listed_with_what_it_has_moved_until_it_ends() {
        let tunnels = Tunnels::default();
        let about = |target: &str| About {
            kind: "websocket".into(),
            client: "192.0.2.1:7".into(),
            target: target.into(),
            upstream: "app:1".into(),
        };
        let [first, second] = ["/a", "/b"].map(|path| tunnels.enter(about(path), Instant::now()));
        first.note(3, 4);
        let shown = tunnels.oldest();
        let targets: Vec<_> = shown.iter().map(|tunnel| &*tunnel.target).collect();
        assert_eq!(targets, ["/a", "/b"]);
        assert_eq!((shown[0].bytes_in, shown[0].bytes_out), (3, 4));
        drop(first);
        assert_eq!(tunnels.oldest().len(), 1);
        drop(second);
        assert_eq!(tunnels.oldest(), []);
    }
}
