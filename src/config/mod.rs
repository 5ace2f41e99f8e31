//! Text to a checked [`Config`]: defaults, file, environment, `--set`, flags.
//!
//! Owns every name, form and default that an operator can write. Promises that
//! a [`Config`] holds no invalid value, and that all errors of all sources are
//! reported at once. Binds nothing and resolves nothing.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `model` | what a checked configuration says |
//! | `keys`, `plans`, `draft` | the table of keys that drives everything else, and the defaults in place |
//! | `form`, `value` | from text to a value in its place |
//! | `file`, `load` | the sources and their precedence |
//! | `trust` | networks whose word is taken |
//! | `route` | what holds for a part of the app |
//! | `check` | rules between keys |
//! | `error`, `suggest`, `show` | what people read |

mod check;
mod draft;
mod error;
mod file;
mod form;
pub mod fuzz;
mod keys;
mod load;
mod model;
mod plans;
mod route;
mod show;
mod suggest;
#[cfg(test)]
mod tests;
mod trust;
mod value;

pub use error::{Error, Errors, Origin, Problem, Warning};
pub use keys::{KEYS, Key, Preset, find};
pub use load::{Flag, Loaded, Sources, admin_address, duration, load};
pub use model::*;
pub use show::Span;
