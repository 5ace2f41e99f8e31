//! The control thread of a process that loses its successor: what [`super::loss`] has
//! decided is done here.

use std::error::Error;
use std::time::Instant;

use super::doubt::Doubt;
use super::loss::{End, Fate, Loss, We};
use super::outgoing::{Kept, Left, Over};
use super::succession::Outgoing;
use crate::admin::Progress;
use crate::drain::Phase;
use crate::handoff::{Channel, Launched, Process};
use crate::lifecycle::Event as Happened;
use crate::limits::{LAST_MOMENT, REAP, SEEN_TO_END};
use crate::net::Listener;
use crate::server::bind::named;
use crate::server::control::Control;
use crate::server::stop::Stopping;
use crate::telemetry::{Event, Level};

impl Control {
    /// The channel has ended: the successor is gone, or lost, or takes nothing more.
    pub(super) async fn lose(&mut self, left: Left) -> Option<Happened> {
        let in_time = !self.take_back_until().is_over(Instant::now()) && !self.listeners.is_empty();
        let out = self.succession.outgoing.take()?;
        // The service manager would end this process with the one it knows.
        let named = out.committed && self.manager.notifier.is_heard();
        let loss = Loss {
            we: We::new(self.overview.phase(), self.overview.plan()),
            serving: out.serving.is_some(),
            end: End::from(&left.over),
            dismissed: left.dismissed || self.succession.stays,
            in_time: in_time && !named,
        };
        let Left { departures, over, rest, .. } = left;
        self.departures = Some(departures);
        let Kept { ours, taken, lost, channel } = rest.keep(&over, loss.must_end());
        self.count_lost(lost, "it was sent, and the successor cannot be told to leave it");
        self.returned.extend(ours);
        let Outgoing { launched, process, pid, .. } = out;
        let (why, doubt) = part(loss, over, launched, process, channel).await;
        let gone = doubt.is_none();
        self.succession.doubts.extend(doubt);
        self.succession.settle(gone);
        let error = format!("the successor (pid {pid}) is lost: {why}");
        match loss.fate() {
            Fate::GoOn => {
                self.tell_of_loss(loss, &error, taken);
                self.go_on(&error);
                loss.serving.then_some(Happened::TakenBack)
            }
            Fate::TakeBack => {
                self.tell_of_loss(loss, &error, taken);
                self.go_on(&error);
                Some(Happened::TakenBack)
            }
            Fate::Stay => {
                self.stay_outgoing(loss, &error, gone);
                self.tell_of_loss(loss, &error, taken);
                loss.dismissed.then_some(Happened::Leave)
            }
        }
    }

    fn tell_of_loss(&self, loss: Loss, error: &str, taken: usize) {
        let back = loss.fate() != Fate::Stay;
        let expected = !back && (loss.we == We::Stop || loss.dismissed);
        let (level, name) = match expected {
            true => (Level::Info, "successor_gone"),
            false => (Level::Error, "upgrade_lost"),
        };
        let event = Event::new(level, name).with("error", error.to_owned());
        let event = event.with("returned", self.returned.len()).with("moved", taken);
        self.events.emit(event.with("taken_back", back));
    }

    /// Without it, as it was before.
    fn go_on(&mut self, error: &str) {
        self.upgrade_failed(error);
        self.open_doors();
        self.elders.resume();
    }

    /// There is nobody to whom what is left could go.
    fn stay_outgoing(&mut self, loss: Loss, error: &str, gone: bool) {
        if !loss.serving {
            self.tell_watchers(&Progress::Failed { error: error.to_owned() });
            self.watchers.clear();
        }
        let listeners = std::mem::take(&mut self.listeners);
        if !listeners.is_empty() {
            // Nobody else accepts from them, if it is gone.
            self.close_some(listeners, std::future::ready(gone));
        }
        self.close_doors();
        self.tell_to_stay();
    }

    /// Looks whether those that were lost have ended meanwhile: then the listeners are ours
    /// alone.
    pub(in crate::server) fn settle_doubts(&mut self) {
        let before = self.succession.doubts.len();
        self.succession.doubts.retain(|doubt| !doubt.is_over());
        let settled = before > 0 && self.succession.doubts.is_empty();
        if settled && self.elders.hold_nothing() && !self.succession.has_let_go() {
            self.own_doors();
        }
    }

    /// Lets the workers accept again, and the admin listener answer.
    pub(in crate::server) fn open_again(&mut self) {
        // What there was of a drain is of no account.
        self.stopping = Stopping::new(self.overview.generation);
        let listeners = std::mem::take(&mut self.listeners);
        let missing = named(&self.config).map(|(.., name)| name);
        let missing = missing.filter(|name| !listeners.iter().any(|one| one.name() == name));
        self.succession.missing = missing.map(|name| (name, false)).collect();
        self.open(listeners);
        self.bind_missing();
        self.open_doors();
    }

    /// Listeners that were closed because the successor had no use for them are bound again
    /// when they are; if that fails, until it does not.
    pub(in crate::server) fn bind_missing(&mut self) {
        let settled = self.overview.phase() == Phase::Serving && !self.is_closing();
        if self.succession.missing.is_empty() || !settled || self.succession.is_under_way() {
            return;
        }
        let mut bound = Vec::new();
        for (listen, secure, name) in named(&self.config) {
            let Some(told) = self.succession.missing.get_mut(&name) else { continue };
            match Listener::bind(listen, secure) {
                Ok(listener) => {
                    let proto = if secure { "https" } else { "http" };
                    self.events.emit(Event::listening(listener.to_string(), proto));
                    self.succession.missing.remove(&name);
                    bound.push(listener.named(name));
                }
                Err(_) if *told => {}
                Err(error) => {
                    *told = true;
                    let cause = Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    let event = Event::new(Level::Error, "listener_lost").with("addr", name);
                    self.events.emit(event.with("error", format!("{error}: {cause}")));
                }
            }
        }
        if !bound.is_empty() {
            self.open(bound);
        }
    }

    /// Has the workers accept from these listeners.
    fn open(&mut self, listeners: Vec<Listener>) {
        let Some(workers) = &mut self.workers else { return };
        let (opened, events) = (workers.open(&listeners), self.events.clone());
        self.listeners.extend(listeners);
        tokio::task::spawn_local(async move {
            if let Err(error) = opened.await {
                let event = Event::new(Level::Error, "accept_failed");
                events.emit(event.with("why", "listener").with("error", error.to_string()));
            }
        });
    }
}

/// Parts from a successor: ends it, where it must not come back, or leaves it alone. Says
/// what has become of it, and what is left of it if that is not certain.
async fn part(
    loss: Loss,
    over: Over,
    launched: Option<Launched>,
    process: Option<Process>,
    channel: Option<Channel>,
) -> (String, Option<Doubt>) {
    let closed = loss.end == End::Closed;
    let mut why = over.to_string();
    if loss.must_end() {
        why = end(launched, over).await;
    } else if let Some(launched) = launched {
        let _late = tokio::time::timeout(REAP, launched.commit()).await;
    }
    let gone = match &process {
        Some(process) if loss.must_end() => {
            process.ends(SEEN_TO_END).await || process.kill(REAP).await
        }
        Some(process) if closed => process.ends(SEEN_TO_END).await,
        Some(process) => process.is_gone(),
        None => closed,
    };
    (why, (!gone).then(|| Doubt::new(channel, process)))
}

/// Ends what was started, if it has not ended by itself; how it did says more than that
/// its channel has.
async fn end(launched: Option<Launched>, over: Over) -> String {
    let why = over.to_string();
    let Some(mut launched) = launched else { return why };
    match (over, tokio::time::timeout(LAST_MOMENT, launched.ended()).await) {
        (Over::Ended, Ok(ended)) => format!("it {ended}"),
        (_, Ok(_)) => why,
        (_, Err(_)) => {
            let _late = tokio::time::timeout(REAP, launched.abort()).await;
            why
        }
    }
}
