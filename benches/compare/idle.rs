//! What a connection that is held open takes of a proxy's memory.

use serde_json::json;

use crate::field::Field;
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::support::h2load::Work;
use crate::support::idle::Idle;
use crate::support::load::Load;
use crate::support::proxy::Doors;
use crate::support::{Error, memory};

/// What is held, and the words for it.
#[derive(Clone, Copy)]
enum Held {
    Fresh,
    Used,
    Encrypted(Work),
}

const HELD: [(Held, &str); 4] = [
    (Held::Fresh, "no request yet"),
    (Held::Used, "after one request"),
    (Held::Encrypted(Work::H1Tls), "the same over TLS"),
    (Held::Encrypted(Work::H2Tls), "HTTP/2 over TLS"),
];

/// The most bytes after one request in clear text that are aimed at: 1.5 KB.
const AIM: f64 = 1.5;

/// A proxy that is started for this alone; KB for each connection.
fn grown(field: &Field, number: usize, held: Held, connections: usize) -> Result<f64, Error> {
    let entry = field.entries(Variant::Plain)[number];
    let running = field.start(number, entry, field.upstream)?;
    let doors: Doors = running.doors;
    let bytes = match held {
        Held::Fresh => memory::growth(&running.process, &doors, connections, || {
            Load::connect(doors.h1, connections)
        }),
        Held::Used => memory::growth(&running.process, &doors, connections, || {
            Load::connect_and_ask(doors.h1, connections)
        }),
        Held::Encrypted(work) => memory::growth(&running.process, &doors, connections, || {
            Idle::connect(work, &doors, &field.identity, connections)
        }),
    };
    let bytes = bytes.map_err(|error| format!("{}: {error}", entry.name()))?;
    Ok(bytes as f64 / 1024.0)
}

/// Measures all programs, one after the other.
pub(crate) fn measure(field: &Field, connections: usize) -> Result<Section, Error> {
    let method = format!(
        "{connections} connections, all held open for two seconds or more without a change; \
         growth of the proportional set size of all its processes, by connection. What the \
         kernel needs for a socket is not in it, and is the same for all."
    );
    let mut header = vec!["proxy"];
    header.extend(HELD.map(|(_, words)| words));
    let mut section = Section::new("Memory for an idle connection, KB", method, &header);
    for (number, program) in field.programs.iter().enumerate() {
        let mut sizes = Vec::new();
        for (held, words) in HELD {
            eprintln!("compare: idle: {}, {words}", program.name());
            sizes.push(grown(field, number, held, connections)?);
        }
        let raw = json!(sizes);
        let shown: Vec<_> = sizes.iter().map(|size| format!("{size:.2}")).collect();
        section.add(&program.name(), shown, raw);
        if program.make == Make::Ebbtide {
            section.aim("KB for an idle connection after one request", sizes[1], AIM);
        }
    }
    Ok(section)
}
