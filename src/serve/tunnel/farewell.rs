//! The goodbye of a WebSocket (drain.md, "What each connection is asked").
//!
//! | it ends because | its client gets | its app server gets |
//! | --- | --- | --- |
//! | both have sent a Close | the app server's FIN | what the client sends |
//! | it is told: a stop, its age, its silence | a Close of ours at a boundary; then nothing more but FIN | the client's echo; its own Close goes no further |
//! | it is told and the client does not answer | FIN | a masked Close of ours at a boundary, else a reset |
//! | the app server is gone | a Close 1011 at a boundary, else a reset | |
//! | the app server is gone and the client had said Close | a Close 1000 | |
//! | the client is gone | | FIN |
//! | the hard deadline, and nothing could be said | a reset | a reset |

use std::task::Context;
use std::time::Duration;

use super::leg::Leg;
use super::relay::{Over, Relay};
use crate::config::WebSocket;
use crate::limits::CUT_SEND;
use crate::serve::worker::millis;
use crate::stream::websocket::close;
use crate::telemetry::CloseReason;

/// The code for an app server that has gone (RFC 6455 section 7.4.1: internal error).
const LOST: u16 = 1011;

/// The code for one that has gone as it was asked to.
const NORMAL: u16 = 1000;

const NEVER: u64 = u64::MAX;

/// How far a goodbye has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nobody has asked for one.
    None,
    /// The Close is to be sent at the next boundary, until then.
    Wanted(CloseReason, u64),
    /// A Close of ours, or a whole one of the app server's, goes to the client. From the
    /// moment when it is out, it and the app server have until then to answer.
    Said(CloseReason, Option<u64>),
    /// All is said. The app server has until then to take it and to close.
    Leaving(CloseReason, u64),
    /// The app server has gone: the Close says so, until then.
    Last(Over, u64),
}

impl Farewell {
    /// Whether the client has been sent a Close, or will be in a moment.
    pub(super) fn is_said(self) -> bool {
        matches!(self, Farewell::Said(..) | Farewell::Leaving(..))
    }

    /// Whether a Close waits for its boundary.
    pub(super) fn is_wanted(self) -> bool {
        matches!(self, Farewell::Wanted(..))
    }

    /// Whether nothing more of the app server goes to the client.
    pub(super) fn swallows(self) -> bool {
        self.is_said() || matches!(self, Farewell::Last(..))
    }

    /// Whether a drain has still to ask for it. What another reason could not say in its
    /// time, a drain wants to say until the hard deadline.
    pub(super) fn may_be_told_to_end(self) -> bool {
        match self {
            Farewell::None => true,
            Farewell::Wanted(reason, _) => reason != CloseReason::Drain,
            _ => false,
        }
    }

    /// When it has to be looked at again.
    pub(super) fn due(self) -> u64 {
        match self {
            Farewell::None => NEVER,
            Farewell::Wanted(_, until) | Farewell::Leaving(_, until) | Farewell::Last(_, until) => {
                until
            }
            Farewell::Said(_, until) => until.unwrap_or(NEVER),
        }
    }
}

impl<C: Leg> Relay<'_, C> {
    /// The time of the clock when this has passed.
    fn after(&self, time: Duration) -> u64 {
        self.worker.proxy.clock.now().saturating_add(millis(time))
    }

    fn close_timeout(&self) -> u64 {
        self.after(self.worker.proxy.plan().close_timeout)
    }

    /// A Close is wanted soon.
    pub(super) fn want(&mut self, reason: CloseReason) {
        self.farewell = Farewell::Wanted(reason, self.close_timeout());
    }

    /// Whether a Ping may be sent now.
    pub(super) fn may_ping(&self) -> bool {
        self.down.is_out() && self.down.is_at_boundary() && !self.down.has_closed()
    }

    /// Asks the client whether it is there.
    pub(super) fn ping(&mut self, now: u64) {
        self.down.hold_ping();
        self.pinged = now;
    }

    /// Puts our Close behind what the client has been sent, if one is wanted and may go
    /// there; whether it did.
    pub(super) fn say_goodbye(&mut self) -> bool {
        let Farewell::Wanted(reason, _) = self.farewell else { return false };
        if self.down.has_closed_whole() {
            // The app server has said it: what is left is to wait for the answer.
            self.farewell = Farewell::Said(reason, None);
            return false;
        }
        if self.down.ended || !self.down.is_at_boundary() {
            return false;
        }
        let WebSocket { close_code, close_reason, .. } = self.config();
        self.down.hold(close(*close_code, close_reason, None).as_ref());
        self.farewell = Farewell::Said(reason, None);
        true
    }

    /// Whether a goodbye that is under way is over; `None` if none is.
    #[expect(clippy::option_option, reason = "none is under way, it is not over, it is")]
    pub(super) fn goodbye_is_over(
        &mut self,
        cx: &mut Context<'_>,
        now: u64,
    ) -> Option<Option<Over>> {
        let is_out = self.down.is_out();
        match self.farewell {
            Farewell::Last(over, _) if is_out => return Some(Some(over)),
            Farewell::Last(_, until) => {
                return Some((now >= until).then_some(Over::Lost(false)));
            }
            // In a drain it may be said until the hard deadline.
            Farewell::Wanted(reason, until) if now >= until && !self.is_draining() => {
                return Some(Some(Over::Untold(reason)));
            }
            Farewell::Said(reason, None) if is_out => {
                self.farewell = Farewell::Said(reason, Some(self.close_timeout()));
            }
            _ => {}
        }
        if let Farewell::Said(reason, Some(until)) = self.farewell {
            let echoed = self.up.has_closed_whole() && self.up.is_out();
            let answered = echoed || self.up.ended || self.up.finished;
            let swallowed = self.down.has_closed_whole() || self.down.ended;
            if (answered && swallowed) || now >= until {
                let linger = self.worker.proxy.plan().linger;
                self.leave(cx, reason, linger);
            }
        }
        match self.farewell {
            Farewell::None | Farewell::Wanted(..) => None,
            Farewell::Leaving(reason, until) => {
                let gone = self.down.ended || self.leaves_part || now >= until;
                Some(gone.then_some(Over::Told(reason)))
            }
            _ => Some(None),
        }
    }

    /// The hard deadline: how it ends, if it does so at once. Who was told has been told;
    /// its app server still gets to know.
    pub(super) fn meet_the_deadline(&mut self, cx: &mut Context<'_>) -> Option<Over> {
        match self.farewell {
            Farewell::Said(reason, Some(_)) => {
                self.leave(cx, reason, CUT_SEND);
                None
            }
            Farewell::Leaving(..) => None,
            Farewell::Last(..) => Some(Over::Lost(false)),
            // What is not out may end inside a frame.
            Farewell::None | Farewell::Wanted(..) | Farewell::Said(_, None) => Some(Over::Cut),
        }
    }

    /// All is said to the client: it gets our FIN, and so does the app server, which may
    /// still have to read what came before.
    fn leave(&mut self, cx: &mut Context<'_>, reason: CloseReason, linger: Duration) {
        self.up.ended = true;
        self.leaves_part = !self.up.has_closed() && !self.up.is_at_boundary();
        self.down.finish(cx, self.client);
        self.farewell = Farewell::Leaving(reason, self.after(linger));
        cx.waker().wake_by_ref();
    }

    /// A client that did not answer: the app server gets a Close in its place, if that
    /// can be; whether it does.
    pub(super) fn speak_for_the_client(&mut self) -> bool {
        if self.up.has_closed() || !self.up.is_at_boundary() || self.up.finished {
            return false;
        }
        let mut key = [0; 4];
        // A mask keeps scripts from choosing octets on the wire; these are no script's.
        let _without = aws_lc_rs::rand::fill(&mut key);
        let WebSocket { close_code, close_reason, .. } = self.config();
        let frame = close(*close_code, close_reason, Some(key));
        self.up.hold(frame.as_ref());
        self.up.follow(frame.as_ref());
        true
    }

    /// The app server has ended a WebSocket without a Close.
    pub(super) fn lose(&mut self) -> Option<Over> {
        let asked = self.up.has_closed_whole();
        if self.up.ended && !asked {
            // The client left first; that is the app server's answer.
            return Some(Over::ClientGone);
        }
        if !self.down.is_at_boundary() || !(asked || self.config().tell_lost) {
            return Some(Over::Lost(false));
        }
        let (code, over) = if asked { (NORMAL, Over::Ended) } else { (LOST, Over::Lost(true)) };
        self.down.hold(close(code, "", None).as_ref());
        self.farewell = Farewell::Last(over, self.close_timeout());
        None
    }
}
