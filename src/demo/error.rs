//! Why the demo could not show anything.

use std::io;

use crate::limits::DEMO_DESCRIPTORS;

/// Each text is one line that names its cause.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A port, a thread, a runtime.
    #[error("cannot {what}: {cause}")]
    System {
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A hundred clients, the app's side of them, and the proxy's.
    #[error(
        "only {0} files may be open, {DEMO_DESCRIPTORS} are needed; try ulimit -n {DEMO_DESCRIPTORS}"
    )]
    Descriptors(u64),
    /// The proxy has said why, or nothing.
    #[error("the proxy did not start: {0}")]
    Unready(String),
    /// It was not told to.
    #[error("the proxy ended by itself, with {0}")]
    Ended(String),
}

/// Names what could not be done.
pub(super) fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |cause| DemoError::System { what, cause }
}
