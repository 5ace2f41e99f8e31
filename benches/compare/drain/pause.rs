//! What a client sees of an upgrade: the latency of requests that are sent when they are
//! due, whatever became of those before.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::line::{Line, gone};
use crate::field::Field;
use crate::figures::Summary;
use crate::program::{Make, Variant};
use crate::section::Section;
use crate::support::poller::Poller;
use crate::support::{Error, host, message};

const RATE: u64 = 1_000;
const CONNECTIONS: usize = 50;

/// How long requests are sent before the moment, and what is looked at from it on.
const BEFORE: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(1);

/// The most ms at the 99th percentile that an upgrade may add.
const AIM_MS: f64 = 5.0;

/// Latencies of a window, in milliseconds.
struct Latency {
    median: f64,
    p99: f64,
    most: f64,
}

/// Measures so many runs with an upgrade, and as many without.
pub(crate) fn measure(field: &Field, runs: usize) -> Result<Section, Error> {
    let method = format!(
        "{RATE} requests a second on {CONNECTIONS} kept connections, each sent when it is due; \
         its latency counts from then on. The figures are those of the second that begins with \
         the signal, and of the same second without one, in turn; the medians of {runs} runs. \
         Each answer is checked, and a connection that is closed ends the row. The successor \
         starts on the core of the proxy."
    );
    let header = ["ebbtide", "ms at the median", "at the 99th percentile", "at most"];
    let title = format!("The pause of an upgrade at {RATE} requests a second");
    let mut section = Section::new(title, method, &header);
    let entries = field.entries_of(Make::Ebbtide, Variant::Replaced);
    let entry = *entries.first().ok_or("ebbtide is not there")?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let line = Line::start(field, 0, entry, field.upstream)?;
    for run in 1..=runs {
        eprintln!("compare: upgrade-pause: {run} of {runs}");
        without.push(once(&line, false)?);
        with.push(once(&line, true)?);
    }
    let mut medians = Vec::new();
    for (name, all) in [("without an upgrade", &without), ("with an upgrade", &with)] {
        let figures: [fn(&Latency) -> f64; 3] = [|it| it.median, |it| it.p99, |it| it.most];
        let figures =
            figures.map(|figure| Summary::of(&all.iter().map(figure).collect::<Vec<_>>()));
        let raw: Vec<_> = all
            .iter()
            .map(|it| json!({ "median_ms": it.median, "p99_ms": it.p99, "max_ms": it.most }))
            .collect();
        section.add(name, figures.iter().map(Summary::to_string), json!(raw));
        medians.push(figures[1].median);
    }
    section.aim("ms more at the 99th percentile", medians[1] - medians[0], AIM_MS);
    Ok(section)
}

fn once(line: &Line, upgrades: bool) -> Result<Latency, Error> {
    let addr = line.doors().h1;
    let began = Instant::now();
    let client = thread::spawn(move || {
        host::pin_to(host::LOAD_CORE).map_err(|error| error.to_string())?;
        send(addr, began).map_err(|error| error.to_string())
    });
    thread::sleep(BEFORE.saturating_sub(began.elapsed()));
    let moment = began.elapsed();
    let old = if upgrades { Some(line.upgrade()?) } else { None };
    let all = client.join().map_err(|_| "the client panicked")??;
    gone(old.into_iter().collect())?;
    let mut window: Vec<f64> = all
        .iter()
        .filter(|(due, _)| (moment..moment + WINDOW).contains(due))
        .map(|(_, latency)| latency.as_secs_f64() * 1e3)
        .collect();
    window.sort_by(f64::total_cmp);
    let at = |part: f64| window[((window.len() - 1) as f64 * part) as usize];
    if window.is_empty() {
        return Err("nothing was sent at that moment".into());
    }
    Ok(Latency { median: at(0.5), p99: at(0.99), most: at(1.0) })
}

/// A connection with its request under way.
struct Lane {
    stream: TcpStream,
    number: message::Number,
    due: Duration,
    received: Vec<u8>,
}

/// Sends for as long as it is looked at, and a little longer; when each was due, and how
/// long its answer took from then on.
fn send(addr: SocketAddr, began: Instant) -> Result<Vec<(Duration, Duration)>, Error> {
    let poller = &mut Poller::new()?;
    let mut lanes = Vec::new();
    for index in 0..CONNECTIONS {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, index as u64)?;
        let (number, due) = (message::number(0), Duration::ZERO);
        lanes.push(Lane { stream, number, due, received: Vec::new() });
    }
    let begins = began.elapsed();
    let span = BEFORE + WINDOW + WINDOW / 2;
    let total = (span.as_secs_f64() * RATE as f64) as u64;
    let due_at = |n: u64| begins + Duration::from_secs_f64(n as f64 / RATE as f64);
    let mut idle: VecDeque<usize> = (0..CONNECTIONS).collect();
    let (mut sent, mut all) = (0, Vec::new());
    while (all.len() as u64) < total {
        while sent < total && began.elapsed() >= due_at(sent) {
            let Some(lane) = idle.pop_front() else { break };
            let lane = &mut lanes[lane];
            (lane.number, lane.due) = (message::number(sent + 1), due_at(sent));
            lane.stream.write_all(&message::request(&lane.number))?;
            sent += 1;
        }
        let next = if sent < total && !idle.is_empty() {
            due_at(sent).saturating_sub(began.elapsed())
        } else {
            Duration::from_secs(10)
        };
        if poller.wait(Some(next))? == 0 && next >= Duration::from_secs(10) {
            return Err("no answer in ten seconds".into());
        }
        for index in 0..poller.count() {
            let at = poller.ready(index) as usize;
            let lane = &mut lanes[at];
            let mut octets = [0; 4096];
            let read = lane.stream.read(&mut octets)?;
            if read == 0 {
                return Err("the proxy closed a connection".into());
            }
            lane.received.extend_from_slice(&octets[..read]);
            if message::check_response(&lane.received, &lane.number)? {
                lane.received.clear();
                all.push((lane.due, began.elapsed().saturating_sub(lane.due)));
                idle.push_back(at);
            }
        }
    }
    Ok(all)
}
