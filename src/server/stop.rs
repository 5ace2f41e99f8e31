//! The end of the process: its workers, its report, its exit status.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::overview::Overview;
use crate::config::Config;
use crate::drain::Phase;
use crate::limits::{LAST_WORDS, PIPE_BUF};
use crate::telemetry::{ConnectionState, CutRequest, DrainReport, Event, Events, Level};

/// All work ended by itself.
const CLEAN: u8 = 0;
/// A request was cut, or something other than an empty process ended it.
const CUT: u8 = 3;

/// What a stop gathers on its way.
pub(super) struct Stopping {
    pub(super) report: DrainReport,
    pub(super) cuts: Option<Receiver<CutRequest>>,
    pub(super) reason: Option<&'static str>,
    /// A worker died, or a queue was reset, and with it what nobody can name.
    pub(super) lost: bool,
    /// When draining began.
    pub(super) since: Cell<Option<Instant>>,
}

/// What is left to look at when the last phase is over.
pub(super) struct Remains<'a> {
    pub(super) overview: &'a Overview,
    pub(super) config: &'a Config,
    pub(super) events: &'a Events,
    pub(super) aborted: bool,
}

impl Stopping {
    pub(super) fn new(generation: u32) -> Self {
        let report = DrainReport::new(generation, String::new());
        Stopping { report, cuts: None, reason: None, lost: false, since: Cell::new(None) }
    }

    /// Writes the drain report, the last line of all, and decides the exit status.
    pub(super) async fn conclude(&mut self, remains: &Remains<'_>) -> u8 {
        let overview = remains.overview;
        let totals = overview.own_totals();
        let report = &mut self.report;
        report.reason = self.reason.unwrap_or("unknown").to_owned();
        report.set_totals(&totals);
        for cut in self.cuts.iter().flat_map(Receiver::try_iter) {
            report.add_cut(cut);
        }
        report.cut_total = totals.cut;
        // Who lingers has its whole response; who is idle has lost nothing.
        let reading = overview.scope.census().of(ConnectionState::H1Reading);
        let in_flight = totals.in_flight.iter().sum::<u64>();
        report.unfinished = reading + usize::try_from(in_flight).unwrap_or(usize::MAX);
        if let Some(stop) = overview.state.borrow().stop {
            report.total_ms = u64::try_from(stop.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        if remains.aborted {
            report.add_error(overview.phase(), "ended by a further signal");
        }
        let cut = report.cut_total > 0 || report.unfinished > 0 || remains.aborted || self.lost;
        let status = if cut { CUT } else { CLEAN };
        report.exit_status = i32::from(status);
        if let Some(path) = &remains.config.report
            && let Err(error) = report.write_atomically(path)
        {
            overview.count_error(Phase::Finishing);
            let event = Event::new(Level::Error, "report_failed");
            let event = event.with("path", path.display().to_string());
            remains.events.emit(event.with("error", error.to_string()));
            report.add_error(Phase::Finishing, format!("cannot write the report: {error}"));
        }
        remains.events.tick();
        remains.events.watch(&overview.access);
        remains.events.emit(report.event());
        let until = Instant::now() + LAST_WORDS;
        overview.access.flush(until);
        remains.events.flush(until);
        status
    }
}

/// Waits for the workers' threads without blocking the control thread.
pub(super) async fn join(threads: Vec<JoinHandle<()>>) {
    let (done, joined) = oneshot::channel();
    let joiner = std::thread::Builder::new().name("joiner".into()).spawn(move || {
        for thread in threads {
            // A worker that panicked has nothing more to say than its message.
            let _panicked = thread.join();
        }
        let _nobody_waits = done.send(());
    });
    if joiner.is_ok() {
        let _joined = joined.await;
    }
}

/// What the watchdog does when a stop has outlived all its bounds: the
/// runtimes may be stuck, so nothing of theirs is used.
#[expect(clippy::exit, reason = "the one way out when a thread is stuck")]
pub(super) fn expire() {
    const LINE: &[u8] = b"{\"level\":\"error\",\"event\":\"watchdog\",\"message\":\"the stop has \
        outlived all its bounds; the process is ended\"}\n";
    const _: () = assert!(LINE.len() <= PIPE_BUF);
    say_at_once(io::stderr(), LINE);
    std::process::exit(i32::from(CUT));
}

/// Writes `line` if that cannot block: a pipe that is writable takes `PIPE_BUF`
/// octets whole. A reader that is stuck must not keep the process alive.
fn say_at_once(output: impl AsFd, line: &[u8]) {
    let mut asked = [PollFd::new(&output, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().contains(PollFlags::OUT) {
        let _unheard = rustix::io::write(&output, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn last_words_are_written_where_there_is_room_and_never_wait_for_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        say_at_once(&writer, b"end\n");
        let mut heard = [0; 4];
        reader.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"end\n");

        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        while rustix::io::write(&writer, &[0; PIPE_BUF]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
        say_at_once(&writer, b"end\n");
    }
}
