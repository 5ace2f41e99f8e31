//! The app server's side: its endpoints, connections to them, and the pool of
//! idle ones.
//!
//! Everything here belongs to one worker: a connection never crosses a thread,
//! and taking one from the pool is a pop. A [`Connection`] of HTTP/1 is driven inline by
//! the request that uses it; one of HTTP/2, which many requests share, has a task of its
//! own, which the pool owns.

mod connection;
mod h2;
mod pool;
mod spare;

pub use connection::{Connection, Wire};
pub use h2::Fault;
pub use pool::{EndpointId, Pool};
pub use spare::Spare;
