//! A response as the client heard it, whole or not, over either protocol.

use std::time::{Duration, Instant};

use super::check::Fields;
use crate::octets::show;
use crate::support::client::{Client, Framing};
use crate::support::h2::{self, H2};
use crate::support::wire::{End, Head};

/// How far a response came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To its end.
    Whole,
    /// Its head came, and visibly not all of its body; or its stream was reset.
    Cut,
    /// Something came, but no head.
    Torn,
    /// Nothing came, and the connection ended.
    #[default]
    Nothing,
    /// Something is still missing, and the connection did not end.
    Stuck,
}

/// A response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// The status; 0 if there is no final head.
    pub(crate) status: u16,
    /// The status line; empty over HTTP/2.
    pub(crate) start: String,
    /// The head; empty over HTTP/2.
    pub(crate) raw: Vec<u8>,
    /// The fields.
    pub(crate) fields: Fields,
    /// The body, or what came of it.
    pub(crate) body: Vec<u8>,
    /// The trailers.
    pub(crate) trailers: Fields,
    /// The interim responses before.
    pub(crate) interims: Vec<(u16, Fields)>,
    /// How an HTTP/1 client knows the end of the body.
    pub(crate) framing: Option<String>,
    /// How far it came.
    pub(crate) extent: Extent,
}

/// An honest or dishonest way for a response to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole response with this status.
    Whole(u16),
    /// A response with a status that begins so: `5xx`.
    Class(u16),
    /// A response that looks cut.
    Cut,
    /// The connection, or the stream, ended without any response.
    Nothing,
}

impl Outcome {
    /// Reads `502`, `5xx`, `cut` or `nothing`.
    pub(crate) fn parse(word: &str) -> Result<Outcome, String> {
        let bad = || format!("no outcome: {word}");
        Ok(match word.trim() {
            "cut" => Outcome::Cut,
            "nothing" => Outcome::Nothing,
            class if class.ends_with("xx") => {
                Outcome::Class(class[..1].parse().map_err(|_| bad())?)
            }
            status => Outcome::Whole(status.parse().map_err(|_| bad())?),
        })
    }

    /// Whether the response ended so.
    pub(crate) fn fits(self, heard: &Heard) -> bool {
        let whole = heard.extent == Extent::Whole;
        match self {
            Outcome::Whole(status) => whole && heard.status == status,
            Outcome::Class(class) => whole && heard.status / 100 == class,
            Outcome::Cut => heard.extent == Extent::Cut,
            Outcome::Nothing => heard.extent == Extent::Nothing,
        }
    }
}

impl Heard {
    /// Reads a response of HTTP/1.
    pub(crate) fn h1(client: &mut Client, to_head: bool) -> Heard {
        if to_head {
            return Heard::h1_to_head(client);
        }
        match client.try_response() {
            Ok(response) => {
                let framing = match response.framing {
                    Framing::None => "none",
                    Framing::Length => "length",
                    Framing::Chunked => "chunked",
                    Framing::Close => "close",
                };
                Heard {
                    body: response.body,
                    trailers: response.trailers,
                    interims: response.interim.iter().map(interim).collect(),
                    framing: Some(framing.to_owned()),
                    extent: Extent::Whole,
                    ..Heard::head(&response.head)
                }
            }
            Err(broken) => {
                let extent = match (broken.end, &broken.head) {
                    (End::TimedOut, _) => Extent::Stuck,
                    (_, Some(_)) => Extent::Cut,
                    _ if broken.got.is_empty() => Extent::Nothing,
                    _ => Extent::Torn,
                };
                let head = broken.head.as_ref().map(Heard::head).unwrap_or_default();
                Heard { body: broken.got, extent, ..head }
            }
        }
    }

    fn h1_to_head(client: &mut Client) -> Heard {
        let mut interims = Vec::new();
        loop {
            let head = match client.wire.head() {
                Ok(head) => head,
                Err(End::TimedOut) => return Heard { extent: Extent::Stuck, ..Heard::default() },
                Err(_) => return Heard::default(),
            };
            let heard = Heard::head(&head);
            if heard.status >= 200 {
                let framing = Some("none".to_owned());
                return Heard { interims, framing, extent: Extent::Whole, ..heard };
            }
            interims.push(interim(&head));
        }
    }

    fn head(head: &Head) -> Heard {
        Heard {
            status: status(head),
            start: head.start.clone(),
            raw: head.raw.clone(),
            fields: head.fields.clone(),
            ..Heard::default()
        }
    }

    /// Reads a response of HTTP/2.
    pub(crate) fn h2(h2: &mut H2, stream: u32, to_head: bool, bound: Duration) -> Heard {
        let deadline = Instant::now() + bound;
        let mut ended = None;
        while ended.is_none() && !h2.is_over(stream) {
            let left = deadline.saturating_duration_since(Instant::now());
            ended = if left.is_zero() { Some(End::TimedOut) } else { h2.next_within(left).err() };
        }
        let response: h2::Response = h2.so_far(stream);
        // A client has to take less than the length for a broken stream (RFC 9113, section 8.1.1).
        let length = response.headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse::<usize>().ok());
        let framed = !to_head && ![204, 304].contains(&response.status);
        let short = framed && length.is_some_and(|length| length > response.body.len());
        let extent = match (response.whole, response.status, ended) {
            (true, ..) if short => Extent::Cut,
            (true, ..) => Extent::Whole,
            _ if response.reset.is_some() => Extent::Cut,
            (_, _, Some(End::TimedOut)) => Extent::Stuck,
            (_, 0, _) => Extent::Nothing,
            _ => Extent::Cut,
        };
        Heard {
            status: response.status,
            fields: response.headers,
            body: response.body,
            trailers: response.trailers,
            interims: response.interims,
            extent,
            ..Heard::default()
        }
    }

    /// Whether the connection of HTTP/1 is not to be used again.
    pub(crate) fn says_close(&self) -> bool {
        let connection = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("connection"));
        let mut tokens = connection.flat_map(|(_, value)| value.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case("close"))
    }

    /// What came, for a message.
    pub(crate) fn told(&self) -> String {
        let Heard { extent, status, body, .. } = self;
        format!("{extent:?}, status {status}, {} octets: {}", body.len(), show(body))
    }
}

fn status(head: &Head) -> u16 {
    let status = head.start.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.unwrap_or_default()
}

fn interim(head: &Head) -> (u16, Fields) {
    (status(head), head.fields.clone())
}
