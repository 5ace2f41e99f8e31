//! The rows of small requests: 1 KB, by the bench's own clients where they speak it, by
//! h2load elsewhere.

use std::time::Duration;

use crate::field::Field;
use crate::oneshot;
use crate::program::Variant;
use crate::section::Section;
use crate::steady::{self, Steady, Unit, Work};
use crate::support::h2load;
use crate::support::load::{Load, Until};
use crate::support::proxy::Doors;
use crate::support::{Error, message};

const CONNECTIONS: usize = 8;
const WINDOW: Duration = Duration::from_millis(800);
const WARM_UP: u64 = 2_000;

/// Requests a second of the row with a fixed rate.
const RATE: u64 = 5_000;

/// A row of small requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Small {
    KeepAlive,
    Logged,
    FixedRate,
    OneShot,
    /// What h2load does.
    H2load(h2load::Work),
}

impl Small {
    fn title(self) -> &'static str {
        match self {
            Self::KeepAlive => "1 KB over HTTP/1.1, keep-alive",
            Self::Logged => "1 KB over HTTP/1.1, keep-alive, with an access log",
            Self::FixedRate => "1 KB over HTTP/1.1, keep-alive, 5,000 requests a second",
            Self::OneShot => "1 KB over HTTP/1.1, one connection per request",
            Self::H2load(h2load::Work::H1Tls) => "1 KB over HTTP/1.1 and TLS, keep-alive",
            Self::H2load(h2load::Work::H2) => "1 KB over HTTP/2 in clear text",
            Self::H2load(h2load::Work::H2Tls) => "1 KB over HTTP/2 and TLS",
            Self::H2load(h2load::Work::Handshake) => "TLS handshakes, one request each",
            Self::H2load(h2load::Work::H1) => "1 KB over HTTP/1.1, by h2load",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::KeepAlive => {
                "8 connections, each sends its next request when it has the response; no access log."
            }
            Self::Logged => {
                "The same with an access log in Apache's combined format, written to a file: \
                 nginx with `buffer=64k flush=1s`, since ebbtide gathers lines too; HAProxy by \
                 `log stdout format raw`, which writes each line."
            }
            Self::FixedRate => {
                "8 connections; far below what any of them can do, so each waits for work most \
                 of the time."
            }
            Self::OneShot => {
                "8 at once: connect, one request with `Connection: close`, its response, the end \
                 of the connection. Connections to the application are kept."
            }
            Self::H2load(h2load::Work::Handshake) => {
                "Full handshakes with X25519 and an ECDSA P-256 certificate, TLS 1.3; h2load \
                 in sets of 100 connections."
            }
            Self::H2load(h2load::Work::H1 | h2load::Work::H1Tls) => {
                "8 connections by h2load; TLS 1.3, AES-128-GCM, ECDSA P-256."
            }
            Self::H2load(h2load::Work::H2 | h2load::Work::H2Tls) => {
                "8 connections of 8 streams by h2load; over TLS: 1.3, AES-128-GCM, ECDSA P-256."
            }
        }
    }

    fn warm_up(self, doors: &Doors) -> Result<Work, Error> {
        let doors = *doors;
        let connect = || -> Result<Load, Error> {
            let mut load = Load::connect(doors.h1, CONNECTIONS)?;
            load.run(Until::Requests(WARM_UP))?;
            Ok(load)
        };
        Ok(match self {
            Self::KeepAlive | Self::Logged => {
                let mut load = connect()?;
                Box::new(move || load.run(Until::Elapsed(WINDOW)))
            }
            Self::FixedRate => {
                let mut load = connect()?;
                Box::new(move || load.run_paced(RATE, WINDOW))
            }
            Self::OneShot => {
                oneshot::run(doors.h1, CONNECTIONS, WINDOW / 10)?;
                Box::new(move || oneshot::run(doors.h1, CONNECTIONS, WINDOW))
            }
            Self::H2load(work) => {
                h2load::run(work, &doors, work.requests().min(WARM_UP))?;
                Box::new(move || {
                    h2load::run(work, &doors, work.requests())?;
                    Ok(work.requests())
                })
            }
        })
    }
}

/// Measures a row of small requests.
pub(crate) fn measure(field: &Field, small: Small, rounds: usize) -> Result<Section, Error> {
    let variant = if small == Small::Logged { Variant::Logged } else { Variant::Plain };
    let row = Steady {
        title: small.title(),
        method: small.method().to_owned(),
        entries: field.entries(variant),
        upstream: field.upstream,
        unit: Unit::Request,
        warm_up: &|doors| small.warm_up(doors),
        aim: (small == Small::KeepAlive).then_some(1.0),
    };
    let mut section = steady::measure(field, row, rounds)?;
    if small == Small::KeepAlive {
        let mut load = Load::connect(field.upstream, CONNECTIONS)?;
        load.run(Until::Requests(WARM_UP))?;
        let limit = load.run(Until::Elapsed(Duration::from_secs(1)))?;
        section.method += &format!(
            " Without a proxy, load and application do {limit} requests in a second on the \
             core that they share. A response has {} octets of body.",
            message::BODY
        );
    }
    Ok(section)
}
