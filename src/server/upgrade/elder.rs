//! The control thread of a process that is replaced: what is done when. Who may ask for it
//! is in `asked`, what happens when it fails in `lost`.
//!
//! ```text
//!          asked            ready              serving            nothing is left
//! serving ──────> preparing ─────> letting go ────────> outgoing ────────────────> gone
//!    ^               │                 │                    │
//!    └───────────────┴─────────────────┴────────────────────┘
//!      failed, or the successor is lost within upgrade.take_back
//! ```

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::outgoing::{Line, News};
use super::prepare::{CALLED_OFF, Prepared};
use super::succession::{Outgoing, Step};
use crate::admin::Progress;
use crate::drain::{Deadline, Phase, Plan};
use crate::handoff::Message;
use crate::lifecycle::Event as Happened;
use crate::limits::{ELDER_REPORT, HANDOFF_WORDS, LETTING_GO, REAP};
use crate::net::Listener;
use crate::server::control::Control;
use crate::telemetry::{Event, Level};

impl Control {
    /// When our copies of the listeners are of no use any more.
    pub(in crate::server) fn take_back_until(&self) -> Deadline {
        let out = self.succession.outgoing.as_ref();
        match out.and_then(|out| out.serving) {
            Some(serving) if !self.listeners.is_empty() => {
                Deadline::after(serving, self.config.upgrade.take_back)
            }
            _ => Deadline::NEVER,
        }
    }

    /// Does what comes next in a replacement.
    pub(in crate::server) async fn step(&mut self, step: Step) -> Option<Happened> {
        match step {
            Step::Prepared(prepared) => {
                match prepared {
                    Ok(prepared) if self.overview.phase() == Phase::Serving => {
                        self.let_go(prepared).await;
                    }
                    Ok(prepared) => self.refuse(prepared).await,
                    Err(error) => self.upgrade_failed(&error),
                }
                self.succession.settle(true);
                None
            }
            Step::News(news) => self.hear(news),
            Step::Left(left) => {
                // What it has said before its end counts.
                while let Some(news) = self.succession.late_news() {
                    if let Some(happened) = self.hear_late(news) {
                        self.happened(happened);
                    }
                }
                self.lose(left).await
            }
            Step::Due => self.look_after_successor().await,
        }
    }

    pub(super) fn tell_watchers(&mut self, progress: &Progress) {
        // One that does not read has room for every step there is.
        self.watchers.retain(|watcher| watcher.try_send(progress.clone()).is_ok());
    }

    pub(super) fn upgrade_failed(&mut self, error: &str) {
        let event = Event::new(Level::Error, "upgrade_failed").with("error", error.to_owned());
        let stops = self.overview.state.borrow().stop.is_some_and(|stop| stop.by == Plan::Stop);
        let message = if stops { "nobody goes on" } else { "this process goes on" };
        self.events.emit(event.with("message", message));
        self.tell_watchers(&Progress::Failed { error: error.to_owned() });
        self.watchers.clear();
        self.manager.notifier.upgrade_failed(error);
        self.overview.succession.set(None);
    }

    /// The successor can serve: from now on our elders talk to it, and it may accept.
    async fn let_go(&mut self, prepared: Prepared) {
        let Prepared { channel, launched, pid, version, process, released, unclaimed } = prepared;
        let Some(departures) = self.departures.take() else { return };
        let event = Event::new(Level::Info, "upgrade_ready").with("successor", pid);
        self.events.emit(event.with("version", version.clone()));
        self.tell_watchers(&Progress::Ready { pid, version });
        self.leave_doors();
        self.last_answers().await;
        self.elders.pause().await;
        let why = "this process has been replaced already; ask its successor";
        self.overview.succession.set(Some(why));
        let (tell, news) = mpsc::channel(HANDOFF_WORDS);
        let (words, said) = mpsc::channel(HANDOFF_WORDS);
        let counters = Arc::clone(&self.overview.counted_here);
        let line = Line { channel, departures, news: tell, words: said, counters };
        let now = Instant::now();
        self.succession.outgoing = Some(Outgoing {
            line: Box::pin(line.run(self.go())),
            news,
            words,
            launched,
            pid,
            process,
            released,
            unclaimed,
            began: now,
            serving: None,
            late: now + LETTING_GO.min(self.config.upgrade.timeout),
            replaced: false,
            committed: false,
            reported: now,
            told: None,
        });
    }

    /// All that is known now.
    fn go(&self) -> Message {
        let mut ours = self.overview.elder_state();
        // As it is when the successor shows it.
        ours.phase = Phase::Draining.to_string();
        let counted = ours.counted.clone();
        let counted = self.overview.ledger.borrow().with(self.overview.generation, counted);
        let elders = self.elders.states().into_iter().chain([ours]).collect();
        Message::Go { counted, elders }
    }

    /// It comes too late.
    async fn refuse(&mut self, prepared: Prepared) {
        let error = CALLED_OFF.to_owned();
        let refused = Message::Refused { error: error.clone() };
        let _gone = prepared.channel.say(&refused).await;
        if let Some(launched) = prepared.launched {
            let _late = tokio::time::timeout(REAP, launched.abort()).await;
        }
        self.upgrade_failed(&error);
    }

    fn hear(&mut self, news: News) -> Option<Happened> {
        let serves = self.succession.serves();
        match news {
            News::Serving => return self.handed_over(),
            // Nothing of ours is its own yet.
            News::Release(_) | News::Leave if !serves => {
                self.succession.refuse("it wants us gone before it accepts".to_owned())
            }
            News::Here { pid, generation } => self.is_with(pid, generation),
            News::Release(names) => {
                // It is about to stop, and whoever went there would not stay long.
                self.release(&names);
                self.succession.stop_moving();
                self.tell_to_stay();
            }
            // That, or there are too many of us.
            News::Leave => return Some(Happened::Leave),
            News::Unmovable(departure) => {
                drop(departure);
                self.count_lost(1, "no packet takes it");
            }
        }
        None
    }

    /// The same, of one whose channel has ended.
    fn hear_late(&mut self, news: News) -> Option<Happened> {
        match news {
            // The listeners are closed as befits one who has them alone, now that it may.
            News::Release(_) | News::Leave => self.succession.stop_moving(),
            // Whoever it was is not there any more.
            News::Here { .. } => {}
            news => return self.hear(news),
        }
        None
    }

    /// The successor accepts: what we still have goes there, or has much time.
    fn handed_over(&mut self) -> Option<Happened> {
        let out = self.succession.outgoing.as_mut()?;
        out.serving.get_or_insert_with(Instant::now);
        let unclaimed = std::mem::take(&mut out.unclaimed);
        let (pid, generation) = (out.pid, self.overview.generation.saturating_add(1));
        let event = Event::new(Level::Info, "upgrade_serving").with("successor", pid);
        self.events.emit(event.with("generation", generation));
        self.tell_watchers(&Progress::Serving { pid, generation });
        // Nobody has the paths of those that it has no use for.
        self.remove_doors(&unclaimed);
        // Whoever wanted to call it off comes too late.
        self.succession.settle(false);
        if self.overview.phase() == Phase::Serving {
            self.stopping.reason.get_or_insert("upgrade");
        }
        Some(Happened::HandedOver)
    }

    /// Its own successor goes on in the successor's place, or itself again: it is that one
    /// who stays. Two can not take back, so it is the younger elder who does.
    fn is_with(&mut self, pid: u32, generation: u32) {
        // By generations: two processes may have one number, each in a place of its own.
        let first = self.overview.generation.saturating_add(1);
        let is_another =
            |out: &&mut Outgoing| out.serving.is_some() && (generation != first || out.replaced);
        let Some(out) = self.succession.outgoing.as_mut().filter(is_another) else {
            return;
        };
        out.pid = pid;
        out.process = None;
        out.replaced = true;
        out.serving = out.serving.map(|_| Instant::now());
        if let Some(launched) = out.launched.take() {
            // What we have started is to end by itself.
            tokio::task::spawn_local(launched.commit());
        }
        self.release_all();
    }

    /// We do not take back any more.
    fn release_all(&mut self) {
        let names: Vec<_> = self.listeners.iter().map(|one| one.name().to_owned()).collect();
        self.release(&names);
        self.close_doors();
    }

    /// Listeners that the successor has no use for are closed without a reset.
    pub(in crate::server) fn close_released(&mut self) {
        let Some(out) = &mut self.succession.outgoing else { return };
        let released = std::mem::take(&mut out.released);
        let is_released =
            |listener: &mut Listener| released.iter().any(|name| name == listener.name());
        let mut gone: Vec<_> = self.listeners.extract_if(.., is_released).collect();
        self.manager.forget(&mut gone);
        if !gone.is_empty() {
            // It has closed its copies before it was ready.
            self.close_some(gone, std::future::ready(true));
        }
    }

    /// Our copies of these listeners are closed, and the successor is told.
    fn release(&mut self, names: &[String]) {
        self.listeners.retain(|listener| !names.iter().any(|name| name == listener.name()));
        if let Some(out) = &self.succession.outgoing {
            let released = Message::Released { names: names.to_vec() };
            let _gone = out.words.try_send(released);
        }
    }

    async fn look_after_successor(&mut self) -> Option<Happened> {
        let now = Instant::now();
        if self.take_back_until().is_over(now) {
            self.release_all();
        }
        let state = self.overview.elder_state();
        let out = self.succession.outgoing.as_mut()?;
        if out.serving.is_none() && now >= out.late {
            // It does not do what it was let to do.
            let error = format!("it was let go and has not accepted in {:?}", now - out.began);
            out.late = now + LETTING_GO;
            self.succession.refuse(error);
            return None;
        }
        if now >= out.reported + ELDER_REPORT {
            out.reported = now;
            let (moved, waiting) = (state.moved.clone(), state.waiting.clone());
            // One that is behind hears the next one.
            let _full = out.words.try_send(Message::State(state));
            let progress = Progress::Moved { moved, waiting };
            // A person need not be told what he knows.
            if out.told.as_ref() != Some(&progress) {
                out.told = Some(progress.clone());
                self.watchers.retain(|watcher| watcher.try_send(progress.clone()).is_ok());
            }
        }
        let out = self.succession.outgoing.as_mut()?;
        let commit = self.config.upgrade.commit_after;
        if out.serving.is_some_and(|since| now >= since + commit) && !out.committed {
            self.commit().await;
        }
        None
    }

    /// From now on the successor stands alone: the service manager watches over it.
    async fn commit(&mut self) {
        let Some(out) = self.succession.outgoing.as_mut() else { return };
        if std::mem::replace(&mut out.committed, true) {
            return;
        }
        if let Some(launched) = out.launched.take() {
            // It is the service manager's child only when who has started it is gone.
            let _late = tokio::time::timeout(REAP, launched.commit()).await;
        }
        if self.manager.committed(out.pid) {
            let _gone = out.words.try_send(Message::Main);
        }
    }

    /// The last words to the successor: it is on its own.
    pub(in crate::server) async fn bid_farewell(&mut self) {
        self.commit().await;
        let state = self.overview.elder_state();
        let Some(Outgoing { line, words, .. }) = self.succession.outgoing.take() else { return };
        let farewell = async {
            let _gone = words.send(Message::Bye(state)).await;
            line.await
        };
        let _late = tokio::time::timeout(REAP, farewell).await;
        self.close_doors();
        self.tell_watchers(&Progress::Gone);
    }
}
