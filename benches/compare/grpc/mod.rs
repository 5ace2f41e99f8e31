//! The row of gRPC: unary calls over HTTP/2 on both sides.

mod app;
mod client;

use std::time::Duration;

use self::client::Clients;
use crate::field::Field;
use crate::program::Variant;
use crate::section::Section;
use crate::steady::{self, Steady, Unit};
use crate::support::Error;

const CONNECTIONS: usize = 8;
const STREAMS: usize = 8;
const WINDOW: Duration = Duration::from_millis(800);

/// Octets of a message, without the five before it.
const MESSAGE: usize = 64;

/// The method that is called.
const PATH: &str = "/cost.Echo/Unary";

/// A message as it stands in a body: not compressed, its length, and itself.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// Measures it.
pub(crate) fn measure(field: &Field, rounds: usize) -> Result<Section, Error> {
    let upstream = app::start()?;
    let row = Steady {
        title: "gRPC, unary calls",
        method: format!(
            "{CONNECTIONS} connections of {STREAMS} streams over HTTP/2 in clear text, messages \
             of {MESSAGE} octets both ways, HTTP/2 in clear text to the application as well; \
             each message, each `content-type` and each `grpc-status` is compared. nginx by \
             `grpc_pass`, HAProxy by `proto h2`."
        ),
        entries: field.entries(Variant::Grpc),
        upstream,
        unit: Unit::Request,
        warm_up: &|doors| {
            let mut clients = Clients::connect(doors.h2, CONNECTIONS, STREAMS)?;
            clients.run(WINDOW / 10)?;
            Ok(Box::new(move || clients.run(WINDOW)))
        },
        aim: None,
    };
    let mut section = steady::measure(field, row, rounds)?;
    let limit = Clients::connect(upstream, CONNECTIONS, STREAMS)?.run(Duration::from_secs(1))?;
    section.method += &format!(
        " Without a proxy, load and application do {limit} calls in a second on the core that \
         they share."
    );
    Ok(section)
}
