//! What a client saw, and whether a promise was broken by it.

use std::time::{Duration, Instant};

use super::Run;
use crate::support::client::{Broken, End};
use crate::support::ms;

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// An answer, whatever happens.
    Always,
    /// An answer, if it was sent within the first-request grace.
    Fresh,
    /// An answer, if it was sent within the idle grace; otherwise it may have raced with
    /// our FIN.
    Idle,
    /// As [`Due::Fresh`], and it has to say that it is the last one.
    FreshAndTold,
    /// An answer that says that it is the last one.
    Told,
    /// An answer, if the client could not have looked at a GOAWAY yet.
    Stream,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// Nobody accepted the connection.
    NotConnected(End),
    /// The whole right answer; whether it said close, and how the connection went on.
    Answered { close: bool },
    /// A whole answer, but not the right one.
    Wrong(String),
    /// The connection had ended when the client looked, before it sent: a real client
    /// takes another one.
    GoneBefore(End),
    /// Sent, and no whole answer.
    Lost(Broken),
}

/// One request as its client saw it.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    /// The actor and the request.
    pub(super) who: String,
    /// What must become of it.
    pub(super) due: Due,
    /// When the client began to connect, or last looked for an end.
    pub(super) began: Instant,
    /// When the first octets were handed to the kernel.
    pub(super) sent: Instant,
    /// What became of it.
    pub(super) fate: Fate,
}

impl Fact {
    /// The promise that was broken, in words.
    pub(super) fn loss(&self, run: &Run, signal_at: Instant) -> Option<String> {
        let why = match &self.fate {
            Fate::Answered { close } => self.untold(*close)?,
            Fate::Wrong(what) => format!("a wrong answer: {what}"),
            Fate::NotConnected(end) => self.unduly_refused(*end, signal_at)?,
            Fate::GoneBefore(end) => self.unduly_gone(*end, run, signal_at)?,
            Fate::Lost(broken) => {
                if broken.head.is_none() && broken.got.is_empty() && !self.was_due(run, signal_at) {
                    return None;
                }
                format!("lost, {broken:?}")
            }
        };
        Some(format!("{}: {why} ({:?})", self.who, self.due))
    }

    /// Whether it got through only by a second SYN, a second later, when the proxy was
    /// gone: who listens at its port then is another test's.
    pub(super) fn is_somebody_elses(&self, exit_at: Instant) -> bool {
        let waited = self.sent.saturating_duration_since(self.began) > ms(900);
        let is_new = matches!(self.due, Due::Fresh | Due::FreshAndTold);
        is_new && waited && self.sent > exit_at
    }

    /// Whether it was certainly lost to the race with the FIN of an idle connection.
    pub(super) fn raced(&self) -> bool {
        self.lost_silently() && self.due == Due::Idle && self.was_quick()
    }

    /// Whether the proxy may count it as raced, though it need not.
    pub(super) fn perhaps_raced(&self) -> bool {
        self.lost_silently() && !self.raced()
    }

    fn lost_silently(&self) -> bool {
        matches!(&self.fate, Fate::Lost(broken) if broken.head.is_none() && broken.got.is_empty())
    }

    /// Whether the client sent right after its look: the proxy reads an idle socket for
    /// 100 ms after its FIN.
    fn was_quick(&self) -> bool {
        self.sent.saturating_duration_since(self.began) < ms(40)
    }

    fn was_due(&self, run: &Run, signal_at: Instant) -> bool {
        let within = |start: Instant, grace: Duration| self.sent < start + grace;
        match self.due {
            Due::Always | Due::Told => true,
            Due::Fresh | Due::FreshAndTold => {
                within(self.began.max(signal_at), run.first_request_grace)
            }
            Due::Idle => within(signal_at, run.idle_grace),
            Due::Stream => within(signal_at, super::GOAWAY_GRACE - ms(50)),
        }
    }

    fn untold(&self, close: bool) -> Option<String> {
        let told = matches!(self.due, Due::Told | Due::FreshAndTold);
        (told && !close).then(|| "not told that this was the last answer".to_owned())
    }

    fn unduly_refused(&self, end: End, signal_at: Instant) -> Option<String> {
        (self.sent < signal_at).then(|| format!("{end:?} at connect before the signal"))
    }

    fn unduly_gone(&self, end: End, run: &Run, signal_at: Instant) -> Option<String> {
        (self.was_due(run, signal_at) || end != End::Eof)
            .then(|| format!("{end:?} before it could be used"))
    }
}
