//! The control thread of a process that is replaced: who may ask for it, what is done
//! when, and what happens when it fails.
//!
//! ```text
//!          asked            ready              serving            nothing is left
//! serving ──────> preparing ─────> letting go ────────> outgoing ────────────────> gone
//!    ^               │                 │                    │
//!    └───────────────┴─────────────────┴────────────────────┘
//!      failed, or the successor is lost within upgrade.take_back
//! ```

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::elders::Word;
use super::outgoing::{Left, Line, News, Over};
use super::predecessor;
use super::prepare::{Offer, Origin, Prepared, prepare};
use crate::admin::Progress;
use crate::drain::{Deadline, Phase};
use crate::handoff::{Channel, Given, GivenKind, Launched, Message, Welcome};
use crate::handoff::{VERSION, launch::program};
use crate::lifecycle::Event as Happened;
use crate::limits::{
    ELDER_REPORT, HANDOFF_WORDS, LAST_MOMENT, LETTING_GO, REAP, SETTLE, SETTLING_TURNS,
};
use crate::net::Listener;
use crate::server::bind::named;
use crate::server::control::{Control, Running, done, due};
use crate::server::door::Request;
use crate::server::manager::vitals;
use crate::telemetry::{Event, Level};

/// How far a replacement has come.
#[derive(Default)]
pub(in crate::server) struct Succession {
    preparing: Option<Running<Result<Prepared, String>>>,
    /// Calls that off, by being dropped; and who waits for its end.
    call_off: Option<oneshot::Sender<()>>,
    ends: Option<oneshot::Sender<()>>,
    outgoing: Option<Outgoing>,
    /// Connections are not to go to it.
    stays: bool,
}

/// A successor that may accept.
struct Outgoing {
    /// None once the channel has ended.
    line: Option<Running<Left>>,
    news: mpsc::Receiver<News>,
    words: mpsc::Sender<Message>,
    launched: Option<Launched>,
    pid: u32,
    released: Vec<String>,
    /// When we let go, and since when it serves.
    began: Instant,
    serving: Option<Instant>,
    /// When it should have.
    late: Instant,
    /// It can not be undone any more.
    committed: bool,
    reported: Instant,
    /// What was told last of what has moved.
    told: Option<Progress>,
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
        !self.stays
            && self.outgoing.as_ref().is_some_and(|out| out.line.is_some() && out.serving.is_some())
    }

    /// Whether the process may end as soon as it is empty: a successor that dies at
    /// once should find somebody who takes back.
    pub(in crate::server) fn is_settled(&self, now: Instant) -> bool {
        let Some(out) = &self.outgoing else { return true };
        out.line.is_none() || out.serving.is_some_and(|since| now >= since + SETTLE)
    }

    /// Calls a successor off that is not ready yet, and says when nothing of it is left.
    pub(in crate::server) fn call_off(&mut self) -> Option<oneshot::Receiver<()>> {
        self.preparing.as_ref()?;
        self.call_off = None;
        let (ends, ended) = oneshot::channel();
        self.ends = Some(ends);
        Some(ended)
    }

    /// Whether there is a successor that may accept.
    pub(in crate::server) fn has_let_go(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|out| out.line.is_some())
    }

    /// Connections are not to go to the successor any more.
    fn stays(&mut self) {
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
            left = done(&mut out.line) => Step::Left(left),
            () = due(due_at) => Step::Due,
        }
    }
}

impl Outgoing {
    fn due(&self, take_back: Deadline, commit: Duration) -> Deadline {
        let report = Deadline::at(self.reported + ELDER_REPORT);
        let report = if self.line.is_some() { report } else { Deadline::NEVER };
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

impl Control {
    /// Somebody has asked for it over the admin listener.
    pub(in crate::server) fn requested(&mut self, request: Request) {
        let Request { binary, watcher } = request;
        if let Err(error) = self.overview.may_be_replaced(true) {
            // Two have asked at once; the watcher is its own.
            let _gone = watcher.try_send(Progress::Failed { error });
            return;
        }
        self.watchers = vec![watcher];
        self.upgrade(binary);
    }

    /// A signal has asked for it.
    pub(in crate::server) fn signalled(&mut self) {
        match self.overview.may_be_replaced(true) {
            Ok(()) => self.upgrade(None),
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &str) {
        let event = Event::new(Level::Warn, "upgrade_refused").with("error", error.to_owned());
        self.events.emit(event);
    }

    /// Replaces this process by a fresh one of a binary; of its own, if none is named.
    fn upgrade(&mut self, binary: Option<PathBuf>) {
        let Some(binary) = binary.or_else(|| self.program.binary.clone()) else {
            return self.upgrade_failed("the path of this program is not known");
        };
        match Origin::start(&binary, &self.program.arguments) {
            Ok(origin) => {
                let (pid, binary) = (origin.pid(), binary.display().to_string());
                let event = Event::new(Level::Info, "upgrade_started").with("pid", pid);
                self.events.emit(event.with("binary", binary.clone()));
                self.tell_watchers(&Progress::Starting { pid, binary });
                self.begin(origin);
            }
            Err(error) => {
                self.upgrade_failed(&format!("cannot start {}: {error}", binary.display()));
            }
        }
    }

    /// Hands over to somebody who asks for it.
    pub(in crate::server) fn asked_for(&mut self, asked: std::io::Result<Channel>) {
        let channel = match asked {
            Ok(channel) => channel,
            Err(error) => {
                let event = Event::new(Level::Warn, "takeover_accept_failed");
                let event = event.with("error", error.to_string());
                self.events.limited("takeover_accept_failed", Duration::from_secs(60), event);
                return;
            }
        };
        if let Err(error) = self.overview.may_be_replaced(false) {
            self.refused(&error);
            tokio::task::spawn_local(async move {
                let _gone = channel.send(&Message::Refused { error }, &[], &[]).await;
            });
            return;
        }
        let peer = channel.peer().ok().and_then(|peer| peer.pid);
        let event = Event::new(Level::Info, "upgrade_started");
        self.events.emit(match peer {
            Some(pid) => event.with("pid", pid).with("asked", true),
            None => event.with("asked", true),
        });
        self.begin(Origin { channel, launched: None });
    }

    fn begin(&mut self, origin: Origin) {
        self.overview.succession.set(Some("another upgrade is under way"));
        self.manager.notifier.upgrade_begins();
        let offer = self.offer().map_err(|error| format!("cannot copy a socket: {error}"));
        let (call_off, called_off) = oneshot::channel();
        self.succession.call_off = Some(call_off);
        let timeout = self.config.upgrade.timeout;
        self.succession.preparing = Some(Box::pin(prepare(origin, offer, timeout, called_off)));
    }

    /// Copies of everything that a successor may need before it can serve.
    fn offer(&self) -> std::io::Result<Offer> {
        let given = |kind, name, keeper| Given { kind, name, keeper };
        let mut sockets = Vec::new();
        for listener in &self.listeners {
            let fd = listener.as_fd().try_clone_to_owned()?;
            sockets.push((
                given(GivenKind::Listener, listener.name().to_owned(), listener.keeper()),
                fd,
            ));
        }
        if let Some(admin) = &self.admin {
            let fd = admin.copy.try_clone()?;
            let name = self.config.admin.as_ref().map(ToString::to_string).unwrap_or_default();
            sockets.push((given(GivenKind::Admin, name, admin.keeper), fd));
        }
        if let Some(takeover) = &self.takeover {
            let fd = takeover.as_fd().try_clone_to_owned()?;
            let name = takeover.path().display().to_string();
            sockets.push((given(GivenKind::Takeover, name, None), fd));
        }
        sockets.extend(self.elders.channels()?);
        let overview = &self.overview;
        let keys = self.tickets.as_ref().and_then(|tickets| tickets.keys());
        let counted = overview.own_totals().tally();
        let welcome = Welcome {
            protocol: VERSION,
            generation: overview.generation + 1,
            pid: std::process::id(),
            tickets: keys.map(predecessor::tickets).unwrap_or_default(),
            counted: overview.ledger.borrow().with(overview.generation, counted),
        };
        Ok(Offer { welcome, sockets })
    }

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
                if let Some(ends) = self.succession.ends.take() {
                    let _nobody_waits = ends.send(());
                }
                None
            }
            Step::News(news) => self.hear(news),
            Step::Left(left) => self.lose(left).await,
            Step::Due => self.look_after_successor().await,
        }
    }

    fn tell_watchers(&mut self, progress: &Progress) {
        // One that does not read has room for every step there is.
        self.watchers.retain(|watcher| watcher.try_send(progress.clone()).is_ok());
    }

    /// What an elder says.
    pub(in crate::server) async fn heard(
        &mut self,
        generation: u32,
        word: Word,
    ) -> Option<Happened> {
        match word {
            Word::State(state) => {
                let counted = state.counted.clone();
                self.overview.ledger.borrow_mut().note(generation, counted);
                self.elders.note(generation, state);
            }
            Word::Released => self.elders.released(generation),
            Word::Main => self.is_main(),
            Word::Gone => {
                self.overview.ledger.borrow_mut().close(generation);
                if self.elders.remove(generation) {
                    // There is nobody left who could name this process.
                    self.is_main();
                }
                let event = Event::new(Level::Info, "elder_gone");
                self.events.emit(event.with("generation", generation));
            }
        }
        self.overview.elders.replace(self.elders.states());
        if self.elders.hold_nothing() && !self.succession.has_let_go() {
            self.own_doors();
        }
        None
    }

    fn is_main(&mut self) {
        if self.manager.notifier.is_main(vitals(&self.overview))
            && let Some(out) = &self.succession.outgoing
        {
            let _gone = out.words.try_send(Message::Main);
        }
    }

    fn upgrade_failed(&mut self, error: &str) {
        let event = Event::new(Level::Error, "upgrade_failed").with("error", error.to_owned());
        let message = "this process goes on";
        self.events.emit(event.with("message", message));
        self.tell_watchers(&Progress::Failed { error: error.to_owned() });
        self.watchers.clear();
        self.manager.notifier.upgrade_failed(error);
        self.overview.succession.set(None);
    }

    /// The successor can serve: from now on our elders talk to it, and it may accept.
    async fn let_go(&mut self, prepared: Prepared) {
        let Prepared { channel, launched, pid, version, released } = prepared;
        let Some(departures) = self.departures.take() else { return };
        let event = Event::new(Level::Info, "upgrade_ready").with("pid", pid);
        self.events.emit(event.with("version", version.clone()));
        self.tell_watchers(&Progress::Ready { pid, version });
        // What is shown after our last word to the successor would be more than it knows.
        self.leave_doors();
        for _ in 0..SETTLING_TURNS {
            tokio::task::yield_now().await;
        }
        self.elders.pause().await;
        let why = "this process has been replaced already; ask its successor";
        self.overview.succession.set(Some(why));
        let (tell, news) = mpsc::channel(HANDOFF_WORDS);
        let (words, said) = mpsc::channel(HANDOFF_WORDS);
        let counters = Arc::clone(&self.overview.counted_here);
        let line = Line { channel, departures, news: tell, words: said, counters };
        let now = Instant::now();
        self.succession.outgoing = Some(Outgoing {
            line: Some(Box::pin(line.run(self.go()))),
            news,
            words,
            launched,
            pid,
            released,
            began: now,
            serving: None,
            late: now + LETTING_GO.min(self.config.upgrade.timeout),
            committed: false,
            reported: now,
            told: None,
        });
    }

    /// All that is known now.
    fn go(&self) -> Message {
        let ours = self.overview.elder_state();
        let counted = ours.counted.clone();
        let counted = self.overview.ledger.borrow().with(self.overview.generation, counted);
        let elders = self.elders.states().into_iter().chain([ours]).collect();
        Message::Go { counted, elders }
    }

    /// It comes too late.
    async fn refuse(&mut self, prepared: Prepared) {
        let error = "this process is being stopped".to_owned();
        let refused = Message::Refused { error: error.clone() };
        let _gone = prepared.channel.send(&refused, &[], &[]).await;
        if let Some(launched) = prepared.launched {
            let _late = tokio::time::timeout(REAP, launched.abort()).await;
        }
        self.upgrade_failed(&error);
    }

    fn hear(&mut self, news: News) -> Option<Happened> {
        match news {
            News::Serving => return self.handed_over(),
            News::Here(pid) => self.is_with(pid),
            News::Release(names) => {
                // It is about to stop, and whoever went there would not stay long.
                self.release(&names);
                self.succession.stays();
                self.tell_to_stay();
            }
            // That, or there are too many of us.
            News::Leave => return Some(Happened::Leave),
            News::Unmovable(departure) => {
                let event = Event::new(Level::Error, "connection_lost");
                self.events.emit(event.with("why", "no packet takes it"));
                drop(departure);
            }
        }
        None
    }

    /// The successor accepts: what we still have goes there, or has much time.
    fn handed_over(&mut self) -> Option<Happened> {
        let out = self.succession.outgoing.as_mut()?;
        out.serving.get_or_insert_with(Instant::now);
        let (pid, generation) = (out.pid, self.overview.generation + 1);
        let event = Event::new(Level::Info, "upgrade_serving").with("pid", pid);
        self.events.emit(event.with("generation", generation));
        self.tell_watchers(&Progress::Serving { pid, generation });
        self.stopping.reason.get_or_insert("upgrade");
        Some(Happened::HandedOver)
    }

    /// Its own successor goes on in the successor's place, or itself again: it is that one
    /// who stays.
    fn is_with(&mut self, pid: u32) {
        if let Some(out) = self.succession.outgoing.as_mut().filter(|out| out.pid != pid) {
            out.pid = pid;
            out.serving = out.serving.map(|_| Instant::now());
        }
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

    /// Lets the workers accept again, and the admin listener answer.
    pub(in crate::server) fn open_again(&mut self) {
        self.bind_again();
        let opened = self.workers.as_mut().map(|workers| workers.open(&self.listeners));
        if let Some(Err(error)) = opened {
            let event = Event::new(Level::Error, "accept_failed").with("error", error.to_string());
            self.events.emit(event);
        }
        self.own_doors();
    }

    /// Listeners that were closed because the successor had no use for them.
    fn bind_again(&mut self) {
        for (listen, secure, name) in named(&self.config) {
            if self.listeners.iter().any(|listener| listener.name() == name) {
                continue;
            }
            match Listener::bind(listen, secure) {
                Ok(listener) => self.listeners.push(listener.named(name)),
                Err(error) => {
                    let event = Event::new(Level::Error, "listener_lost").with("addr", name);
                    self.events.emit(event.with("error", error.to_string()));
                }
            }
        }
    }

    async fn look_after_successor(&mut self) -> Option<Happened> {
        let now = Instant::now();
        if self.take_back_until().is_over(now) {
            let names: Vec<_> = self.listeners.iter().map(|one| one.name().to_owned()).collect();
            self.release(&names);
        }
        let state = self.overview.elder_state();
        let out = self.succession.outgoing.as_mut()?;
        if out.serving.is_none() && now >= out.late {
            // It does not do what it was let to do.
            let error = format!("it was let go and has not accepted in {:?}", now - out.began);
            out.late = now + LETTING_GO;
            let _gone = out.words.try_send(Message::Refused { error });
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
        if std::mem::replace(&mut out.committed, true) || out.line.is_none() {
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

    /// The channel has ended: either all is done, or the successor is lost.
    async fn lose(&mut self, left: Left) -> Option<Happened> {
        let Left { departures, ours, over } = left;
        self.departures = Some(departures);
        let bound = self.take_back_until();
        let out = self.succession.outgoing.as_mut()?;
        let serving = out.serving;
        // The service manager would end this process with the one it knows.
        let committed = out.committed && self.manager.notifier.is_heard();
        let stops = self
            .overview
            .state
            .borrow()
            .stop
            .is_some_and(|stop| stop.by == crate::drain::Plan::Stop);
        let in_time = serving.is_none()
            || (!bound.is_over(Instant::now()) && !self.listeners.is_empty() && !committed);
        // It may hang: it must not come back.
        let why = end(out.launched.take(), over).await;
        let error = format!("the successor (pid {}) is lost: {why}", out.pid);
        let event = Event::new(Level::Error, "upgrade_lost").with("error", error.clone());
        self.events.emit(event.with("returned", ours.len()).with("taken_back", in_time && !stops));
        if in_time && !stops {
            self.succession.outgoing = None;
            self.upgrade_failed(&error);
            self.own_doors();
            self.elders.resume();
            self.returned = ours;
            return serving.map(|_| Happened::TakenBack);
        }
        self.returned = ours;
        if stops && !self.listeners.is_empty() {
            // Nobody else holds them now.
            let listeners = std::mem::take(&mut self.listeners);
            self.close_some(listeners, std::future::ready(true));
        }
        self.tell_to_stay();
        None
    }

    /// The last words to the successor: it is on its own.
    pub(in crate::server) async fn bid_farewell(&mut self) {
        self.commit().await;
        let state = self.overview.elder_state();
        let Some(out) = self.succession.outgoing.as_mut() else { return };
        let Some(line) = out.line.take() else { return };
        let words = out.words.clone();
        let farewell = async {
            let _gone = words.send(Message::Bye(state)).await;
            line.await
        };
        let _late = tokio::time::timeout(REAP, farewell).await;
        self.tell_watchers(&Progress::Gone);
    }
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

/// What this process was started as.
pub(in crate::server) struct Program {
    /// Where the binary is found, now and after it was replaced.
    pub(in crate::server) binary: Option<PathBuf>,
    /// What it was called with.
    pub(in crate::server) arguments: Vec<OsString>,
}

impl Program {
    /// As the process was called.
    pub(in crate::server) fn of_this_process() -> Self {
        Program { binary: program().ok(), arguments: std::env::args_os().skip(1).collect() }
    }
}
