//! The elders of a process that serves: they hand over what they still have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};

use super::follower::Follower;
use crate::handoff::{Channel, Given, GivenKind, Message, State};
use crate::limits::{HANDOFF_WORDS, RELEASE};
pub(in crate::server) use crate::server::arrivals::Port;

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
    /// So many connections that it had sent could not be taken: they were closed.
    Orphans(usize),
    /// It is gone, by its own word or without one.
    Gone,
}

/// All of them.
pub(in crate::server) struct Elders {
    all: BTreeMap<u32, Elder>,
    words: mpsc::Receiver<(u32, Word)>,
    speak: mpsc::Sender<(u32, Word)>,
    /// What they had said before nobody listened to them any more.
    said: VecDeque<(u32, Word)>,
    /// Those that may still hold copies of our listeners.
    holding: Rc<watch::Sender<BTreeSet<u32>>>,
    pause: watch::Sender<bool>,
    port: Port,
}

struct Elder {
    channel: Rc<Channel>,
    task: Option<JoinHandle<()>>,
    state: State,
    /// As far as the control thread has heard: what else an elder has said comes first.
    holds: bool,
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
            (generation, Elder { channel: Rc::new(channel), task: None, state, holds: true })
        };
        let all = channels.into_iter().map(elder).collect();
        let (said, pause) = (VecDeque::new(), watch::Sender::new(true));
        Elders { all, words, speak, said, holding, pause, port }
    }

    /// Listens to all of them.
    pub(in crate::server) fn resume(&mut self) {
        self.pause.send_replace(false);
        let idle = self.all.iter_mut().filter(|(_, elder)| elder.task.is_none());
        for (generation, elder) in idle {
            let follower = Follower {
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

    /// Listens to none of them any more: what they say now is for somebody else. They are
    /// told before: nobody acknowledges anything until somebody listens again.
    pub(in crate::server) async fn pause(&mut self) {
        for elder in self.all.values() {
            // One that stands still, or has ended, waits for nothing.
            let _gone = elder.channel.say(&Message::Hold).await;
        }
        self.pause.send_replace(true);
        for mut task in self.all.values_mut().filter_map(|elder| elder.task.take()) {
            loop {
                tokio::select! {
                    biased;
                    // One that panicked has nothing more to say.
                    _ended = &mut task => break,
                    // It may wait for room.
                    Some(word) = self.words.recv() => self.said.push_back(word),
                }
            }
        }
    }

    /// What one of them says. Never ends.
    pub(in crate::server) async fn next(&mut self) -> (u32, Word) {
        if let Some(word) = self.said.pop_front() {
            return word;
        }
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

    /// Takes note that one has closed its copies of our listeners.
    pub(in crate::server) fn released(&mut self, generation: u32) {
        if let Some(elder) = self.all.get_mut(&generation) {
            elder.holds = false;
        }
    }

    /// Whether none of them has copies of our listeners any more.
    pub(in crate::server) fn hold_nothing(&self) -> bool {
        !self.all.values().any(|elder| elder.holds)
    }

    /// Tells the youngest that this process accepts.
    pub(in crate::server) async fn say_serving(&self) {
        if let Some(elder) = self.all.values().next_back() {
            // One that is gone sees nothing more.
            let _gone = elder.channel.say(&Message::Serving).await;
        }
    }

    /// Has nothing to do with them any more. What they have just sent is still taken.
    pub(in crate::server) fn part(&mut self) {
        self.pause.send_replace(true);
        self.all.clear();
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
            let _gone = elder.channel.say(&Message::Leave).await;
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
                let _gone = channel.say(&release).await;
                let _gone = channel.say(&Message::Leave).await;
            }
            let released = holding.wait_for(BTreeSet::is_empty);
            tokio::time::timeout(RELEASE, released).await.is_ok_and(|released| released.is_ok())
        }
    }
}
