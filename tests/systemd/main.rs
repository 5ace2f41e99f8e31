//! The real binary under a service manager: a socket of ours that hears what it says, and
//! a real `systemd --user` that starts, watches, reloads and stops it by the shipped units.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod activation;
mod ear;
mod manager;
mod messages;
mod process_one;
mod service;
mod socket;
mod store;
mod units;
mod upgrade;
