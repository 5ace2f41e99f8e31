//! HTTP/1 as the case files write it, and how it is put to a subject.
//!
//! | line | meaning |
//! | --- | --- |
//! | `> OCTETS` | sent; the line's own end is not, see [`crate::octets`] |
//! | `...` | what follows is a segment of its own, a moment later |
//! | `fin` | the client ends its side |

use std::time::Duration;

use crate::corpus::Script;
use crate::judge::Heard;
use crate::octets;
use crate::run::Patience;
use crate::support::client::{Client, End};
use crate::support::wire::{Place, find};
use crate::support::{ms, pause};

/// The client's silence at `...`: longer than any subject needs to read on.
const MOMENT: Duration = ms(15);

/// What is sent.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    segments: Vec<Vec<u8>>,
    fin: bool,
}

impl Script for Raw {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line == "..." {
            self.segments.push(Vec::new());
        } else if line == "fin" {
            self.fin = true;
        } else if let Some(text) = line.strip_prefix("> ") {
            if self.fin {
                return Err("octets behind the end".to_owned());
            }
            if self.segments.is_empty() {
                self.segments.push(Vec::new());
            }
            let read = octets::read(text)?;
            if let Some(last) = self.segments.last_mut() {
                last.extend(read);
            }
        } else {
            return Err(format!("no such line: {line}"));
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.segments.concat().is_empty()
    }
}

impl Raw {
    /// Sends it, the request at `fence` behind it, and reads to the end of the
    /// connection. What has no end gets no fence, and silence is an answer to it.
    pub(crate) fn exchange(&self, place: &Place, fence: &str, patience: Patience) -> Heard {
        let mut client = Client::connect(place);
        let mut segments = self.segments.clone();
        if !patience.unfinished && !self.fin {
            let fence =
                format!("GET {fence} HTTP/1.1\r\nHost: fence.test\r\nConnection: close\r\n\r\n");
            segments.last_mut().expect("something to send").extend(fence.bytes());
        }
        for (nth, segment) in segments.iter().enumerate() {
            if nth > 0 {
                pause(MOMENT);
            }
            if client.try_send(segment).is_err() {
                break;
            }
        }
        if self.fin && client.ended().is_none() {
            client.half_close();
        }
        let ended = hear(&mut client, patience);
        let owed = !patience.unfinished && !self.fin;
        Heard { statuses: statuses(&client.wire.ahead), owed, ended, story: String::new() }
    }

    /// Everything that is sent, for a message.
    pub(crate) fn octets(&self) -> Vec<u8> {
        self.segments.concat()
    }
}

/// Reads to the end of the connection, or until nothing more is due; whether it ended.
fn hear(client: &mut Client, patience: Patience) -> bool {
    loop {
        let answers = statuses(&client.wire.ahead).len();
        client.read_bound(patience.bound(answers));
        match client.wire.fill() {
            Ok(()) => {}
            Err(end) => return end != End::TimedOut,
        }
    }
}

/// The final statuses of what a server says. Their bodies are error pages and the
/// origin's `ok`: in none of them stands what begins a response.
fn statuses(octets: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    let mut rest = octets;
    while let Some(at) = find(rest, b"HTTP/1.") {
        rest = &rest[at + 7..];
        let status = rest.get(2..5).and_then(|text| std::str::from_utf8(text).ok());
        statuses.extend(status.and_then(|text| text.parse::<u16>().ok()).filter(|s| *s >= 200));
    }
    statuses
}
