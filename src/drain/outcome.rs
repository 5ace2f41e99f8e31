//! How a drain ended.

use super::census::{Census, Kind};

/// How waiting for a scope to become empty ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<K: Kind> {
    /// Everything ended by itself.
    Drained,
    /// The deadline came first; this was left.
    Expired(Census<K>),
}
