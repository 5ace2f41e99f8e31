//! The process's life: which phase follows which, and what bounds each.
//!
//! [`state`] is a pure function: `step(state, event, now)` gives the next state
//! and what is to be done; all I/O happens around it, in [`crate::server`].
//! [`orphans`] reaps as process 1, [`parent`] ends with another process,
//! [`notify`] tells the service manager, [`watchdog`] ends the process when even that is stuck.

pub mod notify;
pub mod orphans;
pub mod parent;
pub mod state;
pub mod watchdog;

pub use state::{Action, Event, Plans, State, step};
