//! The 147 cases of h2spec 2.6 as frame scripts of our own, each over clear text
//! with prior knowledge and over TLS, against the real binary.
//!
//! A case is named by its section and what it promises; the section is that of RFC
//! 9113 or RFC 7541, except 5.3.1, which is RFC 7540's (RFC 9113 has dropped it, and
//! h2spec still asks for it). The comment above a case has h2spec's own number,
//! which counts by the sections of RFC 7540. Where the RFC leaves a server the choice
//! of codes, or between RST_STREAM and GOAWAY, the scripts leave it too. Unlike h2spec
//! they take no connection that just ends for an answer, and a GOAWAY of a wrong code
//! is wrong though the connection ends behind it.
//!
//! | file | h2spec | cases |
//! | --- | --- | --- |
//! | `generic` | generic/1 to generic/4 | 29 |
//! | `rfc7541_hpack` | generic/5, hpack | 23 |
//! | `rfc9113_3_to_4` | http2/3.5, http2/4 | 11 |
//! | `rfc9113_5_streams` | http2/5 | 22 |
//! | `rfc9113_6_frames` | http2/6.1 to 6.4, 6.7, 6.8, 6.10 | 23 |
//! | `rfc9113_6_settings_and_windows` | http2/6.5, 6.9 | 19 |
//! | `rfc9113_7_to_8` | http2/7, http2/8 | 20 |
//!
//! The scripts run against any server: with `TESTS_H2_TARGET=HOST:PORT` (prior
//! knowledge) and `TESTS_H2_TLS_TARGET=HOST:PORT` they go there instead of to a
//! proxy of their own. It has to answer `/` with 200 and at least five octets; that
//! it holds `/hold` back is not needed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails its test"
)]

#[path = "../support/mod.rs"]
mod support;

/// Makes each case a test over clear text and one over TLS.
macro_rules! over_both {
    ($($case:ident,)+) => {
        /// How many cases of h2spec are here.
        pub(crate) const CASES: usize = [$(stringify!($case)),+].len();

        mod clear {
            $(
                #[test]
                fn $case() {
                    super::$case(&crate::server::Server::clear());
                }
            )+
        }

        mod tls {
            $(
                #[test]
                fn $case() {
                    super::$case(&crate::server::Server::tls());
                }
            )+
        }
    };
}

mod client_itself;
mod foreign;
mod generic;
mod rfc7541_hpack;
mod rfc9113_3_to_4;
mod rfc9113_5_streams;
mod rfc9113_6_frames;
mod rfc9113_6_settings_and_windows;
mod rfc9113_7_to_8;
mod server;

const _: () = assert!(
    generic::CASES
        + rfc7541_hpack::CASES
        + rfc9113_3_to_4::CASES
        + rfc9113_5_streams::CASES
        + rfc9113_6_frames::CASES
        + rfc9113_6_settings_and_windows::CASES
        + rfc9113_7_to_8::CASES
        == 147
);
