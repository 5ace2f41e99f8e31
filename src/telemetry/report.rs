//! The drain report: one document that says how a process ended.
//!
//! Owns its shape, the description of a cut request, and the file. Promises
//! that the document is bounded (what is not listed is counted), and that a
//! reader of the file sees either the old content or the whole new one. Does
//! not decide what was cut, nor the exit status.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::counters::Totals;
use super::event::{Event, Level, millis};
use crate::drain::Phase;
use crate::limits::{REPORT_CUT_MAX, REPORT_ERRORS_MAX};

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainReport {
    /// The program's version.
    pub version: &'static str,
    /// The process.
    pub pid: u32,
    /// Which process this was, counted across upgrades.
    pub generation: u32,
    /// Why it ended, in one word or a signal's name.
    pub reason: String,
    /// The phases passed, in order.
    pub phases: Vec<PhaseTime>,
    /// Requests answered in the life of the process.
    pub requests_served: u64,
    /// Connections closed in the life of the process, by reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// Requests that arrived after our FIN.
    pub raced: u64,
    /// Connections moved to a successor.
    pub moved: u64,
    /// Endless responses that were ended at a place where they may end, in the life of the process.
    pub told: u64,
    /// The requests that were cut, as far as there is room.
    pub cut: Vec<CutRequest>,
    /// How many requests were cut.
    pub cut_total: u64,
    /// How many more were ended because their routes say so.
    pub cancelled_total: u64,
    /// What went wrong, as far as there is room.
    pub errors: Vec<PhaseError>,
    /// Connections that had not ended when the process did.
    pub unfinished: usize,
    /// The exit status.
    pub exit_status: i32,
    /// From the beginning of the stop to this report.
    pub total_ms: u64,
}

/// How long a phase took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PhaseTime {
    /// Which.
    #[serde(serialize_with = "phase_name")]
    pub phase: Phase,
    /// How long.
    pub duration_ms: u64,
}

/// An error of the shutdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PhaseError {
    /// In which phase.
    #[serde(serialize_with = "phase_name")]
    pub phase: Phase,
    /// What happened.
    pub message: String,
}

/// A request that the hard deadline ended, so described that an operator can
/// find it again on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CutRequest {
    /// The method.
    pub method: String,
    /// The target, without its query unless `log.query` is set.
    pub target: String,
    /// The client's address.
    pub client: String,
    /// The endpoint that was asked; empty if none was.
    pub upstream: String,
    /// From its first octet until it was cut.
    pub age_ms: u64,
    /// Octets of request body received.
    pub bytes_in: u64,
    /// Octets of response body sent.
    pub bytes_out: u64,
    /// The request's id.
    pub request_id: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub protocol: String,
    /// Whether an octet of it was sent to the app, which may have executed it.
    pub sent_upstream: bool,
    /// The status the client was sent, if any.
    pub status: Option<u16>,
    /// It was not the hard deadline that ended it, but what its route says.
    pub by_route: bool,
}

impl CutRequest {
    /// The `request_cut` event.
    pub fn event(&self) -> Event {
        Event::new(Level::Error, "request_cut")
            .with("method", &*self.method)
            .with("target", &*self.target)
            .with("client", &*self.client)
            .with("upstream", &*self.upstream)
            .with("age_ms", self.age_ms)
            .with("bytes_in", self.bytes_in)
            .with("bytes_out", self.bytes_out)
            .with("request_id", &*self.request_id)
            .with("protocol", &*self.protocol)
            .with("sent_upstream", self.sent_upstream)
            .with("by_route", self.by_route)
    }
}

impl DrainReport {
    /// A report of this version and process, with nothing in it yet.
    pub fn new(generation: u32, reason: impl Into<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            generation,
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// Adds the time a phase took.
    pub fn add_phase(&mut self, phase: Phase, duration: Duration) {
        self.phases.push(PhaseTime { phase, duration_ms: millis(duration) });
    }

    /// Counts a cut request, and lists it while there is room.
    pub fn add_cut(&mut self, request: CutRequest) {
        self.cut_total += 1;
        if self.cut.len() < REPORT_CUT_MAX {
            self.cut.push(request);
        }
    }

    /// Lists an error while there is room.
    pub fn add_error(&mut self, phase: Phase, message: impl Into<String>) {
        if self.errors.len() < REPORT_ERRORS_MAX {
            self.errors.push(PhaseError { phase, message: message.into() });
        }
    }

    /// Takes over what the workers counted.
    pub fn set_totals(&mut self, totals: &Totals) {
        self.requests_served = totals.requests();
        self.closed = totals.by_reason().map(|(reason, n)| (reason.name(), n)).collect();
        self.raced = totals.raced;
        self.moved = totals.moved.iter().sum();
        self.told = totals.told;
        self.cancelled_total = totals.cancelled;
    }

    /// The `drain_report` event, with the whole document.
    pub fn event(&self) -> Event {
        let level = if self.exit_status == 0 { Level::Info } else { Level::Error };
        Event::new(level, "drain_report")
            .with("version", self.version)
            .with("generation", self.generation)
            .with("reason", &*self.reason)
            .with_struct("phases", &self.phases)
            .with("requests_served", self.requests_served)
            .with_struct("closed", &self.closed)
            .with("raced", self.raced)
            .with("moved", self.moved)
            .with("told", self.told)
            .with_detail("cut", &self.cut)
            .with("cut_total", self.cut_total)
            .with("cancelled_total", self.cancelled_total)
            .with_detail("errors", &self.errors)
            .with("unfinished", self.unfinished)
            .with("exit_status", self.exit_status)
            .with("total_ms", self.total_ms)
    }

    /// Writes the document to a file: beside it first, then renamed over it. What
    /// is no regular file (`/dev/stdout`, a named pipe) is written to directly,
    /// since a rename would replace it.
    pub fn write_atomically(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(e) => return Err(e),
        };
        match fs::metadata(&target) {
            Ok(meta) if !meta.is_file() => return write_directly(&target, &text),
            _ => {}
        }
        let temporary = beside(&target)?;
        let result = write_synced(&temporary, &text).and_then(|()| fs::rename(&temporary, &target));
        if result.is_err() {
            // The error that matters is the first.
            let _ = fs::remove_file(&temporary);
            return result;
        }
        // The content is safe; that its name survives a power cut is best effort.
        let _ = File::open(directory(&target)).and_then(|dir| dir.sync_all());
        Ok(())
    }
}

fn write_directly(target: &Path, text: &[u8]) -> io::Result<()> {
    // Without waiting: a pipe that nobody reads must not hold up the exit.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().write(true).custom_flags(nonblock).open(target)?.write_all(text)
}

fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(target: &Path) -> io::Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().ok_or(io::ErrorKind::IsADirectory)?);
    name.push(format!(".{}.tmp", std::process::id()));
    Ok(directory(target).join(name))
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let create = || OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match create() {
        // Left by a process of the same id that died; never followed if a link.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()?
        }
        other => other?,
    };
    file.write_all(text)?;
    file.sync_all()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn phase_name<S: Serializer>(phase: &Phase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(phase.name())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::event::{Events, Style};
    use crate::telemetry::{CloseReason, Counters, Sink};

    fn cut() -> CutRequest {
        CutRequest {
            method: "POST".into(),
            target: "/pay".into(),
            client: "192.0.2.7:5".into(),
            upstream: "127.0.0.1:8000".into(),
            age_ms: 20_001,
            bytes_in: 5,
            bytes_out: 0,
            request_id: "01jd".into(),
            protocol: "HTTP/1.1".into(),
            sent_upstream: true,
            status: Some(504),
            by_route: false,
        }
    }

    fn report() -> DrainReport {
        let counters = std::sync::Arc::new(Counters::default());
        counters.request(200);
        counters.closed(CloseReason::Drain);
        let mut report = DrainReport::new(1, "SIGTERM");
        report.set_totals(&Totals::sum(&[counters]));
        report.add_phase(Phase::Closing, Duration::from_millis(21));
        report.add_cut(cut());
        report.add_error(Phase::Finishing, "hook \"x\" failed");
        report.exit_status = 3;
        report
    }

    fn emitted(event: Event) -> Value {
        let (mut reader, writer) = io::pipe().unwrap();
        let events = Events::new(Sink::new("events", writer, 1 << 20).unwrap(), Style::Json);
        events.emit(event);
        drop(events);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_cut_request_is_named_with_the_fields_of_the_interface() {
        let mut line = emitted(cut().event());
        let line = line.as_object_mut().unwrap();
        for common in ["ts", "level", "pid"] {
            assert!(line.remove(common).is_some(), "{common}");
        }
        assert_eq!(
            Value::from(line.clone()),
            json!({
                "event": "request_cut", "method": "POST", "target": "/pay",
                "client": "192.0.2.7:5", "upstream": "127.0.0.1:8000", "age_ms": 20001,
                "bytes_in": 5, "bytes_out": 0, "request_id": "01jd", "protocol": "HTTP/1.1",
                "sent_upstream": true,
                "by_route": false
            })
        );
    }

    #[test]
    fn the_event_and_the_file_hold_the_same_document() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let report = report();
        report.write_atomically(&path).unwrap();
        let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["phases"], json!([{"phase": "closing", "duration_ms": 21}]));
        assert_eq!((&file["closed"]["drain"], &file["cut_total"]), (&json!(1), &json!(1)));
        let mut event = emitted(report.event());
        for key in ["ts", "level", "event"] {
            event.as_object_mut().unwrap().remove(key);
        }
        assert_eq!(event, file);
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let mut old = File::open(&path).unwrap();
        fs::write(beside(&path).unwrap(), "left by a crash").unwrap();
        report().write_atomically(&path).unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old", "who had the old file open still reads it");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_followed_and_a_pipe_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        report().write_atomically(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_ne!(fs::read(&file).unwrap(), b"old");

        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(report().write_atomically(&pipe).is_err(), "nobody reads it");
        assert!(!fs::metadata(&pipe).unwrap().is_file());
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(report().write_atomically(&dir.path().join("no/report.json")).is_err());
        assert!(report().write_atomically(dir.path()).is_err());
    }

    #[test]
    fn the_list_of_cut_requests_is_bounded_and_the_count_is_not() {
        let mut report = DrainReport::new(1, "SIGTERM");
        for _ in 0..REPORT_CUT_MAX + 5 {
            report.add_cut(CutRequest::default());
        }
        assert_eq!((report.cut.len(), report.cut_total), (REPORT_CUT_MAX, 10_005));
    }
}
