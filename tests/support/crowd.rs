//! Clients that work side by side until they are told to end, each with a verdict of its
//! own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::{PATIENCE, within};

/// What the clients of a crowd share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    over: AtomicBool,
    served: AtomicU64,
}

impl Shared {
    /// Whether they are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// One was served.
    pub(crate) fn serve(&self) {
        self.served.fetch_add(1, Ordering::SeqCst);
    }
}

/// Clients at work.
pub(crate) struct Crowd<V> {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<V>>,
}

impl<V: Send + 'static> Crowd<V> {
    /// Sends so many to work, each with its number.
    pub(crate) fn start(
        many: u64,
        client: impl Fn(u64, &Shared) -> V + Clone + Send + 'static,
    ) -> Crowd<V> {
        let shared = Arc::new(Shared::default());
        let clients = (0..many).map(|number| {
            let (shared, client) = (Arc::clone(&shared), client.clone());
            std::thread::spawn(move || client(number, &shared))
        });
        Crowd { clients: clients.collect(), shared }
    }

    /// Waits until some more were served.
    pub(crate) fn go_on(&self) {
        let served = || self.shared.served.load(Ordering::SeqCst);
        let before = served();
        within(PATIENCE, "some who are served", || (served() > before + 20).then_some(()));
    }

    /// Tells them to end; their verdicts.
    pub(crate) fn end(self) -> Vec<V> {
        self.shared.over.store(true, Ordering::SeqCst);
        self.wait()
    }

    /// Waits until each has ended by itself; their verdicts.
    pub(crate) fn wait(self) -> Vec<V> {
        self.clients.into_iter().map(|client| client.join().expect("a client")).collect()
    }
}
