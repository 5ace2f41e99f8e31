//! Text to a checked [`Config`]: defaults, file, environment, `--set`, flags.

mod model;

pub use model::*;
