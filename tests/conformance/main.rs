//! Requests that two parsers could read differently, put to ebbtide and to others.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod exceptions;
#[path = "../h2spec/foreign.rs"]
mod foreign;
mod frames;
mod judge;
mod judge_itself;
mod octets;
mod raw;
mod recorder;
mod run;
mod scores;
mod strict;
mod subject;
mod verdicts;
