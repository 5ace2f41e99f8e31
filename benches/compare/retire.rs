//! How long a stop takes with idle connections only.

use std::thread;

use serde_json::json;

use crate::field::{Entry, Field};
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::support::load::{Closed, Load};
use crate::support::{Error, host, memory};

/// What ebbtide gives an idle connection to be used once more, by default; the others
/// close it at once.
const GRACE_MS: f64 = 1000.0;

/// The most beyond it that is aimed at.
const AIM_MS: f64 = 500.0;

/// Descriptors that a proxy and the bench need besides their connections.
const SPARE_DESCRIPTORS: u64 = 200;

/// How a program left.
struct Retired {
    /// From the signal to the exit.
    ms: f64,
    closed: Closed,
}

/// Stops each program so many times.
pub(crate) fn measure(field: &Field, wanted: usize, times: usize) -> Result<Section, Error> {
    let limit = host::raise_descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS);
    // ebbtide keeps a second descriptor free for each connection.
    let connections = wanted.min(usize::try_from(limit / 2).unwrap_or(usize::MAX));
    let method = format!(
        "{connections} connections (of {wanted} wanted), each idle after one request; from \
         the signal (TERM for ebbtide, QUIT for nginx, USR1 for HAProxy) to the exit. ebbtide \
         leaves an idle connection its `idle_grace` of 1 s to be used once more, which is in \
         its time; the others close at once, and so lose what is sent at that moment (see \
         the stops). The median of {times} for each."
    );
    let header = ["proxy", "ms to the exit", "beyond its grace", "closed in order", "reset"];
    let title = format!("Stop with {connections} idle connections");
    let mut section = Section::new(title, method, &header);
    for (number, &entry) in field.entries(Variant::Plain).iter().enumerate() {
        let mut retired = Vec::new();
        for time in 1..=times {
            eprintln!("compare: retire: {}, {time} of {times}", entry.name());
            let one = retire(field, number, entry, connections);
            retired.push(one.map_err(|error| format!("{}: {error}", entry.name()))?);
        }
        report(&mut section, entry, &mut retired);
    }
    Ok(section)
}

fn report(section: &mut Section, entry: Entry<'_>, retired: &mut [Retired]) {
    retired.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    let ms = retired[retired.len() / 2].ms;
    let is_own = entry.program.make == Make::Ebbtide;
    let beyond = if is_own { ms - GRACE_MS } else { ms };
    let in_order: usize = retired.iter().map(|it| it.closed.in_order).sum();
    let reset: usize = retired.iter().map(|it| it.closed.reset).sum();
    let all: Vec<_> = retired.iter().map(|it| it.ms).collect();
    let cells =
        [format!("{ms:.0}"), format!("{beyond:.0}"), in_order.to_string(), reset.to_string()];
    let raw = json!({ "ms": all, "beyond_ms": beyond, "in_order": in_order, "reset": reset });
    section.add(&entry.name(), cells, raw);
    if is_own {
        section.aim("ms beyond the grace", beyond, AIM_MS);
        if reset > 0 {
            section.faults.push(format!("{reset} idle connections were reset"));
        }
    }
}

fn retire(
    field: &Field,
    number: usize,
    entry: Entry<'_>,
    connections: usize,
) -> Result<Retired, Error> {
    let running = field.start(number, entry, field.upstream)?;
    let load = Load::connect_and_ask(running.doors.h1, connections)?;
    memory::settled(running.process.id())?;
    let clients = thread::spawn(move || {
        host::pin_to(host::LOAD_CORE)?;
        load.follow_closing()
    });
    let (status, time) = running.process.stop_by(entry.program.graceful_stop())?;
    let closed = clients.join().map_err(|_| "the clients panicked")??;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(Retired { ms: time.as_secs_f64() * 1e3, closed })
}
