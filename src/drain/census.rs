//! How many of what are alive.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a guard stands for. The core only counts; the words are its user's.
pub trait Kind: Copy + 'static {
    /// How many kinds there are.
    const COUNT: usize;
    /// Which one this is, below [`Kind::COUNT`].
    fn index(self) -> usize;
}

/// Counts by kind. Each shard of it is written by one thread only, so that
/// counting costs a load and a store; anybody may read.
pub(super) struct Counts<K> {
    alive: AtomicUsize,
    kinds: Box<[AtomicUsize]>,
    kind: PhantomData<fn(K)>,
}

impl<K: Kind> Counts<K> {
    pub(super) fn new() -> Arc<Self> {
        let kinds = (0..K::COUNT).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Counts { alive: AtomicUsize::new(0), kinds, kind: PhantomData })
    }

    #[inline]
    fn change(cell: &AtomicUsize, by: isize) -> usize {
        let value = cell.load(Ordering::Relaxed).wrapping_add_signed(by);
        cell.store(value, Ordering::Release);
        value
    }

    #[inline]
    pub(super) fn enter(&self, kind: K) {
        Self::change(&self.alive, 1);
        Self::change(&self.kinds[kind.index()], 1);
    }

    #[inline]
    pub(super) fn shift(&self, from: K, to: K) {
        Self::change(&self.kinds[from.index()], -1);
        Self::change(&self.kinds[to.index()], 1);
    }

    /// How many are left of all kinds.
    #[inline]
    pub(super) fn leave(&self, kind: K) -> usize {
        Self::change(&self.kinds[kind.index()], -1);
        Self::change(&self.alive, -1)
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    pub(super) fn add_to(&self, census: &mut Census<K>) {
        for (sum, count) in census.counts.iter_mut().zip(&self.kinds) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
}

/// How many guards of each kind were alive at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census<K> {
    counts: Box<[usize]>,
    kind: PhantomData<fn(K)>,
}

impl<K: Kind> Default for Census<K> {
    fn default() -> Self {
        Census { counts: vec![0; K::COUNT].into(), kind: PhantomData }
    }
}

impl<K: Kind> Census<K> {
    /// How many of this kind.
    pub fn of(&self, kind: K) -> usize {
        self.counts[kind.index()]
    }

    /// How many in all.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }
}
