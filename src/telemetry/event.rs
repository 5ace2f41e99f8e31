//! Events: what happens to the process, one structured line each.
//!
//! Owns the shape of an event and the limit on repeated warnings. Promises that
//! emitting never waits for the output. Does not log requests (see
//! [`super::access`]), does not write lines (see `line`), and has no levels to
//! switch off: an event that nobody needs should not exist.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::line::{json_line, text_line};
use super::sink::{Health, Sink};
use crate::drain::Phase;
use crate::limits::{EVENT_QUEUE_MAX, LIMITED_EVENT_KEYS_MAX};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As expected.
    Info,
    /// Somebody should look at it.
    Warn,
    /// Something was lost.
    Error,
}

impl Level {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Something that happened, with its circumstances in the order they were given.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub(super) level: Level,
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) key: Cow<'static, str>,
    pub(super) value: Value,
    /// Too long for a terminal.
    pub(super) detail: bool,
}

impl Event {
    /// An event without circumstances.
    pub fn new(level: Level, name: &'static str) -> Self {
        Self { level, name, fields: Vec::new() }
    }

    /// Adds a circumstance.
    #[must_use]
    pub fn with(self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.field(key.into(), value.into(), false)
    }

    /// Adds a structured circumstance.
    #[must_use]
    pub fn with_struct(self, key: impl Into<Cow<'static, str>>, value: &impl Serialize) -> Self {
        self.field(key.into(), serde_json::to_value(value).unwrap_or_default(), false)
    }

    /// Adds a structured circumstance that is left out on a terminal.
    #[must_use]
    pub fn with_detail(self, key: impl Into<Cow<'static, str>>, value: &impl Serialize) -> Self {
        self.field(key.into(), serde_json::to_value(value).unwrap_or_default(), true)
    }

    fn field(mut self, key: Cow<'static, str>, value: Value, detail: bool) -> Self {
        self.fields.push(Field { key, value, detail });
        self
    }

    /// A listener is bound; `proto` is `http`, `https` or `admin`.
    pub fn listening(addr: impl Into<String>, proto: &'static str) -> Self {
        Self::new(Level::Info, "listening").with("addr", addr.into()).with("proto", proto)
    }

    /// The process serves.
    pub fn ready() -> Self {
        Self::new(Level::Info, "ready")
    }

    /// A phase ended after `elapsed`, with what remains, as an object.
    pub fn phase(from: Phase, to: Phase, elapsed: Duration, remaining: &impl Serialize) -> Self {
        Self::new(Level::Info, "phase")
            .with("from_phase", from.name())
            .with("to_phase", to.name())
            .with("elapsed_ms", millis(elapsed))
            .with_struct("remaining", remaining)
    }
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON object.
    Json,
    /// Words for a person, warnings in colour if so set.
    Text {
        /// The terminal understands colours.
        colour: bool,
    },
}

/// Where events go; clones share it.
#[derive(Clone, Debug)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sink: Sink,
    style: Style,
    windows: Mutex<HashMap<String, Window>>,
}

/// The time in which a limited event is not repeated.
#[derive(Debug)]
struct Window {
    until: Instant,
    every: Duration,
    suppressed: u64,
    last: Option<Event>,
}

impl Events {
    /// Events in the given style to the given sink.
    pub fn new(sink: Sink, style: Style) -> Self {
        Self { inner: Arc::new(Inner { sink, style, windows: Mutex::default() }) }
    }

    /// Events to stderr: text if it is a terminal, else JSON.
    pub fn stderr() -> io::Result<Self> {
        let style = if io::stderr().is_terminal() {
            // https://no-color.org
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            Style::Text { colour }
        } else {
            Style::Json
        };
        Ok(Self::new(Sink::stderr("events", EVENT_QUEUE_MAX)?, style))
    }

    /// Writes one event.
    pub fn emit(&self, event: Event) {
        self.emit_at(SystemTime::now(), &event);
    }

    fn emit_at(&self, now: SystemTime, event: &Event) {
        let line = match self.inner.style {
            Style::Json => json_line(now, event),
            Style::Text { colour } => text_line(now, event, colour),
        };
        self.inner.sink.push(line, 1);
    }

    /// Writes an event that may repeat: at most one per `every` for each key.
    /// What was held back is told by [`Events::tick`] or by the next of its kind.
    pub fn limited(&self, key: &str, every: Duration, event: Event) {
        self.limited_at(Instant::now(), key, every, event);
    }

    fn limited_at(&self, now: Instant, key: &str, every: Duration, event: Event) {
        let mut windows = self.windows();
        if let Some(window) = windows.get_mut(key) {
            if now < window.until {
                window.suppressed += 1;
                window.last = Some(event);
                return;
            }
        } else if windows.len() >= LIMITED_EVENT_KEYS_MAX {
            windows.retain(|_, window| now < window.until || window.suppressed > 0);
            if windows.len() >= LIMITED_EVENT_KEYS_MAX {
                // So many kinds at once are a flood of their own; one warning more
                // tells nobody anything.
                return;
            }
        }
        let window = Window { until: now + every, every, suppressed: 0, last: None };
        let held_back = windows.insert(key.to_owned(), window).map_or(0, |old| old.suppressed);
        drop(windows);
        self.emit(with_suppressed(event, held_back));
    }

    /// Writes the last of each kind of event that was held back and whose time is
    /// over. For a periodic call of the control thread.
    pub fn tick(&self) {
        self.tick_at(Instant::now());
    }

    fn tick_at(&self, now: Instant) {
        let mut due = Vec::new();
        self.windows().retain(|_, window| {
            if now < window.until {
                return true;
            }
            let Some(last) = window.last.take() else {
                return false;
            };
            // The one that is written now was not lost.
            due.push(with_suppressed(last, window.suppressed.saturating_sub(1)));
            window.suppressed = 0;
            window.until = now + window.every;
            true
        });
        for event in due {
            self.emit(event);
        }
    }

    /// Reports a change in the health of a log, once per change.
    pub fn watch(&self, sink: &Sink) {
        let Some(change) = sink.change() else { return };
        let (level, name, what) = match &change.health {
            Health::Works => (Level::Info, "log_works", "written again".to_owned()),
            Health::Overflows => (Level::Warn, "log_broken", "not read fast enough".to_owned()),
            Health::Fails(why) => (Level::Error, "log_broken", format!("cannot write: {why}")),
        };
        let message = format!("{}: {what}; {} lines dropped", change.name, change.dropped);
        self.emit(
            Event::new(level, name)
                .with("log", change.name)
                .with("dropped", change.dropped)
                .with("message", message),
        );
    }

    /// Events that could not be written.
    pub fn dropped(&self) -> u64 {
        self.inner.sink.dropped()
    }

    /// Waits until every event so far is written; `false` at the deadline.
    pub fn flush(&self, deadline: Instant) -> bool {
        self.inner.sink.flush(deadline)
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<String, Window>> {
        self.inner.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_suppressed(event: Event, suppressed: u64) -> Event {
    if suppressed == 0 { event } else { event.with("suppressed", suppressed) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, Read, pipe};
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    fn events(style: Style) -> (Events, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (Events::new(Sink::new("events", writer, 1 << 20).unwrap(), style), reader)
    }

    fn finish(events: Events, mut reader: PipeReader) -> Vec<String> {
        drop(events);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_309_323_456)
    }

    #[test]
    fn a_json_line_has_time_level_event_and_process_first() {
        let (events, reader) = events(Style::Json);
        events.emit_at(now(), &Event::listening("127.0.0.1:41123", "http"));
        events.emit_at(
            now(),
            &Event::phase(
                Phase::Serving,
                Phase::LameDuck,
                Duration::from_millis(5),
                &json!({"h1": 1}),
            ),
        );
        assert_eq!(
            finish(events, reader),
            [
                "{\"ts\":\"2026-11-22T01:02:03.456Z\",\"level\":\"info\",\"event\":\"listening\",\
                 \"pid\":PID,\"addr\":\"127.0.0.1:41123\",\"proto\":\"http\"}",
                "{\"ts\":\"2026-11-22T01:02:03.456Z\",\"level\":\"info\",\"event\":\"phase\",\
                 \"pid\":PID,\"from_phase\":\"serving\",\"to_phase\":\"lame_duck\",\"elapsed_ms\":5,\
                 \"remaining\":{\"h1\":1}}",
            ]
            .map(|line| line.replace("PID", &std::process::id().to_string()))
        );
    }

    #[test]
    fn a_person_reads_words_and_colour_only_where_it_matters() {
        let warning = Event::new(Level::Warn, "slow").with("why", "a b").with_detail("long", &[1]);
        let (events, reader) = events(Style::Text { colour: true });
        events.emit_at(now(), &Event::listening("127.0.0.1:1", "http"));
        events.emit_at(now(), &warning);
        assert_eq!(
            finish(events, reader),
            [
                "01:02:03.456  listening  addr=127.0.0.1:1 proto=http",
                "01:02:03.456  \x1b[33mWARN\x1b[0m  slow  why=\"a b\"",
            ]
        );
    }

    #[test]
    fn a_value_can_neither_break_the_line_nor_steer_the_terminal() {
        for style in [Style::Json, Style::Text { colour: false }] {
            let (events, reader) = events(style);
            events.emit(Event::new(Level::Info, "x").with("v", "{\x1b[2J\n\"\u{9b}1m"));
            let lines = finish(events, reader);
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains('\x1b'));
            assert!(style == Style::Json || !lines[0].contains('\u{9b}'));
        }
    }

    #[test]
    fn a_repeated_warning_is_held_back_and_counted() {
        let (events, reader) = events(Style::Text { colour: false });
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let every = Duration::from_secs(10);
        let event = |n: u64| Event::new(Level::Warn, "w").with("n", n);
        events.limited_at(at(0), "k", every, event(0));
        events.limited_at(at(1), "k", every, event(1));
        events.limited_at(at(2), "other", every, event(2));
        events.limited_at(at(3), "k", every, event(3));
        events.tick_at(at(9));
        events.limited_at(at(10), "k", every, event(4));
        events.limited_at(at(11), "k", every, event(5));
        events.limited_at(at(12), "k", every, event(6));
        events.tick_at(at(20));
        events.tick_at(at(30));
        let lines: Vec<_> = finish(events, reader)
            .iter()
            .map(|line| line.split("  ").last().unwrap().to_owned())
            .collect();
        assert_eq!(lines, ["n=0", "n=2", "n=4 suppressed=2", "n=6 suppressed=1"]);
    }

    #[test]
    fn a_broken_access_log_is_told_once() {
        let (events, reader) = events(Style::Json);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let sink = Sink::new("access log", full, 1 << 20).unwrap();
        sink.push(b"a\nb\n".to_vec(), 2);
        assert!(sink.flush(Instant::now() + Duration::from_secs(10)));
        events.watch(&sink);
        events.watch(&sink);
        let lines = finish(events, reader);
        assert_eq!(lines.len(), 1);
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        let message = line["message"].as_str().unwrap();
        assert!(message.starts_with("access log: cannot write: No space left on device"));
        assert!(message.ends_with("; 2 lines dropped"));
    }
}
