//! The drain core: tell, count, wait and cut.
//!
//! Owns what a drain is, whatever is being drained: a [`Scope`] tells its
//! [`Stage`] to everybody who works in it and knows how many [`Guard`]s are
//! alive; it is empty when none is. Knows nothing of HTTP, sockets or
//! processes, and never sleeps: a bound is a [`Deadline`], made once and passed
//! down.
//!
//! Only a [`Guard`] or a [`Hold`] keeps a scope from being empty. A [`Watch`]
//! observes and never does, so that no forgotten clone can hold up a drain.

mod census;
mod deadline;
mod guard;
mod outcome;
mod phase;
mod rule;
mod scope;

pub use census::{Census, Kind};
pub use deadline::Deadline;
pub use guard::{Guard, Hold, Shard};
pub use outcome::Outcome;
pub use phase::Phase;
pub use rule::{Rule, SABOTAGE, kept};
pub use scope::{Branch, Orders, Plan, Scope, Stage, Watch};
