//! What clients lose when the binary is replaced under load.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ebbtide::demo::clients::Way;
use serde_json::json;

use super::account::{Account, faults};
use super::line::{Line, gone};
use super::load::{Load, short_clients};
use super::tunnels::{Seen, Tunnels};
use super::{WORK, progress};
use crate::field::{Entry, Field};
use crate::figures::Summary;
use crate::program::{LEFT_S, Make, Variant};
use crate::section::Section;
use crate::support::{Error, backend};
use crate::websocket::app::Echo;

const TUNNELS: usize = 16;

/// The most upgrades with WebSockets: a peer's old process stays for seconds each time.
const WITH_TUNNELS: usize = 5;

/// The most seconds that are aimed at from the signal until the old process is gone.
const AIM_MS: f64 = 1_500.0;

const HEADER: [&str; 11] = [
    "proxy",
    "served",
    "lost",
    "of these reset",
    "lost but executed",
    "raced",
    "refused",
    "connections closed",
    "ms until the old one is gone",
    "WebSockets closed",
    "the same, with WebSockets",
];

/// Both series of one program.
struct Outcome {
    account: Account,
    gone: Vec<f64>,
    seen: Arc<Seen>,
    gone_with_tunnels: Vec<f64>,
}

/// Replaces each program so many times.
pub(crate) fn measure(field: &Field, times: usize) -> Result<Section, Error> {
    let tunnelled = times.min(WITH_TUNNELS);
    let method = format!(
        "{} clients over HTTP/1.1: GET and POST, short and of 300 ms, mostly idle ones, and one \
         connection for each request; a second between two upgrades. ebbtide by USR2; nginx by \
         USR2 and, when the new worker is there, QUIT to the old master, as its manual has it; \
         HAProxy by USR2 to its master, which executes itself anew. The next upgrade begins when \
         the old process has gone, because nginx takes none before. *connections closed*: kept \
         ones whose client did not want to end them, told, raced and lost together. \
         WebSockets: {TUNNELS} with a message each 100 ms, {tunnelled} upgrades; the peers' old \
         processes cut them after {LEFT_S} s (`worker_shutdown_timeout`, `hard-stop-after`), \
         without which they would stay for as long as the longest. Times are medians with \
         quartiles, from the signal.",
        short_clients()
    );
    let mut section = Section::new(format!("{times} upgrades under load"), method, &HEADER);
    for (number, &entry) in field.entries(Variant::Replaced).iter().enumerate() {
        let outcome = outcome(field, number, entry, times, tunnelled)
            .map_err(|error| format!("{}: {error}", entry.name()))?;
        report(&mut section, entry, &outcome);
    }
    Ok(section)
}

fn outcome(
    field: &Field,
    number: usize,
    entry: Entry<'_>,
    times: usize,
    tunnelled: usize,
) -> Result<Outcome, Error> {
    let mut load = Load::prepare()?;
    let line = Line::start(field, number, entry, load.upstream())?;
    load.begin_short(line.doors())?;
    let gone = series(&line, "upgrades", entry, times)?;
    let mut account = Account::default();
    load.finish(&mut account);
    drop(line);
    let line = Line::start(field, number, entry, backend::start_app::<Echo>()?)?;
    let tunnels = Tunnels::open(line.doors().h1, TUNNELS)?;
    let gone_with_tunnels = series(&line, "upgrades with WebSockets", entry, tunnelled)?;
    let seen = tunnels.finish()?;
    Ok(Outcome { account, gone, seen, gone_with_tunnels })
}

/// How long each old process stayed.
fn series(line: &Line, what: &str, entry: Entry<'_>, times: usize) -> Result<Vec<f64>, Error> {
    let mut stayed = Vec::new();
    for time in 1..=times {
        progress(what, entry, time, times);
        let next = Instant::now() + WORK;
        super::line::sleep_until(next);
        stayed.extend(gone(vec![line.upgrade()?])?);
    }
    thread::sleep(Duration::from_millis(500));
    Ok(stayed)
}

fn report(section: &mut Section, entry: Entry<'_>, outcome: &Outcome) {
    let total = outcome.account.total();
    let ended = |ways: &[Way]| ways.iter().map(|&way| total.lost[way as usize]).sum::<u64>();
    let reset = ended(&[Way::Fresh, Way::Reset]);
    let closed = total.told + total.raced + ended(&[Way::Reset, Way::Closed, Way::Truncated]);
    let [messages, tunnels, refused, wrong] = outcome.seen.counts();
    let [alone, beside] =
        [&outcome.gone, &outcome.gone_with_tunnels].map(|times| Summary::of(times));
    let counts = [total.served, total.lost(), reset, total.executed, total.raced, total.refused];
    let cells = counts.iter().chain([&closed]).map(u64::to_string);
    let cells = cells.chain([alone.to_string(), tunnels.to_string(), beside.to_string()]);
    let raw = json!({
        "http": outcome.account.json(), "connections_closed": closed,
        "gone_ms": outcome.gone, "gone_ms_with_websockets": outcome.gone_with_tunnels,
        "websockets": {
            "messages": messages, "closed": tunnels, "refused": refused, "wrong": wrong,
        },
    });
    section.add(&entry.name(), cells, raw);
    if entry.program.make == Make::Ebbtide {
        section.faults = faults(&outcome.account);
        for (what, count) in [
            ("connections were closed", closed),
            ("connects were refused", total.refused),
            ("WebSockets were closed", tunnels),
            ("WebSockets were refused", refused),
            ("messages came back wrong", wrong),
        ] {
            if count > 0 {
                section.faults.push(format!("{count} {what}"));
            }
        }
        section.aim("ms until the old process is gone", alone.high, AIM_MS);
        section.aim("the same, with WebSockets", beside.high, AIM_MS);
    }
}
