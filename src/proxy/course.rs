//! What a drain asks of one exchange, as its route and its response have it.
//!
//! | | its response | ended |
//! | --- | --- | --- |
//! | nothing is said | ordinary | by the hard deadline |
//! | nothing is said | endless, with places to end | at one, from `stream_close_after` on, in its turn |
//! | nothing is said | endless, without | by the hard deadline |
//! | nothing is said, or `finish` | a gRPC call's | between two messages, [`CALL_LAST`] before the hard deadline, and named as cut |
//! | `finish` | any other | by the hard deadline |
//! | `close-after` | with places to end | at one, from then on, in its turn |
//! | `close-after` | any other | then, as by the hard deadline |
//! | `cancel` | any | at once, as by the hard deadline |

use std::time::Duration;

use super::flow::Flow;
use super::inbound::Inbound;
use super::{Proxy, Request, Telling};
use crate::config::{Route, RouteDrain};
use crate::drain::Stage;
use crate::http1::field::tokens;
use crate::limits::CALL_LAST;
use crate::telemetry::Family;

const NEVER: u64 = u64::MAX;

/// When a drain ends it before the hard deadline, and how.
enum End<'p> {
    /// Not at all.
    Never,
    /// As soon as it may end, in its turn.
    Told(Telling<'p>),
    /// As soon as it may end, a while before the hard deadline.
    Last,
    /// Wherever it is, so long after draining began.
    Limit(Duration),
}

/// The course of one exchange.
pub(super) struct Course<'p> {
    proxy: &'p Proxy,
    route: Option<&'p Route>,
    end: End<'p>,
    /// It was told for the sake of the hard deadline, and not because it is endless.
    short: bool,
    /// Its response is endless, and counted under this.
    endless: Option<Family>,
}

impl<'p> Course<'p> {
    /// That of a request of which no response has come.
    #[inline]
    pub(super) fn new(proxy: &'p Proxy, request: &Request) -> Self {
        let route = proxy.config.routes.of(request.target());
        let end = match route.and_then(|route| route.on_drain) {
            Some(RouteDrain::CloseAfter(time)) => End::Limit(time),
            Some(RouteDrain::Cancel) => End::Limit(Duration::ZERO),
            Some(RouteDrain::Finish) | None => End::Never,
        };
        Course { proxy, route, end, short: false, endless: None }
    }

    /// The final head has come: how its body is to be followed, if it is.
    #[inline]
    pub(super) fn begin(&mut self, request: &Request, inbound: &Inbound) -> Option<Flow> {
        let concerned = inbound.is_events || inbound.is_grpc || self.route.is_some();
        if concerned { self.settle(request, inbound) } else { None }
    }

    #[cold]
    fn settle(&mut self, request: &Request, inbound: &Inbound) -> Option<Flow> {
        if inbound.is_done() {
            return None;
        }
        let is_call = request.grpc.is_some() && inbound.is_grpc;
        let (by_route, on_drain) =
            self.route.map_or((false, None), |route| (route.endless, route.on_drain));
        let asked = request.method() == b"GET" && names_events(&request.head);
        let is_endless = by_route || (inbound.is_events && inbound.status == Some(200) && asked);
        if is_endless {
            let family = request.protocol.family();
            self.proxy.counters.endless_add(family);
            self.endless = Some(family);
        }
        // A call's messages can be told apart, whatever is in them.
        let followed = is_call || (!inbound.is_coded && (inbound.is_events || by_route));
        let has_places = followed && inbound.border().is_some();
        let config = &self.proxy.config;
        let after = match on_drain {
            _ if !has_places => return None,
            Some(RouteDrain::CloseAfter(time)) => Some(time),
            Some(RouteDrain::Cancel) => return None,
            None if is_endless => None,
            Some(RouteDrain::Finish) | None if is_call => {
                self.end = End::Last;
                return Some(Flow::messages());
            }
            Some(RouteDrain::Finish) | None => return None,
        };
        self.end = End::Told(self.proxy.tellings.enter(self.proxy, after));
        if is_call {
            return Some(Flow::messages());
        }
        let retry = config.event_stream.retry;
        Some(if inbound.is_events { Flow::events(retry) } else { Flow::chunks() })
    }

    /// Whether it is a call that may be silent before its head, too: servers send that
    /// together with their first message.
    pub(super) fn is_endless_call(&self, request: &Request) -> bool {
        request.grpc.is_some() && self.route.is_some_and(|route| route.endless)
    }

    /// Whether the gaps between the octets of its response mean nothing.
    pub(super) fn is_endless(&self) -> bool {
        self.endless.is_some()
    }

    /// When it is to be looked at for the sake of the drain.
    #[inline]
    pub(super) fn due(&self) -> u64 {
        match &self.end {
            End::Never => NEVER,
            End::Told(telling) => telling.due(),
            End::Last | End::Limit(_) if self.proxy.stage() < Stage::Draining => NEVER,
            End::Last | End::Limit(_) => self.end_in_a_drain(),
        }
    }

    #[cold]
    fn end_in_a_drain(&self) -> u64 {
        let orders = self.proxy.orders.get();
        let end = match self.end {
            End::Limit(limit) => orders.since.checked_add(limit),
            _ => orders.deadline.instant().and_then(|hard| hard.checked_sub(CALL_LAST)),
        };
        end.map_or(NEVER, |end| self.proxy.clock.millis(end))
    }

    /// Its time has come, and comes no more: whether it may end where it can.
    pub(super) fn meet(&mut self) -> bool {
        let end = std::mem::replace(&mut self.end, End::Never);
        self.short = matches!(end, End::Last);
        matches!(end, End::Told(_) | End::Last)
    }

    /// Whether it was cut short, although it could be told.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        if let Some(family) = self.endless {
            self.proxy.counters.endless_sub(family);
        }
    }
}

/// Whether an `Accept` names event streams, as that of an EventSource does. A wildcard
/// is no name.
fn names_events(head: &[u8]) -> bool {
    let lines = head.split(|octet| *octet == b'\n');
    let values = lines.filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(b"accept").then(|| &line[colon + 1..])
    });
    values.flat_map(tokens).any(is_event_stream)
}

/// Whether a media type is that of event streams, whatever its parameters.
#[inline]
pub(super) fn is_event_stream(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    // Each response is asked: most are shorter, or differ soon.
    let Some((start, rest)) = value.trim_ascii_start().split_at_checked(TYPE.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b';' | b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_names_event_streams_asks_for_one() {
        for (fields, asks) in [
            ("Accept: text/event-stream", true),
            ("accept: text/html, TEXT/Event-Stream;q=0.9", true),
            ("Accept: */*", false),
            ("Accept: text/*", false),
            ("Accept: text/event-streams", false),
            ("Accept: text/event-stream ;q=1", true),
            ("X-Accept: text/event-stream", false),
            ("Accept-Encoding: text/event-stream", false),
            ("X: Accept: text/event-stream", false),
            ("Accept: text/html\r\nAccept: text/event-stream", true),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            assert_eq!(names_events(head.as_bytes()), asks, "{fields}");
        }
    }
}
