//! The manual: what an operator may rely on, page by page.
//!
//! Owns words only. [`defaults`] holds the reference configuration itself, and a
//! test holds [`failures`] and [`signs`] to the words that the code says.
//!
//! | page | for whom |
//! | --- | --- |
//! | [`draining`] | who wants to know what a stop does to each connection |
//! | [`upgrading`] | who replaces the program, and what may go wrong |
//! | [`defaults`] | who asks why a number is what it is, or changes one |
//! | [`failures`] | who has a 502 in front of them |
//! | [`signs`] | who writes an alert or reads a log |

#[doc = include_str!("draining.md")]
pub mod draining {}

#[doc = include_str!("upgrading.md")]
pub mod upgrading {}

#[doc = include_str!("defaults.md")]
///
/// ```toml
#[doc = include_str!("../../config/ebbtide.reference.toml")]
/// ```
pub mod defaults {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[doc = include_str!("signs.md")]
pub mod signs {}

#[cfg(test)]
mod tests;
