//! HTTP/2 as the case files write it, and how it is put to a subject.
//!
//! | line | meaning |
//! | --- | --- |
//! | `HEADERS [end] [N]` | HEADERS on stream N, or 1; its fields follow |
//! | `  NAME VALUE` | a field; the first space ends the name, see [`crate::octets`] |
//! | `  * METHOD PATH` | `:method`, `:scheme`, `:path` and `:authority` of a plain request |
//! | `DATA [end] [N] OCTETS` | DATA; `-` is none |
//! | `RST [N]` | RST_STREAM with CANCEL |
//! | `...` | what follows comes a moment later; everything before it is one write |
//!
//! A field block that is longer than a frame goes on in CONTINUATION.

use std::time::{Duration, Instant};

use crate::corpus::Script;
use crate::judge::Heard;
use crate::octets;
use crate::run::Patience;
use crate::subject::Way;
use crate::support::h2::frame::flag;
use crate::support::h2::{Code, Frame, H2, hpack};
use crate::support::{ms, pause};

/// The client's silence at `...`: longer than any subject needs to read on.
const MOMENT: Duration = ms(15);

/// The most octets of a frame that every peer takes.
const FRAME_MAX: usize = 16_384;

#[derive(Debug)]
enum Step {
    Headers { stream: u32, end: bool, fields: Vec<Field> },
    Data { stream: u32, end: bool, octets: Vec<u8> },
    Reset { stream: u32 },
    Moment,
}

#[derive(Debug)]
enum Field {
    Plain(Vec<u8>, Vec<u8>),
    /// `:scheme`, which is known when there is a connection.
    Scheme,
}

/// What is sent.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    steps: Vec<Step>,
    lines: Vec<String>,
}

impl Script for Frames {
    fn line(&mut self, line: &str) -> Result<(), String> {
        self.lines.push(line.to_owned());
        if let Some(field) = line.strip_prefix("  ") {
            let Some(Step::Headers { fields, .. }) = self.steps.last_mut() else {
                return Err("a field that belongs to no HEADERS".to_owned());
            };
            return put(fields, field);
        }
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (end, rest) = match rest.strip_prefix("end") {
            Some(behind) if behind.is_empty() || behind.starts_with(' ') => {
                (true, behind.trim_start())
            }
            _ => (false, rest),
        };
        let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = first.parse::<u32>().ok();
        let stream = number.unwrap_or(1);
        let step = match kind {
            "HEADERS" if behind.is_empty() => Step::Headers { stream, end, fields: Vec::new() },
            "DATA" => {
                let text = if number.is_some() && !behind.is_empty() { behind } else { rest };
                let octets = if text == "-" { Vec::new() } else { octets::read(text)? };
                let stream = if text == rest { 1 } else { stream };
                Step::Data { stream, end, octets }
            }
            "RST" => Step::Reset { stream },
            "..." => Step::Moment,
            _ => return Err(format!("no such line: {line}")),
        };
        self.steps.push(step);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

fn put(fields: &mut Vec<Field>, text: &str) -> Result<(), String> {
    let mut plain = |name: &str, value: &str| {
        fields.push(Field::Plain(octets::read(name)?, octets::read(value)?));
        Ok::<_, String>(())
    };
    match text.strip_prefix("* ") {
        None => {
            let (name, value) = text.split_once(' ').unwrap_or((text, ""));
            plain(name, value)
        }
        Some(rest) => {
            let (method, path) = rest.split_once(' ').ok_or("a method without a path")?;
            plain(":method", method)?;
            plain(":path", path)?;
            plain(":authority", "app.test")?;
            fields.insert(fields.len() - 2, Field::Scheme);
            Ok(())
        }
    }
}

impl Frames {
    /// Sends it and reads until every stream of it is over, or the connection.
    pub(crate) fn exchange(&self, way: &Way, patience: Patience) -> Heard {
        let mut h2 = way.connect();
        h2.handshake(&[]);
        let segments = self.steps.split(|step| matches!(step, Step::Moment));
        for (nth, segment) in segments.enumerate() {
            if nth > 0 {
                pause(MOMENT);
            }
            let frames = segment.iter().flat_map(|step| step.frames(h2.scheme()));
            h2.send_all(&frames.collect::<Vec<Frame>>());
        }
        let streams = self.streams();
        let ended = wait(&mut h2, &streams, patience.bound(0));
        let statuses = streams.iter().map(|stream| h2.so_far(*stream).status);
        let statuses = statuses.filter(|status| *status > 0).collect();
        Heard { statuses, owed: false, ended, story: h2.story() }
    }

    fn streams(&self) -> Vec<u32> {
        let mut streams: Vec<u32> = self.steps.iter().filter_map(Step::stream).collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }

    /// Everything that is sent, for a message.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n      ")
    }
}

impl Step {
    fn frames(&self, scheme: &str) -> Vec<Frame> {
        match self {
            Step::Headers { stream, end, fields } => headers(*stream, *end, &block(fields, scheme)),
            Step::Data { stream, end, octets } => {
                vec![Frame::data(*stream, octets.clone()).end_if(*end)]
            }
            Step::Reset { stream } => vec![Frame::rst_stream(*stream, Code::CANCEL)],
            Step::Moment => Vec::new(),
        }
    }

    fn stream(&self) -> Option<u32> {
        match self {
            Step::Headers { stream, .. } | Step::Data { stream, .. } => Some(*stream),
            Step::Reset { .. } | Step::Moment => None,
        }
    }
}

/// Whether all of the streams, or the connection, came to an end in time.
fn wait(h2: &mut H2, streams: &[u32], bound: Duration) -> bool {
    let end = Instant::now() + bound;
    loop {
        if h2.ended().is_some() || streams.iter().all(|stream| h2.is_over(*stream)) {
            return true;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let _ = h2.next_within(left);
    }
}

fn block(fields: &[Field], scheme: &str) -> Vec<u8> {
    let literal =
        |name: &[u8], value: &[u8]| [vec![0], hpack::string(name), hpack::string(value)].concat();
    let literals = fields.iter().map(|field| match field {
        Field::Plain(name, value) => literal(name, value),
        Field::Scheme => literal(b":scheme", scheme.as_bytes()),
    });
    literals.flatten().collect()
}

fn headers(stream: u32, end: bool, block: &[u8]) -> Vec<Frame> {
    let mut parts = block.chunks(FRAME_MAX);
    let first = Frame::headers_begun(stream, parts.next().unwrap_or_default()).end_if(end);
    let rest = parts.map(|part| Frame::continuation_begun(stream, part));
    let mut frames: Vec<Frame> = std::iter::once(first).chain(rest).collect();
    if let Some(last) = frames.last_mut() {
        last.flags |= flag::END_HEADERS;
    }
    frames
}
