//! What those are told who have asked for a replacement.

use tokio::sync::mpsc;

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Progress {
    /// This binary was started.
    Starting { binary: String },
    /// The successor can serve.
    Ready { pid: u32, version: String },
    /// It serves.
    Serving { pid: u32, generation: u32 },
    /// Nothing is left with us.
    Gone,
    /// There is none, and we go on.
    Failed { error: String },
}

/// All who want to know.
pub(in crate::server) type Watchers = Vec<mpsc::Sender<Progress>>;
