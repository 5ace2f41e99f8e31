//! Connections that move from one worker to another, as they do from an elder to its
//! successor, but within one process: a thread takes what leaves the one and delivers it
//! to the other. Nothing may be lost, doubled or reordered, and no client may notice.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod http1;
mod many;
mod orders;
mod rig;
mod tunnel;
