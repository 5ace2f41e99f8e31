//! Who listens to one elder: takes its connections, and passes on what else it says.

use std::collections::BTreeSet;
use std::rc::Rc;

use tokio::sync::{mpsc, watch};

use super::elders::{Port, Word};
use crate::handoff::{Broken, Channel, Message, Parcel, Received, parcels};

/// Who listens to one elder.
pub(super) struct Follower {
    /// Those that may still hold copies of our listeners.
    pub(super) holding: Rc<watch::Sender<BTreeSet<u32>>>,
    pub(super) generation: u32,
    pub(super) channel: Rc<Channel>,
    pub(super) speak: mpsc::Sender<(u32, Word)>,
    pub(super) port: Port,
    pub(super) turn: usize,
}

impl Follower {
    /// Listens until there is nothing more to hear, or others are to listen.
    pub(super) async fn run(mut self, mut paused: watch::Receiver<bool>) {
        // To one that was another process's elder, or is again, this is news.
        let generation = self.port.overview.generation;
        let _gone = self.channel.say(&Message::Here { pid: std::process::id(), generation }).await;
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

    async fn hear(&mut self, received: Received) -> Vec<Word> {
        let Received { message, fds, octets } = received;
        let (batch, connections) = match message {
            Message::Connections { batch, connections } => (batch, connections),
            other => return self.note(other).await,
        };
        let parcels = match parcels(connections, fds, &octets) {
            Ok(parcels) => parcels,
            Err(error) => return self.decline(error.to_string()).await,
        };
        match self.channel.say(&Message::Ack { batch }).await {
            Ok(()) => self.deliver(parcels).await,
            Err(error) if error.is_end() => self.last_words(parcels).await,
            // It stands still, and has it still when it goes on.
            Err(error) => self.decline(error.to_string()).await,
        }
    }

    /// What is no connection.
    async fn note(&self, message: Message) -> Vec<Word> {
        match message {
            Message::State(state) => vec![Word::State(state)],
            Message::Released { .. } => vec![Word::Released],
            Message::Main => vec![Word::Main],
            Message::Refused { error } => vec![Word::Replaced(error), Word::Gone],
            Message::Kept { error } => vec![Word::Odd(error), Word::Gone],
            Message::Bye(state) => vec![Word::State(state), Word::Gone],
            other => self.decline(format!("{} out of turn", other.name())).await,
        }
    }

    /// The elder hears nothing any more, so that these could not be acknowledged. Whose they
    /// are, and those behind them, its last word says: if it is that they stay with it, they
    /// do. Else they are ours: it has ended, and nobody else has them.
    async fn last_words(&mut self, mut ours: Vec<Parcel>) -> Vec<Word> {
        let (mut said, mut broken) = (Vec::new(), 0);
        loop {
            let Received { message, fds, octets } = match self.channel.recv().await {
                Ok(Some(received)) => received,
                Err(Broken::Malformed(_)) => {
                    broken += 1;
                    continue;
                }
                Ok(None) | Err(Broken::Io(_)) => break,
            };
            match message {
                Message::Connections { connections, .. } => {
                    match parcels(connections, fds, &octets) {
                        Ok(parcels) => ours.extend(parcels),
                        Err(_) => broken += 1,
                    }
                }
                message => {
                    if let Message::Refused { .. } | Message::Kept { .. } = message {
                        (ours, broken) = (Vec::new(), 0);
                    }
                    said.extend(self.note(message).await);
                    if said.iter().any(|word| matches!(word, Word::Gone)) {
                        break;
                    }
                }
            }
        }
        let mut words = self.deliver(ours).await;
        if broken > 0 {
            words.push(Word::Orphans(broken));
        }
        words.extend(said.into_iter().filter(|word| !matches!(word, Word::Gone)));
        words.push(Word::Gone);
        words
    }

    /// Takes nothing more from it, and says so: what it still has is its own.
    async fn decline(&self, error: String) -> Vec<Word> {
        let _gone = self.channel.say(&Message::Refused { error: error.clone() }).await;
        vec![Word::Odd(error), Word::Gone]
    }

    /// Gives connections that are ours to the workers.
    async fn deliver(&mut self, parcels: Vec<Parcel>) -> Vec<Word> {
        let mut lost = 0;
        for parcel in parcels {
            self.turn += 1;
            lost += usize::from(!self.port.deliver(parcel, self.turn).await);
        }
        if lost == 0 { Vec::new() } else { vec![Word::Orphans(lost)] }
    }
}
