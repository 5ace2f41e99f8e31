//! Sockets: listeners that are bound, shared and closed without a reset, and
//! the connections that come out of them or go to an app server.
//!
//! Owns every socket act of the program behind three types: [`Listener`] (the
//! process's own copy), [`Acceptor`] (a worker's copy of the same open socket)
//! and [`Socket`] (an established connection). One listening socket per
//! address, shared by all workers, never a SO_REUSEPORT group: closing one
//! member of a group resets what waits in its queue.

mod accept;
mod adopt;
mod alarm;
mod close;
mod connect;
mod diag;
pub mod fuzz;
mod listener;
mod plug;
mod probe;
mod proc;
mod proxy_header;
mod socket;
mod sweep;

pub use accept::{Acceptor, is_exhaustion};
pub use adopt::is_in_another_network;
pub use alarm::{Alarm, Clock};
pub use close::{Closed, Way, close};
pub use connect::{ConnectError, connect};
pub use listener::{BindError, Listener, NOT_PASSED};
pub use proxy_header::{Announced, Found, find_proxy_header};
pub use socket::{Look, Peer, Socket, Transport, discard, end, unread};
pub use sweep::Taker;
