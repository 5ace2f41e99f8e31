//! The app server's side: its endpoints, connections to them, and the pool of
//! idle ones.
//!
//! Everything here belongs to one worker: a connection never crosses a thread,
//! and taking one from the pool is a pop. A [`Connection`] is driven inline by
//! the request that uses it; nothing is spawned.

mod connection;
mod pool;
mod spare;

pub use connection::{Connection, Look};
pub use pool::{EndpointId, Pool};
pub use spare::Spare;
