//! Downstream connections: how each lives, from accept to close.
//!
//! A worker is one thread with one runtime; a connection belongs to the worker
//! that accepted it and never leaves it. It is always in one of two places:
//!
//! ```text
//!            octets arrive                      silent for a moment
//!  parked ─────────────────> session ─────────────────────────────────> parked
//!  (lot: a descriptor,       (a task: reads heads, runs exchanges)
//!   no task, no buffer)          │ the last response is out
//!                                └──────────> FIN ──> parked, lingering ──> closed
//! ```
//!
//! `lot` holds what is provably between requests: fresh, idle and lingering
//! connections. `announce` hears from a trusted proxy whose connection it passes
//! on, `handshake` makes a connection a TLS one, `session` serves requests of
//! HTTP/1, `h2` those of HTTP/2, from whose preface on a connection stays in its
//! task. `worker` moves connections between the two, lets its clock tick, and does
//! what the drain asks; `accept` and `admit` let new ones in, within the limits
//! that `admission` keeps. Who moves to a successor goes by `departure`, and who comes from
//! an elder by `arrival`.

mod accept;
mod admission;
mod admit;
mod announce;
mod arrival;
mod delivery;
mod departure;
mod h2;
mod handshake;
mod hung;
mod kept;
mod lot;
mod seat;
mod session;
mod tunnel;
mod worker;

pub use admission::Admission;
pub use delivery::{Delivery, Departure};
pub use worker::{Start, Worker, spawn};
