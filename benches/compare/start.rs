//! From the execution of a program to its first whole answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::field::{Entry, Field};
use crate::figures::{Summary, shuffled};
use crate::program::Variant;
use crate::running::Prepared;
use crate::section::Section;
use crate::support::{Error, message};

/// How often a starting program is asked; the resolution of the figure.
const EVERY: Duration = Duration::from_micros(250);
const LIMIT: Duration = Duration::from_secs(10);

/// Starts each program so many times, in random order.
pub(crate) fn measure(field: &Field, rounds: usize) -> Result<Section, Error> {
    let entries = field.entries(Variant::Plain);
    let mut times = vec![Vec::new(); entries.len()];
    for round in 1..=rounds {
        eprintln!("compare: start: round {round} of {rounds}");
        for number in shuffled(entries.len()) {
            let time = time_one(field, number, entries[number])?;
            times[number].push(time.as_secs_f64() * 1e3);
        }
    }
    let method = format!(
        "From the execution of the program to the first whole response through it, asked \
         every {EVERY:?}, with a TLS listener besides; {rounds} starts of each."
    );
    let header = ["proxy", "ms to the first response"];
    let mut section = Section::new("Start", method, &header);
    for (entry, times) in entries.iter().zip(&times) {
        let summary = Summary::of(times);
        section.add(&entry.name(), [summary.to_string()], json!(times));
    }
    Ok(section)
}

fn time_one(field: &Field, number: usize, entry: Entry<'_>) -> Result<Duration, Error> {
    let mut prepared = Prepared::new(field, number, entry, field.upstream)?;
    let addr = prepared.doors.h1;
    let started = Instant::now();
    let mut process = prepared.start()?;
    while started.elapsed() < LIMIT {
        if let Ok(stream) = TcpStream::connect(addr) {
            ask(stream).map_err(|error| format!("{}: {error}", entry.name()))?;
            return Ok(started.elapsed());
        }
        if let Some(status) = process.ended()? {
            let messages = prepared.messages();
            return Err(format!("{} ended with {status}:\n{messages}", entry.name()).into());
        }
        thread::sleep(EVERY);
    }
    Err(format!("{} did not answer within {LIMIT:?}", entry.name()).into())
}

/// One request on a new connection, which has to be answered: who listens has started.
pub(crate) fn ask(mut stream: TcpStream) -> Result<(), Error> {
    stream.set_read_timeout(Some(LIMIT))?;
    let number = message::number(1);
    stream.write_all(&message::last_request(&number))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    if message::check_response(&received, &number)? {
        return Ok(());
    }
    Err("its first response is not whole".into())
}
