//! The access log: one line for each request.
//!
//! Owns a worker's batch of formatted lines. Promises that recording a request
//! allocates nothing beyond the batch and never waits, that one request is
//! exactly one line whatever its octets, and that a batch leaves when it is
//! full or the worker calls [`AccessLog::flush`] on its tick. Does not write:
//! the lines go to a [`Sink`].

use std::marker::PhantomData;
use std::mem;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::clock::ClockText;
use super::escape::{push_combined, push_json};
use super::sink::Sink;
use crate::limits::ACCESS_LOG_BATCH;

/// Room for the line that overfills a batch, so that it seldom has to grow.
const BATCH_CAPACITY: usize = ACCESS_LOG_BATCH + 2048;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Apache's combined format.
    Combined,
    /// Nothing is written.
    Off,
}

/// What is known of a request when its response is over.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request arrived.
    pub ts: SystemTime,
    /// The request's id.
    pub request_id: &'a [u8],
    /// The client's address without port, formatted once per connection.
    pub remote: &'a str,
    /// The method as received.
    pub method: &'a [u8],
    /// The host as received.
    pub host: &'a [u8],
    /// The target as received; the log cuts its query off unless told otherwise.
    pub target: &'a [u8],
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub protocol: &'static str,
    /// The final status code.
    pub status: u16,
    /// Octets of request body received.
    pub bytes_in: u64,
    /// Octets of response body sent.
    pub bytes_out: u64,
    /// From the first octet of the request to the last of the response.
    pub duration: Duration,
    /// From the first octet of the request to the app's first octet, if it came.
    pub first_byte: Option<Duration>,
    /// The endpoint that was asked; empty if none was.
    pub upstream: &'a str,
    /// How often the request was sent again.
    pub retries: u8,
    /// The `Referer` field; its query is cut off like the target's.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` field.
    pub user_agent: Option<&'a [u8]>,
    /// In one word what went wrong, if anything did.
    pub error: Option<&'static str>,
    /// The process was draining when the response ended.
    pub drain: bool,
    /// It was the drain that ended it, at a place where it may end.
    pub told: bool,
}

/// One worker's access log. Stays on the worker's thread.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    query: bool,
    sink: Sink,
    batch: Vec<u8>,
    lines: u32,
    clock: ClockText,
    not_send: PhantomData<Rc<()>>,
}

impl AccessLog {
    /// A log that writes to `sink`, with the queries of targets if `query`.
    pub fn new(format: Format, query: bool, sink: Sink) -> Self {
        Self {
            format,
            query,
            sink,
            batch: Vec::new(),
            lines: 0,
            clock: ClockText::default(),
            not_send: PhantomData,
        }
    }

    /// Whether records are written at all, so that nobody gathers what is not.
    pub fn is_on(&self) -> bool {
        self.format != Format::Off
    }

    /// Adds the line of one request.
    pub fn record(&mut self, record: &Record<'_>) {
        match self.format {
            Format::Off => return,
            Format::Json => self.json(record),
            Format::Combined => self.combined(record),
        }
        self.lines += 1;
        if self.batch.len() >= ACCESS_LOG_BATCH {
            self.flush();
        }
    }

    /// Hands over what has gathered. For the worker's tick, and its end.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = mem::replace(&mut self.batch, Vec::with_capacity(BATCH_CAPACITY));
        self.sink.push(batch, mem::take(&mut self.lines));
    }

    fn json(&mut self, r: &Record<'_>) {
        let out = &mut self.batch;
        out.extend_from_slice(b"{\"ts\":\"");
        self.clock.push_rfc3339(r.ts, out);
        out.extend_from_slice(b"\",\"request_id\":\"");
        push_json(r.request_id, out);
        out.extend_from_slice(b"\",\"remote_ip\":\"");
        push_json(r.remote.as_bytes(), out);
        out.extend_from_slice(b"\",\"method\":\"");
        push_json(r.method, out);
        out.extend_from_slice(b"\",\"host\":\"");
        push_json(r.host, out);
        out.extend_from_slice(b"\",\"target\":\"");
        push_json(shown(r.target, self.query), out);
        out.extend_from_slice(b"\",\"protocol\":\"");
        out.extend_from_slice(r.protocol.as_bytes());
        out.extend_from_slice(b"\",\"status\":");
        push_number(r.status, out);
        out.extend_from_slice(b",\"bytes_in\":");
        push_number(r.bytes_in, out);
        out.extend_from_slice(b",\"bytes_out\":");
        push_number(r.bytes_out, out);
        out.extend_from_slice(b",\"duration_ms\":");
        push_ms(r.duration, out);
        out.extend_from_slice(b",\"ttfb_ms\":");
        match r.first_byte {
            Some(first_byte) => push_ms(first_byte, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"upstream\":");
        push_optional((!r.upstream.is_empty()).then_some(r.upstream.as_bytes()), out);
        out.extend_from_slice(b",\"retries\":");
        push_number(r.retries, out);
        out.extend_from_slice(b",\"user_agent\":");
        push_optional(r.user_agent, out);
        out.extend_from_slice(b",\"referer\":");
        push_optional(r.referer.map(|referer| shown(referer, self.query)), out);
        out.extend_from_slice(b",\"error\":");
        push_optional(r.error.map(str::as_bytes), out);
        out.extend_from_slice(if r.drain { b",\"drain\":true" } else { b",\"drain\":false" });
        if r.told {
            out.extend_from_slice(b",\"told\":true");
        }
        out.extend_from_slice(b"}\n");
    }

    fn combined(&mut self, r: &Record<'_>) {
        let out = &mut self.batch;
        push_combined(or_dash(r.remote.as_bytes()), out);
        out.extend_from_slice(b" - - [");
        self.clock.push_apache(r.ts, out);
        out.extend_from_slice(b"] \"");
        push_combined(r.method, out);
        out.push(b' ');
        push_combined(shown(r.target, self.query), out);
        out.push(b' ');
        out.extend_from_slice(r.protocol.as_bytes());
        out.extend_from_slice(b"\" ");
        push_number(r.status, out);
        out.push(b' ');
        match r.bytes_out {
            0 => out.push(b'-'),
            n => push_number(n, out),
        }
        out.extend_from_slice(b" \"");
        push_combined(or_dash(shown(r.referer.unwrap_or_default(), self.query)), out);
        out.extend_from_slice(b"\" \"");
        push_combined(or_dash(r.user_agent.unwrap_or_default()), out);
        out.extend_from_slice(b"\"\n");
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The part of a target that may be logged.
fn shown(target: &[u8], query: bool) -> &[u8] {
    match memchr::memchr(b'?', target) {
        Some(end) if !query => &target[..end],
        _ => target,
    }
}

fn or_dash(field: &[u8]) -> &[u8] {
    if field.is_empty() { b"-" } else { field }
}

fn push_number<N: itoa::Integer>(number: N, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Milliseconds with three decimals.
fn push_ms(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(micros / 1000, out);
    let rest = (micros % 1000) as u16;
    out.extend_from_slice(&[
        b'.',
        b'0' + (rest / 100) as u8,
        b'0' + (rest / 10 % 10) as u8,
        b'0' + (rest % 10) as u8,
    ]);
}

fn push_optional(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(value) => {
            out.push(b'"');
            push_json(value, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;

    fn log(format: Format, query: bool) -> (AccessLog, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (AccessLog::new(format, query, Sink::new("test", writer, 8 << 20).unwrap()), reader)
    }

    fn finish(log: AccessLog, mut reader: PipeReader) -> String {
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    fn record() -> Record<'static> {
        Record {
            ts: UNIX_EPOCH + Duration::from_millis(1_795_309_323_456),
            request_id: b"01jd",
            remote: "192.0.2.7",
            method: b"GET",
            host: b"shop.example",
            target: b"/pay?card=1",
            protocol: "HTTP/1.1",
            status: 200,
            bytes_in: 3,
            bytes_out: 12,
            duration: Duration::from_nanos(12_034_567),
            first_byte: Some(Duration::from_micros(5)),
            upstream: "127.0.0.1:8000",
            retries: 1,
            referer: Some(b"http://shop.example/?s=1"),
            user_agent: Some(b"curl/8"),
            error: None,
            drain: false,
            told: false,
        }
    }

    #[test]
    fn a_json_line_has_every_key_and_no_query() {
        let (mut log, reader) = log(Format::Json, false);
        log.record(&record());
        let text = finish(log, reader);
        assert!(text.ends_with("}\n"));
        assert!(text.contains("\"duration_ms\":12.034,\"ttfb_ms\":0.005,"));
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            line,
            json!({
                "ts": "2026-11-22T01:02:03.456Z", "request_id": "01jd", "remote_ip": "192.0.2.7",
                "method": "GET", "host": "shop.example", "target": "/pay", "protocol": "HTTP/1.1",
                "status": 200, "bytes_in": 3, "bytes_out": 12, "duration_ms": 12.034,
                "ttfb_ms": 0.005, "upstream": "127.0.0.1:8000", "retries": 1,
                "user_agent": "curl/8", "referer": "http://shop.example/", "error": null,
                "drain": false
            })
        );
    }

    #[test]
    fn the_query_is_logged_when_asked_for() {
        for format in [Format::Json, Format::Combined] {
            let (mut log, reader) = log(format, true);
            log.record(&record());
            assert!(finish(log, reader).contains("/pay?card=1"));
        }
    }

    #[test]
    fn what_is_unknown_is_null() {
        let (mut log, reader) = log(Format::Json, false);
        log.record(&Record {
            first_byte: None,
            upstream: "",
            referer: None,
            user_agent: None,
            error: Some("head_timeout"),
            drain: true,
            ..record()
        });
        let line: Value = serde_json::from_str(&finish(log, reader)).unwrap();
        for key in ["ttfb_ms", "upstream", "referer", "user_agent"] {
            assert!(line[key].is_null(), "{key}");
        }
        assert_eq!((&line["error"], &line["drain"]), (&json!("head_timeout"), &json!(true)));
    }

    #[test]
    fn every_octet_in_every_field_leaves_one_valid_json_line() {
        let (mut log, reader) = log(Format::Json, true);
        let all: Vec<u8> = (0..=255).collect();
        let fields: Vec<&[u8]> = all.chunks(1).chain([&all[..]]).collect();
        for field in &fields {
            log.record(&Record {
                request_id: field,
                method: field,
                host: field,
                target: field,
                referer: Some(field),
                user_agent: Some(field),
                ..record()
            });
        }
        let text = finish(log, reader);
        assert_eq!(text.lines().count(), fields.len());
        for (line, field) in text.lines().zip(fields) {
            let line: Value = serde_json::from_str(line).unwrap();
            let read: String = field.iter().map(|&o| char::from(o)).collect();
            for key in ["request_id", "method", "host", "target", "referer", "user_agent"] {
                assert_eq!(line[key], read, "{key}");
            }
        }
    }

    #[test]
    fn a_combined_line_is_what_log_readers_expect() {
        let (mut log, reader) = log(Format::Combined, false);
        log.record(&record());
        log.record(&Record {
            target: b"/a\"b\n\xff",
            user_agent: None,
            referer: None,
            bytes_out: 0,
            ..record()
        });
        assert_eq!(
            finish(log, reader),
            "192.0.2.7 - - [22/Nov/2026:01:02:03 +0000] \"GET /pay HTTP/1.1\" 200 12 \
             \"http://shop.example/\" \"curl/8\"\n\
             192.0.2.7 - - [22/Nov/2026:01:02:03 +0000] \"GET /a\\\"b\\x0a\\xff HTTP/1.1\" 200 - \
             \"-\" \"-\"\n"
        );
    }

    #[test]
    fn switched_off_nothing_is_written() {
        let (mut log, reader) = log(Format::Off, false);
        assert!(!log.is_on());
        log.record(&record());
        assert_eq!(finish(log, reader), "");
    }

    #[test]
    fn a_full_batch_leaves_before_the_tick() {
        let (mut log, mut reader) = log(Format::Json, false);
        while log.lines > 0 || log.batch.capacity() == 0 {
            log.record(&record());
        }
        let mut octets = vec![0; ACCESS_LOG_BATCH];
        reader.read_exact(&mut octets).unwrap();
        assert!(octets.starts_with(b"{\"ts\""));
    }
}
