//! Replacing this process by a successor: sockets, and the connections that live on
//! them, go over; what cannot go ends by the plan of an upgrade.
//!
//! | file | what |
//! | --- | --- |
//! | `prepare` | the elder's side until the successor can serve |
//! | `outgoing` | the elder's side from then on: batches of connections |
//! | `elder` | what its control thread does meanwhile |
//! | `predecessor` | the successor's side until it serves |
//! | `elders` | the successor's side from then on |
//! | `probe` | its proof that it serves |
//! | `ledger` | what all generations have counted |
//!
//! The messages are in [`crate::handoff`].

pub(super) mod elder;
pub(super) mod elders;
pub(super) mod ledger;
mod outgoing;
pub(super) mod predecessor;
mod prepare;
pub(super) mod probe;
