//! The composition root: builds every other room from a configuration and runs
//! the control thread.
//!
//! The control thread does everything that is not per request: signals, the
//! admin interface, the phases of a stop. What follows what is decided by
//! [`crate::lifecycle`]; here it is done.

mod activation;
mod close;
mod control;
mod descriptors;
mod manager;
mod overview;
mod platform;
mod signals;
mod start;
mod stop;

pub use start::{StartError, run};
