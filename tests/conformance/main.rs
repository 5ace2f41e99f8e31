//! Requests that two parsers could read differently, put to ebbtide, nginx and
//! HAProxy: each is refused, or reaches the origin in a form that has one reading.
//!
//! The cases are data: [`corpus`] says how they are written, [`octets`], [`raw`] and
//! [`frames`] what their lines send. There are 1160 of HTTP/1 and 403 of HTTP/2, from
//! the RFCs and from the published families of attacks; `scores.md` has them by theme,
//! with what ebbtide and the others make of them.
//!
//! | files in `requests/` | about |
//! | --- | --- |
//! | `request-line`, `target`, `host` | what is asked for, and of whom |
//! | `content-length`, `transfer-encoding`, `both-framings` | where a body ends: CL.TE, TE.CL, TE.TE, CL.0, 0.CL, TE.0 |
//! | `chunks`, `trailers` | the grammar of chunked bodies: TERM.EXT, spill and their kin |
//! | `fields`, `line-ends` | names, values, folding, NUL, bare CR and LF |
//! | `connection`, `upgrade` | hop-by-hop fields, h2c, octets behind an Upgrade, CONNECT |
//! | `pipelining` | what stands behind a request, pauses, Expect |
//! | `limits`, `forwarding` | too much of anything, and what only a proxy may say |
//!
//! | files in `h2/` | about |
//! | --- | --- |
//! | `fields` | names and values that would be something else in HTTP/1 |
//! | `pseudo`, `authority` | what the request line and Host are made of |
//! | `connection`, `connect` | connection-specific fields, CONNECT with and without a protocol |
//! | `body` | lengths against DATA, ends of streams, trailers: H2.CL, H2.TE |
//!
//! Behind each HTTP/1 case the runner sends a request of its own on the same
//! connection: where it is taken for one tells where the subject sees the end of the
//! case. The origin ([`recorder`]) keeps the octets as they come, and what they are is
//! decided by a strict parser ([`strict`]) that shares no code with the proxy.
//!
//! The cases run against any proxy: with `TESTS_CONFORMANCE_TARGET=HOST:PORT`, and
//! `TESTS_CONFORMANCE_ORIGIN=HOST:PORT` for the address where that proxy expects its
//! origin and where the recording one then listens, they go there instead of to a proxy
//! of their own. HTTP/2 goes to the same place with prior knowledge, or to
//! `TESTS_CONFORMANCE_H2_TARGET`, or over TLS to `TESTS_CONFORMANCE_TLS_TARGET`. Such
//! a proxy is not held to what only ebbtide promises. nginx and HAProxy are started by
//! the tests themselves, from the packages that `tests/run` installs.
//!
//! Two more rooms put other things to the same subjects. [`duties`] has what a gateway owes
//! to both of its sides (RFC 9110, 9112, 9113), [`upstreams`] what a client must see of an
//! upstream that is broken or hostile, and that the next client sees nothing of it. Their
//! cases have an origin that plays a script: [`gateway`] reads and plays them, and its
//! `case` says how they are written. Each has a level, MUST, SHOULD or MAY, as the RFC that
//! it names has it; ebbtide has to do every MUST. All rooms want the origin's address for
//! themselves, so before a proxy that the environment names the tests run one by one, with
//! `--test-threads=1`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

mod copier;
mod corpus;
mod duties;
mod exceptions;
#[path = "../h2spec/foreign.rs"]
mod foreign;
mod frames;
mod gateway;
mod judge;
mod judge_itself;
mod octets;
mod raw;
mod recorder;
mod run;
mod scores;
mod strict;
mod subject;
mod upstreams;
mod verdicts;
