//! How far a replacement has come, and what comes next in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::doubt::Doubt;
use super::outgoing::{Left, News};
use super::prepare::Prepared;
use crate::admin::Progress;
use crate::drain::Deadline;
use crate::handoff::{GivenKind, Launched, Message, Process};
use crate::limits::{CALL_OFF, ELDER_REPORT, SETTLE};
use crate::server::control::{Running, done, due};

/// How far a replacement has come.
#[derive(Default)]
pub(in crate::server) struct Succession {
    pub(super) preparing: Option<Running<Result<Prepared, String>>>,
    /// Calls that off, by being dropped; and who waits for its end.
    pub(super) call_off: Option<oneshot::Sender<()>>,
    pub(super) ends: Option<oneshot::Sender<bool>>,
    pub(super) outgoing: Option<Outgoing>,
    /// Connections are not to go to it.
    pub(super) stays: bool,
    /// Those that were lost, and may still have our listeners.
    pub(super) doubts: Vec<Doubt>,
    /// Listeners that are to be bound again, and whether it was told that this has failed.
    pub(super) missing: BTreeMap<String, bool>,
}

/// A successor that may accept.
pub(super) struct Outgoing {
    pub(super) line: Running<Left>,
    pub(super) news: mpsc::Receiver<News>,
    pub(super) words: mpsc::Sender<Message>,
    pub(super) launched: Option<Launched>,
    pub(super) pid: u32,
    /// The process itself; none where it is not to be seen from here.
    pub(super) process: Option<Process>,
    pub(super) released: Vec<String>,
    pub(super) unclaimed: Vec<GivenKind>,
    /// When we let go, and since when it serves.
    pub(super) began: Instant,
    pub(super) serving: Option<Instant>,
    /// When it should have.
    pub(super) late: Instant,
    /// It has been replaced itself: we do not take back any more.
    pub(super) replaced: bool,
    /// It can not be undone any more.
    pub(super) committed: bool,
    pub(super) reported: Instant,
    /// What was told last of what has moved.
    pub(super) told: Option<Progress>,
}

/// What has come of a replacement.
pub(in crate::server) enum Step {
    Prepared(Result<Prepared, String>),
    News(News),
    Left(Left),
    /// Something is due.
    Due,
}

impl Succession {
    /// Whether connections go to a successor.
    pub(in crate::server) fn moves(&self) -> bool {
        !self.stays && self.serves()
    }

    /// Whether there is a successor, or about to be one.
    pub(super) fn is_under_way(&self) -> bool {
        self.preparing.is_some() || self.outgoing.is_some()
    }

    /// Whether there is a successor that accepts.
    pub(super) fn serves(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|out| out.serving.is_some())
    }

    /// Whether somebody who is no successor any more may still have our listeners.
    pub(in crate::server) fn is_in_doubt(&self) -> bool {
        self.doubts.iter().any(|doubt| !doubt.is_over())
    }

    /// What the successor has said before its end, and was not heard yet.
    pub(super) fn late_news(&mut self) -> Option<News> {
        self.outgoing.as_mut()?.news.try_recv().ok()
    }

    /// Tells the successor that it is none, which ends the channel.
    pub(super) fn refuse(&self, error: String) {
        if let Some(out) = &self.outgoing {
            let _gone = out.words.try_send(Message::Refused { error });
        }
    }

    /// Whether the process may end as soon as it is empty: a successor that dies at
    /// once should find somebody who takes back.
    pub(in crate::server) fn is_settled(&self, now: Instant) -> bool {
        let Some(out) = &self.outgoing else { return true };
        out.replaced || out.serving.is_some_and(|since| now >= since + SETTLE)
    }

    /// Calls a successor off that does not serve yet. Tells later whether nothing of it is
    /// left, or it has come to serve meanwhile.
    pub(in crate::server) fn call_off(&mut self) -> Option<oneshot::Receiver<bool>> {
        match &mut self.outgoing {
            Some(out) if out.serving.is_none() => {
                out.late = out.late.min(Instant::now() + CALL_OFF);
            }
            _ => {
                self.preparing.as_ref()?;
                self.call_off = None;
            }
        }
        let (ends, ended) = oneshot::channel();
        self.ends = Some(ends);
        Some(ended)
    }

    /// Whoever has called it off is told whether it is gone.
    pub(super) fn settle(&mut self, is_gone: bool) {
        if let Some(ends) = self.ends.take() {
            let _nobody_waits = ends.send(is_gone);
        }
    }

    /// Whether there is a successor that may accept.
    pub(in crate::server) fn has_let_go(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Connections are not to go to the successor any more.
    pub(super) fn stop_moving(&mut self) {
        self.stays = true;
    }

    /// What comes next. Ends without an effect if it is dropped.
    pub(in crate::server) async fn next(&mut self, take_back: Deadline, commit: Duration) -> Step {
        let Succession { preparing, outgoing, .. } = self;
        let Some(out) = outgoing else { return Step::Prepared(done(preparing).await) };
        let due_at = out.due(take_back, commit);
        tokio::select! {
            biased;
            Some(news) = out.news.recv() => Step::News(news),
            left = &mut out.line => Step::Left(left),
            () = due(due_at) => Step::Due,
        }
    }
}

impl Outgoing {
    fn due(&self, take_back: Deadline, commit: Duration) -> Deadline {
        let report = Deadline::at(self.reported + ELDER_REPORT);
        let Some(serving) = self.serving else {
            return report.nearer(Deadline::at(self.late));
        };
        let commit =
            if self.committed { Deadline::NEVER } else { Deadline::after(serving, commit) };
        let settle = Deadline::at(serving + SETTLE);
        let settle = if settle.is_over(Instant::now()) { Deadline::NEVER } else { settle };
        report.nearer(commit).nearer(settle).nearer(take_back)
    }
}
