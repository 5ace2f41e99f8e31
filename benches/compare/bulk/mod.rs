//! The rows of large bodies: 10 MB in one direction, each octet compared.

mod app;
mod client;

use std::net::SocketAddr;
use std::time::Duration;

use crate::field::Field;
use crate::nginx;
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::steady::{self, Steady, Unit};
use crate::support::Error;

/// Octets of a body.
const BODY: usize = 10_000_000;

const CONNECTIONS: usize = 4;
const WINDOW: Duration = Duration::from_millis(800);

/// Where the body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
}

/// The octets of all bodies, different at every place, so that one that is lost, doubled
/// or moved is seen.
fn body() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..BODY / size_of::<u64>()).flat_map(|_| word().to_le_bytes()).collect()
}

/// Measures a row of large bodies.
pub(crate) fn measure(
    field: &Field,
    direction: Direction,
    rounds: usize,
) -> Result<Section, Error> {
    let upstream: SocketAddr = app::start()?;
    let mut entries = field.entries(Variant::Plain);
    entries.extend(field.entries_of(Make::Nginx, Variant::Unbuffered));
    let title = match direction {
        Direction::Down => "10 MB down",
        Direction::Up => "10 MB up",
    };
    let row = Steady {
        title,
        method: format!(
            "{CONNECTIONS} connections over HTTP/1.1 in clear text, one body after the other, \
             each octet compared. All with the buffers that they come with; “unbuffered” \
             is nginx with `{}`.",
            nginx::UNBUFFERED
        ),
        entries,
        upstream,
        unit: Unit::Octet,
        warm_up: &|doors| {
            let mut clients = client::Clients::connect(doors.h1, CONNECTIONS, direction)?;
            clients.run(WINDOW / 10)?;
            Ok(Box::new(move || clients.run(WINDOW)))
        },
        aim: (direction == Direction::Down).then_some(0.5),
    };
    steady::measure(field, row, rounds)
}
