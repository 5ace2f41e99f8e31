//! How long idle connections take to move to a successor.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::LIMIT;
use super::line::{Line, gone, number};
use crate::field::Field;
use crate::figures::Summary;
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::support::load::{Load, Until};
use crate::support::{Error, host};

/// The most that is aimed at.
const AIM_MS: f64 = 1_000.0;

/// The resolution of the time.
const EVERY: Duration = Duration::from_millis(2);

/// Descriptors that a proxy and the bench need besides their connections.
const SPARE_DESCRIPTORS: u64 = 200;

/// One move.
struct Moved {
    /// From the signal until the successor serves, has them all, and the elder is gone.
    serves: f64,
    has_all: f64,
    gone: f64,
}

/// Moves so many, so many times. Only ebbtide does it.
pub(crate) fn measure(field: &Field, wanted: usize, times: usize) -> Result<Section, Error> {
    let limit = host::raise_descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS);
    // ebbtide keeps a second descriptor free for each connection.
    let connections = wanted.min(usize::try_from(limit / 2).unwrap_or(usize::MAX));
    let method = format!(
        "{connections} connections (of {wanted} wanted), each idle after one request; from the \
         signal until the successor serves, until it counts them all as its own, and until the \
         old process is gone. Then each is used once more, and each octet of each answer is \
         checked. The median of {times}. The peers move none."
    );
    let header =
        ["proxy", "ms until it serves", "until it has them all", "until the old one is gone"];
    let mut section = Section::new(format!("{connections} idle connections move"), method, &header);
    let entries = field.entries_of(Make::Ebbtide, Variant::Replaced);
    let entry = *entries.first().ok_or("ebbtide is not there")?;
    let mut all = Vec::new();
    for time in 1..=times {
        eprintln!("compare: move-idle: {time} of {times}");
        let line = Line::start(field, 0, entry, field.upstream)?;
        all.push(once(&line, connections)?);
    }
    let median =
        |figure: fn(&Moved) -> f64| Summary::of(&all.iter().map(figure).collect::<Vec<_>>()).median;
    let (serves, has_all, gone) =
        (median(|it| it.serves), median(|it| it.has_all), median(|it| it.gone));
    let cells = [serves, has_all, gone].map(|ms| format!("{ms:.0}"));
    let raw: Vec<_> = all
        .iter()
        .map(|it| json!({ "serves_ms": it.serves, "has_all_ms": it.has_all, "gone_ms": it.gone }))
        .collect();
    section.add(&entry.name(), cells, json!(raw));
    section.aim("ms from serving until it has them all", has_all - serves, AIM_MS);
    Ok(section)
}

fn once(line: &Line, connections: usize) -> Result<Moved, Error> {
    let mut load = Load::connect_and_ask(line.doors().h1, connections)?;
    let sent = Instant::now();
    let ms = || sent.elapsed().as_secs_f64() * 1e3;
    let old = line.upgrade()?;
    let serves = ms();
    let has_all = loop {
        let status = line.status()?;
        if number(&status["connections"]["h1"], "idle")? == connections as u64 {
            break ms();
        }
        if sent.elapsed() > LIMIT {
            return Err(format!("they have not moved within {LIMIT:?}: {status}").into());
        }
        thread::sleep(EVERY);
    };
    let gone = gone(vec![old])?.first().copied().unwrap_or(f64::NAN);
    // A connection that was closed ends the row.
    load.run(Until::Requests(connections as u64))?;
    Ok(Moved { serves, has_all, gone })
}
