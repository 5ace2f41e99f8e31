//! How many descriptors there are, and how many connections that allows.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::limits::{DESCRIPTORS_PER_LISTENER, DESCRIPTORS_PER_WORKER, DESCRIPTORS_RESERVED};

/// Raises the soft descriptor limit to the hard one and says how many
/// connections fit: each may need a second descriptor for its upstream side.
pub(super) fn connections(workers: usize, listeners: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit.current = limit.maximum;
        }
    }
    let descriptors =
        limit.current.map_or(usize::MAX / 4, |n| usize::try_from(n).unwrap_or(1 << 20));
    // One listener is in the reserve.
    let more = listeners.saturating_sub(1) * (workers + DESCRIPTORS_PER_LISTENER);
    let reserved = DESCRIPTORS_RESERVED + workers * DESCRIPTORS_PER_WORKER + more;
    (descriptors.saturating_sub(reserved) / 2).max(1)
}
