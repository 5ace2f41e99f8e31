//! Behind real fronts: clients, nginx or HAProxy, two ebbtides, real Puma and gunicorn.
//! While the clients work, the ebbtides are restarted one after the other, and nobody
//! may notice: every answer is the right one, every request was executed once.
//!
//! The fronts run the very files that are recommended, `config/behind-nginx.conf` and
//! `config/behind-haproxy.cfg`, with addresses of ours in the place of theirs.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod apps;
mod foreign;
mod forged;
mod fronts;
mod ground;
mod itself;
mod judge;
mod load;
mod pair;
mod rolling;
mod stage;
