//! HTTP/2 in raw frames: so far the client of [`support::h2`], proved.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod client_itself;
