//! Replacing this process by a successor: sockets, and the connections that live on
//! them, go over; what cannot go ends by the plan of an upgrade.
//!
//! | file | what |
//! | --- | --- |
//! | `prepare` | the elder's side until the successor can serve |
//! | `outgoing` | the elder's side from then on: batches of connections |
//! | `asked`, `program` | who may ask for a successor, and what is started then |
//! | `succession`, `elder` | how far it has come, and what the control thread does |
//! | `loss`, `lost`, `doubt` | what becomes of it when the successor is lost |
//! | `predecessor` | the successor's side until it serves |
//! | `elders`, `follower`, `heir` | the successor's side from then on |
//! | `probe` | its proof that it serves |
//! | `ledger` | what all generations have counted |
//!
//! The messages are in [`crate::handoff`].

mod asked;
mod doubt;
mod elder;
pub(super) mod elders;
mod follower;
mod heir;
pub(super) mod ledger;
mod loss;
mod lost;
mod outgoing;
pub(super) mod predecessor;
mod prepare;
pub(super) mod probe;
pub(super) mod program;
pub(super) mod succession;

#[cfg(test)]
mod tests;
