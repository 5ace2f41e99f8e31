//! The rows of WebSockets: messages that come back, and tunnels that are only held.

pub(crate) mod app;
mod client;
pub(crate) mod frame;

use std::time::Duration;

use serde_json::json;

use self::client::Clients;
use crate::field::Field;
use crate::figures::Summary;
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::steady::{self, Steady, Unit};
use crate::support::{Error, backend, host, memory};

const CONNECTIONS: usize = 8;
const WINDOW: Duration = Duration::from_millis(800);

/// The most KB for an idle tunnel that are aimed at.
const AIM: f64 = 8.0;

/// Descriptors that the bench needs besides its connections.
const SPARE_DESCRIPTORS: u64 = 1_000;

/// How large the messages of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl Size {
    /// Octets of a payload.
    const fn octets(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Large => 64 * 1024,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Small => "WebSocket messages of 64 octets that come back",
            Self::Large => "WebSocket messages of 64 KB that come back",
        }
    }
}

/// Measures a row of messages.
pub(crate) fn echo(field: &Field, size: Size, rounds: usize) -> Result<Section, Error> {
    let upstream = backend::start_app::<app::Echo>()?;
    let row = Steady {
        title: size.title(),
        method: format!(
            "{CONNECTIONS} WebSockets over HTTP/1.1 in clear text, each sends its next message, \
             in one frame, when the last one has come back; each octet is compared. The CPU \
             time is that of both ways."
        ),
        entries: field.entries(Variant::Upgrading),
        upstream,
        unit: Unit::Message,
        warm_up: &|doors| {
            let mut clients = Clients::connect(doors.h1, CONNECTIONS, size.octets())?;
            clients.run(WINDOW / 10)?;
            Ok(Box::new(move || clients.run(WINDOW)))
        },
        aim: Some(1.0),
    };
    let mut section = steady::measure(field, row, rounds)?;
    let mut clients = Clients::connect(upstream, CONNECTIONS, size.octets())?;
    let limit = clients.run(Duration::from_secs(1))?;
    section.method += &format!(
        " Without a proxy, load and application pass {limit} messages in a second on the core \
         that they share."
    );
    Ok(section)
}

/// A proxy that is started for this alone; KB for each tunnel.
fn grown(field: &Field, number: usize, tunnels: usize) -> Result<f64, Error> {
    let upstream = backend::start_app::<app::Echo>()?;
    let entry = field.entries(Variant::Upgrading)[number];
    let running = field.start(number, entry, upstream)?;
    let bytes = memory::growth(&running.process, &running.doors, 2 * tunnels, || {
        let mut clients = Clients::connect(running.doors.h1, tunnels, Size::Small.octets())?;
        clients.run_once()?;
        Ok(clients)
    });
    let bytes = bytes.map_err(|error| format!("{}: {error}", entry.name()))?;
    // By tunnel, of which each has two connections.
    Ok(2.0 * bytes as f64 / 1024.0)
}

/// Measures what an idle tunnel takes, so many times.
pub(crate) fn idle(field: &Field, wanted: usize, times: usize) -> Result<Section, Error> {
    // The bench holds both ends.
    let room = host::raise_descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS) / 2;
    let tunnels = wanted.min(usize::try_from(room).unwrap_or(usize::MAX));
    let method = format!(
        "{tunnels} WebSockets (of {wanted} wanted), each idle after one message of 64 octets \
         both ways, held open until nothing has changed for two seconds; growth of the \
         anonymous memory of all processes of the proxy, by tunnel, which is two connections: \
         the median of {times}. What the kernel needs for the sockets is not in it."
    );
    let header = ["proxy", "KB for a tunnel"];
    let mut section = Section::new("Memory for an idle tunnel, KB", method, &header);
    for (number, program) in field.programs.iter().enumerate() {
        let mut sizes = Vec::new();
        for time in 1..=times {
            eprintln!("compare: tunnels: {}, {time} of {times}", program.name());
            sizes.push(grown(field, number, tunnels)?);
        }
        let median = Summary::of(&sizes).median;
        section.add(&program.name(), [format!("{median:.2}")], json!(sizes));
        if program.make == Make::Ebbtide {
            section.aim("KB for an idle tunnel", median, AIM);
        }
    }
    Ok(section)
}
