//! What becomes of an exchange whose app server gave no answer: whether it may begin again,
//! and how.
//!
//! | what happened | is sent again |
//! | --- | --- |
//! | no connection | to the next endpoint, whatever its method |
//! | nothing was written | on a fresh connection, whatever its method |
//! | the app server refused the stream, or went away before it | to the next endpoint, whatever its method, with what was sent of its body as far as that was kept |
//! | a connection that had served before died without an answer | once, on a fresh one, if it is idempotent and has no body |
//! | anything else | never: it may have been executed |

use std::task::Context;

use super::Exchange;
use crate::config::Retry;
use crate::limits::REFUSED_ATTEMPTS;
use crate::net::ConnectError;
use crate::proxy::Failure;
use crate::proxy::downstream::Downstream;
use crate::proxy::failure::Died;
use crate::proxy::outbound::poll_write_all;
use crate::upstream::Fault;

/// Part of a body that is sent once more, behind the head.
#[derive(Debug)]
pub(super) struct Again {
    body: Vec<u8>,
    sent: usize,
}

impl<D: Downstream> Exchange<'_, D> {
    /// The upstream connection ended before the final head.
    pub(super) fn died(&self) -> Failure {
        match self.upstream.as_ref().and_then(|upstream| upstream.socket.fault()) {
            Some(Fault::Refused) => Failure::Refused,
            Some(Fault::Reset(reason)) => Failure::Reset(reason),
            Some(Fault::Malformed) => Failure::BadResponse("malformed HTTP/2 response"),
            Some(Fault::Unfit(what)) => Failure::BadRequest(what),
            Some(Fault::Lost) | None => Failure::Died(Died {
                written: self.side.upload().written > 0,
                reused: self.upstream.as_ref().is_some_and(|upstream| upstream.reused),
                answered: self.first_byte.is_some(),
            }),
        }
    }

    /// Sends what was sent to another app server, which refused it; `false` while that
    /// is not done.
    pub(super) fn poll_again(&mut self, cx: &mut Context<'_>) -> bool {
        let (Some(again), Some(upstream)) = (&mut self.again, &mut self.upstream) else {
            return true;
        };
        let (Again { body, sent }, moved) = (&mut **again, &mut self.patience.moved);
        let parts = [&self.request.head[..], body];
        let done = poll_write_all(cx, &mut upstream.socket, parts, sent, moved).is_ready();
        self.handed |= *sent > 0;
        if done {
            // If it was in vain, the rest is too, and says so.
            self.again = None;
        }
        done
    }

    /// Whether the request may be sent again after this.
    pub(super) fn may_try_again(&mut self, failure: &Failure) -> bool {
        match failure {
            // Whatever its method: it was certainly not executed.
            Failure::Refused => self.may_send_again(),
            // Nothing was sent: another endpoint may be up.
            Failure::Connect(ConnectError::Exhausted(_)) => false,
            Failure::Connect(ConnectError::Useless(_)) => {
                self.refused + 1 < self.proxy.pool.len().max(2)
            }
            Failure::Connect(_) => self.refused + 1 < self.proxy.pool.len(),
            Failure::Died(died) if died.answered => false,
            Failure::Died(died) if !died.written => !self.fresh_only,
            Failure::Died(died) => {
                died.reused
                    && !self.fresh_only
                    && self.request.is_repeatable
                    && self.proxy.config.upstream.retry == Retry::Idempotent
            }
            _ => false,
        }
    }

    /// Whether a request that was refused can be sent once more, all that was sent of it.
    fn may_send_again(&mut self) -> bool {
        let may = self.proxy.config.upstream.retry != Retry::Never;
        if self.side.upload().written == 0 {
            return self.attempts < REFUSED_ATTEMPTS;
        }
        let Some(upstream) = self.upstream.as_mut().filter(|_| may) else { return false };
        // What had not gone out again whole has been kept whole, and by nobody else.
        if self.again.is_none() {
            let Some(body) = upstream.socket.take_back() else { return false };
            self.again = Some(Box::new(Again { body, sent: 0 }));
        }
        self.attempts < REFUSED_ATTEMPTS
    }

    /// Goes back to before the first octet that was sent.
    pub(super) fn start_over(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Refused) {
            // That says nothing against the connection: one that is about to end is given
            // to nobody. But another app server may have room.
            self.endpoint = self.proxy.pool.after(self.endpoint);
        } else if self.upstream.is_some() {
            // The next attempt must not meet another connection that died meanwhile.
            self.fresh_only = true;
        } else {
            self.refused += 1;
            self.endpoint = self.proxy.pool.after(self.endpoint);
        }
        self.drop_upstream();
        self.handed = false;
        match &mut self.again {
            Some(again) => again.sent = 0,
            None => self.side.restart(),
        }
        self.patience.renew();
    }
}
