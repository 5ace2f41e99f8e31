//! The client's side of a case, over either protocol.

use std::collections::VecDeque;
use std::time::Duration;

use super::check::Fields;
use super::heard::Heard;
use crate::subject::Way;
use crate::support::client::Client;
use crate::support::h2::H2;
use crate::support::wire::{End, Head, find};

/// A connection, and what is still to be read on it.
pub(crate) enum Downstream {
    /// HTTP/1, and whether the requests that are not answered yet are HEAD.
    H1(Client, VecDeque<bool>),
    /// HTTP/2, the streams that are not answered yet and whether they are HEAD, and how long an answer may take.
    H2(Box<H2>, VecDeque<(u32, bool)>, Duration),
}

impl Downstream {
    /// Over a connection of HTTP/1.
    pub(crate) fn h1(client: Client) -> Downstream {
        Downstream::H1(client, VecDeque::new())
    }

    /// Over a new connection of HTTP/2.
    pub(crate) fn h2(way: &Way, bound: Duration) -> Downstream {
        let mut h2 = way.connect();
        h2.handshake(&[]);
        Downstream::H2(Box::new(h2), VecDeque::new(), bound)
    }

    /// Sends a request as it stands, or as a stream.
    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        match self {
            Downstream::H1(client, waiting) => {
                waiting.push_back(octets.starts_with(b"HEAD "));
                client.try_send(octets).map_err(|end| format!("took no more: {end:?}"))
            }
            Downstream::H2(h2, waiting, _) => {
                let end =
                    find(octets, b"\r\n\r\n").ok_or("a request without an end of its head")?;
                let (head, body) = octets.split_at(end + 4);
                let (fields, trailers) = stream_fields(h2, &Head::parse(head));
                let stream = h2.headers(&fields, body.is_empty() && trailers.is_empty());
                if !body.is_empty() {
                    h2.data(stream, body, trailers.is_empty());
                }
                if !trailers.is_empty() {
                    h2.send_fields(stream, &trailers, true);
                }
                waiting.push_back((stream, octets.starts_with(b"HEAD ")));
                Ok(())
            }
        }
    }

    /// Reads the next response.
    pub(crate) fn read(&mut self) -> Heard {
        match self {
            Downstream::H1(client, waiting) => {
                Heard::h1(client, waiting.pop_front().unwrap_or_default())
            }
            Downstream::H2(h2, waiting, bound) => match waiting.pop_front() {
                Some((stream, to_head)) => Heard::h2(h2, stream, to_head, *bound),
                None => Heard::default(),
            },
        }
    }

    /// Ends the client's side.
    pub(crate) fn half_close(&mut self) {
        match self {
            Downstream::H1(client, _) => client.half_close(),
            Downstream::H2(h2, ..) => h2.half_close(),
        }
    }

    /// Nothing comes any more but the end of the connection.
    pub(crate) fn closes(&mut self) -> Result<(), String> {
        let Downstream::H1(client, _) = self else { return Ok(()) };
        match client.rest() {
            (End::Eof, octets) if octets.is_empty() => Ok(()),
            (end, octets) => Err(format!("{end:?} behind {} octets", octets.len())),
        }
    }
}

/// The fields of a stream, and its trailers: those that the head writes as `Behind-NAME`.
fn stream_fields(h2: &H2, head: &Head) -> (Fields, Fields) {
    let mut words = head.start.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut fields = h2.pseudo(method, path);
    let mut trailers = Vec::new();
    for (name, value) in &head.fields {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("behind-") {
            Some(name) => trailers.push((name.to_owned(), value.clone())),
            None if name == "host" => {
                fields.retain(|(name, _)| name != ":authority");
                fields.push((":authority".to_owned(), value.clone()));
            }
            None => fields.push((name, value.clone())),
        }
    }
    fields.sort_by_key(|(name, _)| !name.starts_with(':'));
    (fields, trailers)
}
