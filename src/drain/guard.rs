//! What keeps a scope from being empty.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::census::{Counts, Kind};
use super::scope::Shared;

/// One thread's part of a scope: hands out guards without touching what other
/// threads write.
pub struct Shard<K: Kind> {
    counts: Arc<Counts<K>>,
    shared: Arc<Shared<K>>,
}

impl<K: Kind> Shard<K> {
    pub(super) fn new(counts: Arc<Counts<K>>, shared: Arc<Shared<K>>) -> Self {
        Shard { counts, shared }
    }

    /// Something of `kind` is alive until the guard is dropped.
    pub fn guard(self: &Rc<Self>, kind: K) -> Guard<K> {
        self.counts.enter(kind);
        Guard { shard: Rc::clone(self), kind: Cell::new(kind) }
    }

    /// Keeps the scope from being empty while something leaves this thread.
    pub fn hold(&self) -> Hold<K> {
        Hold::new(Arc::clone(&self.shared))
    }

    /// How many guards of this thread are alive.
    pub fn alive(&self) -> usize {
        self.counts.alive()
    }
}

/// Keeps its scope from being empty. Not `Send`: it lives and dies on the
/// thread of its [`Shard`].
pub struct Guard<K: Kind> {
    shard: Rc<Shard<K>>,
    kind: Cell<K>,
}

impl<K: Kind> Guard<K> {
    /// What it stands for now.
    #[inline]
    pub fn kind(&self) -> K {
        self.kind.get()
    }

    /// From now on it stands for something else; the scope sees no gap.
    #[inline]
    pub fn shift(&self, to: K) {
        self.shard.counts.shift(self.kind.replace(to), to);
    }
}

impl<K: Kind> Drop for Guard<K> {
    fn drop(&mut self) {
        if self.shard.counts.leave(self.kind.get()) == 0 {
            self.shard.shared.perhaps_empty();
        }
    }
}

/// Keeps a scope from being empty while something travels between threads and
/// no guard counts it.
pub struct Hold<K: Kind> {
    shared: Arc<Shared<K>>,
}

impl<K: Kind> Hold<K> {
    pub(super) fn new(shared: Arc<Shared<K>>) -> Self {
        shared.held();
        Hold { shared }
    }
}

impl<K: Kind> Drop for Hold<K> {
    fn drop(&mut self) {
        self.shared.released();
    }
}
