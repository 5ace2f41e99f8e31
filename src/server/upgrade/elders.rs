//! The elders of a process that serves: they hand over what they still have.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};

use crate::handoff::{
    Channel, Given, GivenKind, Message, Parcel, Process, Received, State, parcels,
};
use crate::limits::{HANDOFF_WORDS, RELEASE, SEEN_TO_END};
use crate::serve::Delivery;
use crate::server::overview::Overview;

/// What an elder says.
pub(in crate::server) enum Word {
    /// How it is.
    State(State),
    /// It has closed its copies of these listeners.
    Released,
    /// The service manager knows us as the main process.
    Main,
    /// It goes on itself: we are not its successor any more.
    Replaced(String),
    /// It cannot be understood, or its connections not be taken.
    Odd(String),
    /// So many connections were on the way when it ended, and it is not known whose they
    /// are: they were closed.
    Orphans(usize),
    /// It is gone, by its own word or without one.
    Gone,
}

/// All of them.
pub(in crate::server) struct Elders {
    all: BTreeMap<u32, Elder>,
    words: mpsc::Receiver<(u32, Word)>,
    speak: mpsc::Sender<(u32, Word)>,
    /// Those that may still hold copies of our listeners.
    holding: Rc<watch::Sender<BTreeSet<u32>>>,
    pause: watch::Sender<bool>,
    port: Port,
}

struct Elder {
    channel: Rc<Channel>,
    task: Option<JoinHandle<()>>,
    state: State,
}

/// Where their connections go.
#[derive(Clone)]
pub(in crate::server) struct Port {
    pub(in crate::server) overview: Rc<Overview>,
    pub(in crate::server) workers: Vec<mpsc::Sender<Delivery>>,
}

impl Elders {
    /// Elders by generation, nobody listens to them yet.
    pub(in crate::server) fn new(
        channels: BTreeMap<u32, Channel>,
        states: Vec<State>,
        port: Port,
    ) -> Self {
        let (speak, words) = mpsc::channel(HANDOFF_WORDS);
        let holding = Rc::new(watch::Sender::new(channels.keys().copied().collect()));
        let elder = |(generation, channel)| {
            let known = states.iter().find(|state| state.generation == generation);
            let state = known.cloned().unwrap_or(State { generation, ..State::default() });
            (generation, Elder { channel: Rc::new(channel), task: None, state })
        };
        let all = channels.into_iter().map(elder).collect();
        Elders { all, words, speak, holding, pause: watch::Sender::new(true), port }
    }

    /// Listens to all of them.
    pub(in crate::server) fn resume(&mut self) {
        self.pause.send_replace(false);
        let idle = self.all.iter_mut().filter(|(_, elder)| elder.task.is_none());
        for (generation, elder) in idle {
            let follower = Follower {
                process: Process::of(elder.state.pid),
                holding: Rc::clone(&self.holding),
                generation: *generation,
                channel: Rc::clone(&elder.channel),
                speak: self.speak.clone(),
                port: self.port.clone(),
                turn: 0,
            };
            elder.task = Some(spawn_local(follower.run(self.pause.subscribe())));
        }
    }

    /// Listens to none of them any more: what they say now is for somebody else.
    pub(in crate::server) async fn pause(&mut self) {
        self.pause.send_replace(true);
        for elder in self.all.values_mut() {
            if let Some(task) = elder.task.take() {
                // One that panicked has nothing more to say.
                let _ended = task.await;
            }
        }
    }

    /// What one of them says. Never ends.
    pub(in crate::server) async fn next(&mut self) -> (u32, Word) {
        match self.words.recv().await {
            Some(word) => word,
            None => std::future::pending().await,
        }
    }

    /// Takes note of how one is.
    pub(in crate::server) fn note(&mut self, generation: u32, state: State) {
        if let Some(elder) = self.all.get_mut(&generation) {
            elder.state = state;
        }
    }

    /// Waits a moment until the youngest is the only one that may hold copies of our
    /// listeners: the others hear from us that they need none any more.
    pub(in crate::server) async fn older_release(&self) {
        let youngest = self.all.keys().next_back().copied();
        let mut holding = self.holding.subscribe();
        let alone = |holding: &BTreeSet<u32>| holding.iter().all(|one| Some(*one) == youngest);
        let _late = tokio::time::timeout(RELEASE, holding.wait_for(alone)).await;
    }

    /// One is gone; whether it was the last.
    pub(in crate::server) fn remove(&mut self, generation: u32) -> bool {
        self.all.remove(&generation);
        self.all.is_empty()
    }

    /// Whether there is any.
    pub(in crate::server) fn are_there(&self) -> bool {
        !self.all.is_empty()
    }

    /// Whether none of them has copies of our listeners any more.
    pub(in crate::server) fn hold_nothing(&self) -> bool {
        self.holding.borrow().is_empty()
    }

    /// Tells the youngest that this process accepts.
    pub(in crate::server) async fn say_serving(&self) {
        if let Some(elder) = self.all.values().next_back() {
            // One that is gone sees nothing more.
            let _gone = elder.channel.send(&Message::Serving, &[], &[]).await;
        }
    }

    /// Takes nothing more from any of them: this process ends.
    pub(in crate::server) fn leave(&mut self) {
        for task in self.all.values_mut().filter_map(|elder| elder.task.take()) {
            task.abort();
        }
        self.port.workers.clear();
    }

    /// How all of them are, the oldest first.
    pub(in crate::server) fn states(&self) -> Vec<State> {
        self.all.values().map(|elder| elder.state.clone()).collect()
    }

    /// Copies of their channels, for a successor.
    pub(super) fn channels(&self) -> io::Result<Vec<(Given, OwnedFd)>> {
        let copy = |(generation, elder): (&u32, &Elder)| {
            let given = Given {
                kind: GivenKind::Elder,
                name: generation.to_string(),
                keeper: None,
                file: None,
            };
            Ok((given, elder.channel.as_fd().try_clone_to_owned()?))
        };
        self.all.iter().map(copy).collect()
    }

    /// Tells the oldest to leave soon, if there are more than `most`; which those were.
    pub(in crate::server) async fn limit(&mut self, most: usize) -> Vec<u32> {
        let excess = self.all.len().saturating_sub(most);
        for elder in self.all.values().take(excess) {
            let _gone = elder.channel.send(&Message::Leave, &[], &[]).await;
        }
        self.all.keys().take(excess).copied().collect()
    }

    /// Asks all of them to close their copies of these listeners, and to leave soon: this
    /// process is about to stop. Says whether nobody holds them any more.
    pub(in crate::server) fn release(
        &mut self,
        names: Vec<String>,
    ) -> impl Future<Output = bool> + 'static {
        let channels: Vec<_> = self.all.values().map(|elder| Rc::clone(&elder.channel)).collect();
        let mut holding = self.holding.subscribe();
        async move {
            for channel in channels {
                let release = Message::Release { names: names.clone() };
                let _gone = channel.send(&release, &[], &[]).await;
                let _gone = channel.send(&Message::Leave, &[], &[]).await;
            }
            let released = holding.wait_for(BTreeSet::is_empty);
            tokio::time::timeout(RELEASE, released).await.is_ok_and(|released| released.is_ok())
        }
    }
}

/// Who listens to one elder.
struct Follower {
    /// The elder itself; none where it is not to be seen from here.
    process: Option<Process>,
    holding: Rc<watch::Sender<BTreeSet<u32>>>,
    generation: u32,
    channel: Rc<Channel>,
    speak: mpsc::Sender<(u32, Word)>,
    port: Port,
    turn: usize,
}

impl Follower {
    async fn run(mut self, mut paused: watch::Receiver<bool>) {
        // To one that was another process's elder, or is again, this is news.
        let generation = self.port.overview.generation;
        let here = Message::Here { pid: std::process::id(), generation };
        let _gone = self.channel.send(&here, &[], &[]).await;
        loop {
            // Never left between a message and its acknowledgement.
            let received = tokio::select! {
                biased;
                _ = paused.wait_for(|paused| *paused) => return,
                received = self.channel.recv() => received,
            };
            let words = match received {
                Ok(Some(received)) => self.hear(received).await,
                Ok(None) => vec![Word::Gone],
                Err(error) => self.decline(error.to_string()).await,
            };
            for word in words {
                let gone = matches!(word, Word::Gone);
                if gone || matches!(word, Word::Released) {
                    self.holding.send_if_modified(|holding| holding.remove(&self.generation));
                }
                let _nobody_asks = self.speak.send((self.generation, word)).await;
                if gone {
                    return;
                }
            }
        }
    }

    /// Takes nothing more from it, and says so: what it still has is its own.
    async fn decline(&self, error: String) -> Vec<Word> {
        let refused = Message::Refused { error: error.clone() };
        let _gone = self.channel.send(&refused, &[], &[]).await;
        vec![Word::Odd(error), Word::Gone]
    }

    async fn hear(&mut self, received: Received) -> Vec<Word> {
        let Received { message, fds, octets } = received;
        match message {
            Message::Connections { batch, connections } => {
                let parcels = match parcels(connections, fds, &octets) {
                    Ok(parcels) => parcels,
                    Err(error) => return self.decline(error.to_string()).await,
                };
                if self.is_heard(batch).await {
                    for parcel in parcels {
                        self.deliver(parcel).await;
                    }
                    Vec::new()
                } else {
                    vec![Word::Orphans(parcels.len())]
                }
            }
            Message::State(state) => vec![Word::State(state)],
            Message::Released { .. } => vec![Word::Released],
            Message::Main => vec![Word::Main],
            Message::Refused { error } => vec![Word::Replaced(error), Word::Gone],
            Message::Bye(state) => vec![Word::State(state), Word::Gone],
            other => self.decline(format!("{} out of turn", other.name())).await,
        }
    }

    /// Acknowledges a batch; whether it is ours. If nobody hears that, it is only if the
    /// elder has ended: one that lives has taken it back.
    async fn is_heard(&self, batch: u64) -> bool {
        if self.channel.send(&Message::Ack { batch }, &[], &[]).await.is_ok() {
            return true;
        }
        match &self.process {
            Some(process) => process.ends(SEEN_TO_END).await,
            None => false,
        }
    }

    async fn deliver(&mut self, parcel: Parcel) {
        self.turn += 1;
        self.port.deliver(parcel, self.turn).await;
    }
}

impl Port {
    /// Gives a connection to one of the workers; the drain sees it all the while.
    pub(in crate::server) async fn deliver(&self, parcel: Parcel, turn: usize) {
        let hold = self.overview.scope.hold();
        let worker = &self.workers[turn % self.workers.len()];
        // A worker that is gone loses what it served, and with it what it was to serve.
        let _lost = worker.send(Delivery::Arrival { parcel, hold }).await;
    }
}
