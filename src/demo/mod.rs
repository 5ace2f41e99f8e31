//! `ebbtide demo`: a stop under load that a person can watch, with nothing else installed.
//!
//! Owns a small app ([`app`]), clients of every kind that keep working and count for
//! themselves what became of their requests ([`clients`]), and the account that both
//! keep of each request ([`ledger`]). Promises that the clients never take the proxy's
//! word for anything: what was served is checked to the last octet, and what was lost
//! is named. The benchmarks stop other proxies under the same load.

pub mod app;
pub mod clients;
pub mod ledger;

mod thread;
