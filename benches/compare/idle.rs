//! What a connection that is held open takes of a proxy's memory.

use std::thread;

use serde_json::json;

use crate::field::Field;
use crate::figures::Summary;
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::support::h2load::Work;
use crate::support::idle::Idle;
use crate::support::load::Load;
use crate::support::{Error, host, memory};

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

/// Of each kind, before any is measured: what the first of a kind brings with it, such as
/// the pages of a TLS library, is not to be divided among the others.
const WARM_UP: usize = 8;

/// Descriptors that the bench needs besides its connections.
const SPARE_DESCRIPTORS: u64 = 1_000;

/// A proxy that is started for this alone; KB for each connection.
fn grown(field: &Field, number: usize, held: Held, connections: usize) -> Result<f64, Error> {
    let entry = field.entries(Variant::Plain)[number];
    let running = field.start(number, entry, field.upstream)?;
    let (process, doors) = (&running.process, &running.doors);
    let bytes = match held {
        Held::Fresh => {
            memory::growth(process, doors, connections, || Load::connect(doors.h1, connections))
        }
        Held::Used => memory::growth(process, doors, connections, || {
            Load::connect_and_ask(doors.h1, connections)
        }),
        Held::Encrypted(work) => {
            let hold = |count| Idle::connect(work, doors, &field.identity, count);
            drop(hold(WARM_UP)?);
            memory::growth(process, doors, connections, || hold(connections))
        }
    };
    let bytes = bytes.map_err(|error| format!("{}: {error}", entry.name()))?;
    Ok(bytes as f64 / 1024.0)
}

/// All programs side by side, since most of the time passes with waiting.
fn grown_all(field: &Field, held: Held, connections: usize) -> Result<Vec<f64>, Error> {
    thread::scope(|scope| {
        let measure = |number| scope.spawn(move || grown(field, number, held, connections));
        let all: Vec<_> = (0..field.programs.len()).map(measure).collect();
        all.into_iter().map(|one| one.join().map_err(|_| "a thread panicked")?).collect()
    })
}

/// Measures all kinds, one after the other, so many times.
pub(crate) fn measure(field: &Field, wanted: usize, times: usize) -> Result<Section, Error> {
    let limit = host::raise_descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS);
    let share = usize::try_from(limit).unwrap_or(usize::MAX) / field.programs.len();
    let connections = wanted.min(share);
    let method = format!(
        "{connections} connections (of {wanted} wanted) to each, held open until nothing has \
         changed for two seconds; growth of the anonymous memory of all its processes, by \
         connection, the median of {times}: what an allocator has left over from the requests \
         before differs from time to time. What the kernel needs for a socket is not in it, and is the same for \
         all."
    );
    let header: Vec<_> = std::iter::once("proxy").chain(HELD.map(|(_, words)| words)).collect();
    let mut section = Section::new("Memory for an idle connection, KB", method, &header);
    let mut kinds = Vec::new();
    for (held, words) in HELD {
        let mut all = Vec::new();
        for time in 1..=times {
            eprintln!("compare: idle: {words}, {time} of {times}");
            all.push(grown_all(field, held, connections)?);
        }
        kinds.push(all);
    }
    for (number, program) in field.programs.iter().enumerate() {
        let sizes: Vec<Vec<f64>> =
            kinds.iter().map(|all| all.iter().map(|sizes| sizes[number]).collect()).collect();
        let medians: Vec<_> = sizes.iter().map(|sizes| Summary::of(sizes).median).collect();
        let shown = medians.iter().map(|size| format!("{size:.2}"));
        section.add(&program.name(), shown, json!(sizes));
        if program.make == Make::Ebbtide {
            section.aim("KB for an idle connection after one request", medians[1], AIM);
        }
    }
    Ok(section)
}
