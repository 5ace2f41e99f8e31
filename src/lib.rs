//! ebbtide: a reverse proxy whose craft is to leave well.
//!
//! The crate is one binary and the library behind it. Each room below has one
//! responsibility; which room may use which is data in `tests/structure.rs`.
//!
//! | room | one responsibility |
//! | --- | --- |
//! | [`limits`] | every fixed bound in one place |
//! | [`drain`] | tell, count, wait, cut; knows nothing of HTTP, sockets or processes |
//! | [`telemetry`] | events, access log, counters, the drain report |
//! | [`tls`] | certificates, tickets, TLS sessions; knows no socket |
//! | [`config`] | text to a checked [`config::Config`], all errors at once |
//! | [`handoff`] | sockets and connections on their way to a successor; the only `unsafe` |
//! | [`net`] | listeners (bind, accept, close without a reset), sockets, connect |
//! | [`stream`] | endless streams: frame and event boundaries, goodbyes |
//! | [`http1`] | HTTP/1.1 messages as octets: heads, framing, bodies |
//! | [`upstream`] | endpoints, connections to them, the per-worker pool |
//! | [`proxy`] | one request: head edits, forwarding, retry, errors to statuses |
//! | [`serve`] | downstream connections: park, read, serve, linger |
//! | [`lifecycle`] | the process state machine, signals, watchdog |
//! | [`admin`] | health, status and metrics over HTTP, and their client |
//! | [`server`] | composition root |
//! | [`demo`] | an app, clients that count, and a stop that a person can watch |
//! | [`cli`] | arguments, help, `check` |
//!
//! What an operator may rely on is in the [`manual`].

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod handoff;
pub mod http1;
pub mod lifecycle;
pub mod limits;
pub mod manual;
pub mod net;
pub mod proxy;
pub mod serve;
pub mod server;
pub mod stream;
pub mod telemetry;
pub mod tls;
pub mod upstream;
