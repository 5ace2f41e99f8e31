//! The body of an endless response, followed as it passes: where it may end, and when it
//! does.
//!
//! | the body | ends |
//! | --- | --- |
//! | an event stream | behind a whole event |
//! | gRPC messages | behind a whole message |
//! | another one in chunks | behind a whole chunk: the app server's own piece |
//! | another one up to the end of its connection | behind what has come |
//!
//! Whoever wants the end asks for it once. What the app server had sent by then still
//! goes out: the body ends when nothing more is there to be read. A body that is not at
//! such a place then, or never pauses, ends at the next one.

use std::time::Duration;

use crate::limits::STREAM_REST;
use crate::stream::events::Events;
use crate::stream::grpc::Messages;

/// One endless body.
pub(super) struct Flow {
    format: Format,
    wish: Wish,
}

enum Format {
    Events { events: Events, retry: Option<Duration> },
    Messages(Messages),
    Chunks,
}

/// How far a wish for the end has come.
#[derive(Clone, Copy)]
enum Wish {
    None,
    /// What is there still passes, but no more than so many octets.
    Asked(usize),
    /// It ends at the next place.
    Next,
}

impl Flow {
    /// A followed event stream. With `retry` its last line tells clients how long to
    /// wait at least.
    pub(super) fn events(retry: Option<Duration>) -> Self {
        Flow { format: Format::Events { events: Events::default(), retry }, wish: Wish::None }
    }

    /// The messages of a gRPC call.
    pub(super) fn messages() -> Self {
        Flow { format: Format::Messages(Messages::default()), wish: Wish::None }
    }

    /// A body of which only the pieces it comes in are known.
    pub(super) fn chunks() -> Self {
        Flow { format: Format::Chunks, wish: Wish::None }
    }

    /// Asks for its end.
    pub(super) fn ask(&mut self) {
        self.wish = Wish::Asked(STREAM_REST);
    }

    /// Whether its end has been asked for.
    pub(super) fn is_asked(&self) -> bool {
        !matches!(self.wish, Wish::None)
    }

    /// How much of `len` octets may be decoded at once. `border` is how many are left of
    /// the chunk that is under way.
    pub(super) fn window(&self, len: usize, border: Option<u64>) -> usize {
        match (&self.format, self.wish, border) {
            (Format::Chunks, Wish::Next, Some(left)) => {
                usize::try_from(left).unwrap_or(usize::MAX).min(len)
            }
            _ => len,
        }
    }

    /// Follows data that passes; how much of it passes if the body ends here.
    /// `at_border` is whether no chunk is under way behind it.
    pub(super) fn pass(&mut self, data: &[u8], at_border: bool) -> Option<usize> {
        let end = match (&mut self.format, self.wish) {
            (Format::Events { events, .. }, Wish::Next) => events.pass_to_last_boundary(data),
            (Format::Events { events, .. }, _) => {
                events.pass(data);
                None
            }
            (Format::Messages(messages), Wish::Next) => messages.pass_to_boundary(data),
            (Format::Messages(messages), _) => {
                messages.pass(data);
                None
            }
            (Format::Chunks, Wish::Next) => at_border.then_some(data.len()),
            (Format::Chunks, _) => None,
        };
        if let Wish::Asked(left) = self.wish {
            let left = left.saturating_sub(data.len());
            self.wish = if left == 0 { Wish::Next } else { Wish::Asked(left) };
        }
        end
    }

    /// Nothing more is there to be read: whether the body may end here. If not, and it is
    /// asked to, it does at the next place.
    pub(super) fn rest(&mut self, at_border: bool) -> bool {
        if !self.is_asked() {
            return false;
        }
        self.wish = Wish::Next;
        match &self.format {
            Format::Events { events, .. } => events.is_at_boundary(),
            Format::Messages(messages) => messages.is_at_boundary(),
            Format::Chunks => at_border,
        }
    }

    /// Whether an event is under way, which is lost if the body ends here.
    pub(super) fn is_inside(&self) -> bool {
        matches!(&self.format, Format::Events { events, .. } if !events.is_at_boundary())
    }

    /// Whether it is a gRPC call, which needs a status behind its messages.
    pub(super) fn is_call(&self) -> bool {
        matches!(self.format, Format::Messages(_))
    }

    /// What is said at the end: how long clients should wait before they come back, each
    /// another time, so that they do not all come at once.
    pub(super) fn farewell(&self) -> Option<String> {
        let Format::Events { retry: Some(retry), .. } = self.format else { return None };
        let least = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
        let mut random = [0; 8];
        // Without chance they all wait as long as they are told at least.
        let _without = aws_lc_rs::rand::fill(&mut random);
        let more = u64::from_ne_bytes(random) % least.max(1);
        Some(format!("retry: {}\n\n", least.saturating_add(more)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_when_the_end_was_asked_for_still_passes() {
        let mut flow = Flow::events(None);
        assert_eq!(flow.pass(b"data: a\n\ndata: b\n\n", false), None);
        assert!(!flow.rest(false), "nobody has asked");
        flow.ask();
        assert_eq!(flow.pass(b"data: c\n\ndata: d\n\n", false), None);
        assert!(flow.rest(false));
    }

    #[test]
    fn inside_an_event_the_end_waits_for_its_last_octet_and_what_is_behind_is_left_out() {
        let mut flow = Flow::events(None);
        flow.ask();
        assert_eq!(flow.pass(b"data: a\n\ndata: b", false), None);
        assert!(!flow.rest(false));
        assert_eq!(flow.pass(b"b\n", false), None);
        assert_eq!(flow.pass(b"\ndata: c\n\ndata: d", false), Some(10));
    }

    #[test]
    fn a_stream_that_never_pauses_ends_all_the_same() {
        let mut flow = Flow::events(None);
        flow.ask();
        let piece = b"data: 0123456789\n\n".repeat(1000);
        let rounds = (0..100).take_while(|_| flow.pass(&piece, false).is_none()).count();
        assert_eq!(rounds, STREAM_REST.div_ceil(piece.len()));
    }

    #[test]
    fn another_body_ends_where_no_chunk_is_under_way() {
        let mut flow = Flow::chunks();
        assert_eq!(flow.window(9, Some(0)), 9);
        assert_eq!(flow.pass(b"abc", true), None);
        flow.ask();
        assert!(!flow.rest(false));
        assert_eq!((flow.window(9, Some(4)), flow.window(3, Some(4))), (4, 3));
        assert_eq!(flow.pass(b"de", false), None);
        assert_eq!(flow.pass(b"f", true), Some(1));
    }

    #[test]
    fn clients_are_told_different_times_within_bounds() {
        let flow = Flow::events(Some(Duration::from_millis(1000)));
        let told: std::collections::BTreeSet<u64> = (0..50)
            .map(|_| {
                let line = flow.farewell().unwrap();
                line.strip_prefix("retry: ").unwrap().strip_suffix("\n\n").unwrap().parse().unwrap()
            })
            .collect();
        assert!(told.len() > 10 && told.iter().all(|time| (1000..2000).contains(time)), "{told:?}");
        assert_eq!(Flow::chunks().farewell(), None);
    }
}
