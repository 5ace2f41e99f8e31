//! What the rooms of a gateway's duties share: cases as data, an origin and a client that do
//! what a case says, and the score.

pub(crate) mod bench;
pub(crate) mod case;
pub(crate) mod check;
pub(crate) mod downstream;
pub(crate) mod heard;
mod itself;
pub(crate) mod score;
pub(crate) mod stage;
