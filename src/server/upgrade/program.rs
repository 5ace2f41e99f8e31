//! What this process was started as: what its successor is started as, too.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::handoff::launch::program;

/// What this process was started as.
pub(in crate::server) struct Program {
    /// Where the binary is found, now and after it was replaced.
    pub(in crate::server) binary: Option<PathBuf>,
    /// What it was called with.
    pub(in crate::server) arguments: Vec<OsString>,
}

impl Program {
    /// As the process was called.
    pub(in crate::server) fn of_this_process() -> Self {
        Program { binary: program().ok(), arguments: std::env::args_os().skip(1).collect() }
    }
}
