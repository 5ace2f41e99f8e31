//! The composition root: builds every other room from a configuration and runs
//! the control thread.
//!
//! The control thread does everything that is not per request: signals, the
//! admin interface, the phases of a stop. What follows what is decided by
//! [`crate::lifecycle`]; here it is done.

mod activation;
mod arrivals;
mod bind;
mod close;
mod control;
mod descriptors;
mod door;
mod manager;
mod overview;
mod platform;
mod signals;
mod start;
mod stop;
mod upgrade;
mod workers;

pub use start::{StartError, decline, run};
