//! Health, metrics and status over HTTP, and the client that asks for them.
//!
//! Owns the admin listener and what is served on it. Promises that it answers
//! in every phase, from the control thread, whatever the workers do. Does not
//! know where the facts come from: they are given as a [`View`].

pub mod bind;
pub mod client;
pub mod commands;
pub mod server;
pub mod status;

mod render;
mod routes;
#[cfg(test)]
mod tests;
mod upgrade;

pub use bind::{AdminListener, bind};
pub use commands::{Commands, Progress, Refusal};
pub use server::{Door, Service, View, serve};
pub use status::Status;
pub use upgrade::upgrade;
