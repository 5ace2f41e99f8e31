//! What goes to a successor of a request that has become a tunnel.

use std::ops::Range;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::{Protocol, Request, Spans, Upgrade};
use crate::handoff::MovedRequest;
use crate::http1::Framing;

/// The most octets of each text, in the order of [`MovedRequest::texts`]. A longer one is
/// cut, for the log and for whoever looks its route up.
const TEXTS_MAX: [usize; 7] = [32, 4096, 256, 128, 64, 512, 1024];

impl Request {
    /// What is told of it, and its texts one behind the other.
    pub(in crate::proxy) fn depart(
        &self,
        first_byte: Option<Instant>,
        attempts: u8,
    ) -> (MovedRequest, Vec<u8>) {
        let mut octets = Vec::new();
        let all = [
            Some(self.method()),
            Some(self.target()),
            Some(self.host()),
            Some(self.id()),
            self.client(),
            self.user_agent(),
            self.referer(),
        ];
        let mut texts = [None; 7];
        for ((text, most), place) in all.into_iter().zip(TEXTS_MAX).zip(&mut texts) {
            let Some(text) = text else { continue };
            let text = &text[..text.len().min(most)];
            octets.extend_from_slice(text);
            *place = u32::try_from(text.len()).ok();
        }
        let token = self.upgrade.as_deref().map(Upgrade::token).unwrap_or_default();
        let wall = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let moved = MovedRequest {
            token: String::from_utf8_lossy(token).into_owned(),
            texts,
            began: millis(self.began.elapsed()),
            wall: millis(wall),
            first_byte: first_byte.map(|at| millis(at.elapsed())),
            attempts,
        };
        (moved, octets)
    }

    /// A request as an elder has told of it; none if its texts are not all there.
    pub(in crate::proxy) fn arrive(
        moved: &MovedRequest,
        is_websocket: bool,
        octets: &[u8],
    ) -> Option<Self> {
        let mut end = 0_usize;
        let mut ranges: [Option<Range<usize>>; 7] = Default::default();
        for (length, range) in moved.texts.iter().zip(&mut ranges) {
            let Some(length) = *length else { continue };
            let start = end;
            end = start.checked_add(usize::try_from(length).ok()?)?;
            *range = Some(start..end);
        }
        if end > octets.len() {
            return None;
        }
        let [method, target, host, id, client, user_agent, referer] = ranges;
        Some(Request {
            head: octets.to_vec(),
            framing: Framing::Empty,
            protocol: Protocol::Http11,
            persistent: true,
            said_close: false,
            is_head: false,
            expects_continue: false,
            is_repeatable: false,
            grpc: None,
            upgrade: Some(Box::new(Upgrade::arrive(&moved.token, is_websocket))),
            hides_fields: false,
            ends_here: false,
            began: ago(moved.began),
            wall: UNIX_EPOCH + Duration::from_millis(moved.wall.min(u64::from(u32::MAX) * 1000)),
            spans: Spans {
                method: method?,
                target: target?,
                host: host?,
                id: id?,
                client,
                user_agent,
                referer,
            },
        })
    }
}

/// So many milliseconds before now.
pub(in crate::proxy) fn ago(age: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(age)).unwrap_or(now)
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn moved(texts: [Option<u32>; 7]) -> MovedRequest {
        let token = "websocket".to_owned();
        let wall = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        MovedRequest { token, texts, began: 3000, wall, first_byte: Some(2000), attempts: 2 }
    }

    #[test]
    fn a_request_is_told_again_as_it_was_told() {
        let texts = [Some(3), Some(4), Some(1), Some(2), None, Some(5), None];
        let octets = b"GET/a?bhidagent";
        let request = Request::arrive(&moved(texts), true, octets).unwrap();
        assert_eq!((request.method(), request.target()), (&b"GET"[..], &b"/a?b"[..]));
        assert_eq!((request.client(), request.user_agent()), (None, Some(&b"agent"[..])));
        let (again, same) = request.depart(Some(ago(2000)), 2);
        assert_eq!(same, octets);
        assert_eq!((again.texts, again.attempts, &*again.token), (texts, 2, "websocket"));
        assert!(again.began >= 3000 && again.first_byte.unwrap() >= 2000);
    }

    #[test]
    fn texts_that_are_not_there_are_no_request() {
        let lengths = [[Some(9); 7], [Some(u32::MAX); 7], [None; 7]];
        assert!(lengths.into_iter().all(|it| Request::arrive(&moved(it), true, b"GET").is_none()));
    }

    #[test]
    fn what_is_too_long_for_a_message_is_cut() {
        let long = vec![b'/'; 9000];
        let texts = [Some(0), Some(9000), Some(0), Some(0), None, None, None];
        let request = Request::arrive(&moved(texts), false, &long).unwrap();
        let (moved, octets) = request.depart(None, 1);
        assert_eq!((octets.len(), moved.texts[1]), (4096, Some(4096)));
    }
}
