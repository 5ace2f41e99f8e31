//! The real binary meets a scripted app server and raw clients: every promise and
//! every HTTP/1 row of the drain contract is a named test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod crossing;
mod degrade;
mod demo;
mod distrust;
mod errors;
mod event_race;
mod event_streams;
mod forward;
mod framing;
mod grpc;
mod grpc_real;
mod h2_forward;
mod h2_limits;
mod headers;
mod launcher;
mod limits;
mod listener;
mod peers_themselves;
mod proxy_protocol;
mod race;
mod retry;
mod routes;
mod stop_deadline;
mod stop_h1;
mod stop_h2;
mod stop_process;
mod storm;
mod storm_h2;
mod support_itself;
mod timeouts;
mod tls;
mod tls_stop;
mod trust;
mod upgrade;
mod upgrade_failures;
mod upgrade_race;
mod upgrade_storm;
mod upstream_h2;
mod upstream_tls;
mod watchdog;
mod way;
mod websocket;
mod websocket_h2;
mod websocket_race;
mod websocket_stop;
mod websocket_stop_h2;
mod workers;
