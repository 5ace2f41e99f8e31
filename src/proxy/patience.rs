//! How long an exchange waits, and for what.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{Failure, Proxy, Request};
use crate::limits::HALF_CLOSE_GRACE;
use crate::net::Alarm;

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Nothing,
    ClientBody,
    UpstreamTakes,
    FirstByte,
    BetweenBytes,
    /// More of a response that may pause for as long as it likes.
    Endless,
    /// More of the response, or more of the request.
    EitherSide,
    /// The app taking what is left of a request it has answered.
    Leftover,
    ClientTakes,
    /// The response, for a client that has ended its side.
    HalfClosed,
}

/// One alarm for all the waits of an exchange, one after the other.
pub(super) struct Patience<'a> {
    pub(super) alarm: Rc<Alarm>,
    proxy: &'a Proxy,
    wait: Wait,
    /// Octets that moved in any direction.
    pub(super) moved: u64,
    /// The same when the alarm was set.
    seen: u64,
    /// When a drain wants something, whatever is being waited for.
    by: u64,
    /// Both sides may be silent as long as they like.
    calm: bool,
    /// When all of it has to be over, by the clock.
    limit: u64,
}

impl<'a> Patience<'a> {
    pub(super) fn new(alarm: &Rc<Alarm>, proxy: &'a Proxy, request: &Request) -> Self {
        let limit =
            request.grpc.as_deref().and_then(|call| request.began.checked_add(call.timeout?));
        Patience {
            alarm: Rc::clone(alarm),
            proxy,
            wait: Wait::Nothing,
            moved: 0,
            seen: 0,
            by: u64::MAX,
            calm: request.grpc.is_some(),
            limit: limit.map_or(u64::MAX, |limit| alarm.clock().millis(limit)),
        }
    }

    /// How much there is left of a wait that is bounded elsewhere.
    pub(super) fn within(&self, bound: Duration) -> Duration {
        let left = self.limit.saturating_sub(self.alarm.clock().now());
        bound.min(Duration::from_millis(left))
    }

    /// Whether all of it has taken too long.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.limit <= self.alarm.clock().now()
    }

    /// The next wait is a new one, whatever it is.
    pub(super) fn renew(&mut self) {
        self.wait = Wait::Nothing;
        self.alarm.set_at(self.by.min(self.limit));
    }

    /// Rings at this time of the clock as well, and no longer at the one before.
    #[inline]
    pub(super) fn watch(&mut self, by: u64) {
        if self.by != by {
            self.by = by;
            self.renew();
        }
    }

    /// Waits; the alarm is set anew when something has moved or the wait is another.
    #[inline]
    pub(super) fn pend<T>(&mut self, wait: Wait) -> Poll<Result<T, Failure>> {
        if self.wait != wait || self.moved != self.seen {
            self.wait = wait;
            self.seen = self.moved;
            self.alarm.set(self.bound(wait));
            self.alarm.set_by(self.by.min(self.limit));
            return Poll::Pending;
        }
        if !self.alarm.is_due() {
            return Poll::Pending;
        }
        if self.is_over() {
            return Poll::Ready(Err(Failure::CallTimeout));
        }
        Poll::Ready(Err(match wait {
            Wait::ClientBody => Failure::BodyTimeout,
            Wait::FirstByte => Failure::FirstByteTimeout,
            Wait::UpstreamTakes | Wait::BetweenBytes | Wait::EitherSide => {
                Failure::BetweenBytesTimeout
            }
            Wait::ClientTakes => Failure::SendTimeout,
            Wait::Nothing | Wait::Endless | Wait::HalfClosed | Wait::Leftover => {
                Failure::ClientGone
            }
        }))
    }

    fn bound(&self, wait: Wait) -> Duration {
        let config = &self.proxy.config;
        match wait {
            Wait::ClientBody | Wait::UpstreamTakes | Wait::BetweenBytes | Wait::EitherSide
                if self.calm =>
            {
                Duration::MAX
            }
            Wait::ClientBody => config.timeouts.body,
            Wait::FirstByte => config.upstream.first_byte_timeout,
            Wait::UpstreamTakes | Wait::BetweenBytes => config.upstream.between_bytes_timeout,
            Wait::EitherSide => config.upstream.between_bytes_timeout.min(config.timeouts.body),
            Wait::Leftover => self.proxy.plan().linger,
            Wait::ClientTakes => config.timeouts.send,
            Wait::HalfClosed => HALF_CLOSE_GRACE,
            Wait::Nothing | Wait::Endless => Duration::MAX,
        }
    }
}
