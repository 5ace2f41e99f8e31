//! The elder's side from the moment when the successor may accept: connections go over in
//! batches. Whose a batch is that was not acknowledged when no more can go over, the last
//! word says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::drain::{Deadline, Hold};
use crate::handoff::{Batch, Broken, Channel, Message};
use crate::limits::{HANDOFF_ACK, HANDOFF_BATCH, HANDOFF_HOLD, HANDOFF_WINDOW};
use crate::serve::Departure;
use crate::server::control::due;
use crate::telemetry::{ConnectionState, Counters, MovedKind};

/// What the successor says.
pub(in crate::server) enum News {
    /// It accepts.
    Serving,
    /// This process, of this generation, is at the other end.
    Here { pid: u32, generation: u32 },
    /// It wants our copies of these listeners closed.
    Release(Vec<String>),
    /// It wants us gone soon.
    Leave,
    /// No packet takes this connection. Its worker sees to it that there is none.
    Unmovable(Departure),
}

/// What is left when no more can go over.
pub(in crate::server) struct Left {
    pub(super) departures: mpsc::Receiver<Departure>,
    pub(super) over: Over,
    /// The successor has asked us to leave before.
    pub(super) dismissed: bool,
    pub(super) rest: Rest,
}

/// What the successor has not acknowledged, and the channel, on which the last word is
/// still to be said.
pub(super) struct Rest {
    channel: Channel,
    load: Load,
    counters: Arc<Counters>,
}

/// What has become of that.
pub(super) struct Kept {
    pub(super) ours: Vec<Departure>,
    /// How many are the successor's, whatever becomes of it.
    pub(super) taken: usize,
    /// How many connections are nobody's, since the other could not be told: those are
    /// closed.
    pub(super) lost: usize,
    /// Not read any more, so that it shows whether somebody still has the other end; none
    /// where that could not be told.
    pub(super) channel: Option<Channel>,
}

/// The channel to the successor, and what is on its way.
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) departures: mpsc::Receiver<Departure>,
    pub(super) news: mpsc::Sender<News>,
    /// What we have to say, besides connections. `Bye` and `Refused` are the
    /// last word.
    pub(super) words: mpsc::Receiver<Message>,
    /// The control thread's own.
    pub(super) counters: Arc<Counters>,
}

/// Why no more can go over.
pub(in crate::server) enum Over {
    /// All is said.
    Bye,
    /// We do not want it any more.
    Refused(String),
    /// It goes on without what we still have.
    Declined(String),
    Ended,
    Broken(Broken),
    /// What came is not to be understood now.
    OutOfTurn(&'static str),
    /// It has left this unsaid or undone for too long.
    Late(&'static str),
}

impl From<Broken> for Over {
    fn from(error: Broken) -> Self {
        if error.is_end() { Over::Ended } else { Over::Broken(error) }
    }
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Over::Bye => f.write_str("we have said goodbye"),
            Over::Refused(error) => f.write_str(error),
            Over::Declined(error) => write!(f, "it takes nothing more: {error}"),
            Over::Ended => f.write_str("it has ended"),
            Over::Broken(error) => error.fmt(f),
            Over::OutOfTurn(name) => write!(f, "it said {name} out of turn"),
            Over::Late(what) => f.write_str(what),
        }
    }
}

impl Line {
    /// Lets the successor accept, and hands connections over until it or we are done.
    pub(super) async fn run(mut self, go: Message) -> Left {
        let mut load = Load::default();
        let mut heard = VecDeque::new();
        let over = match self.drive(go, &mut load, &mut heard).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        let untold = heard.iter().any(|news| matches!(news, News::Release(_) | News::Leave));
        let Line { channel, departures, counters, .. } = self;
        let mut rest = Rest { channel, load, counters };
        let dismissed = rest.hear() || untold;
        Left { departures, over, dismissed, rest }
    }

    async fn drive(
        &mut self,
        go: Message,
        load: &mut Load,
        heard: &mut VecDeque<News>,
    ) -> Result<Infallible, Over> {
        let mut unsaid = VecDeque::from([go]);
        let mut came = Vec::new();
        let mut ended = false;
        loop {
            let (late, why) = load.late();
            let takes = load.takes();
            tokio::select! {
                biased;
                received = self.channel.recv() => {
                    let received = received?.ok_or(Over::Ended)?;
                    heard.extend(self.hear(received.message, load)?);
                }
                // Behind all that has come: one that has ended wants nothing any more.
                () = std::future::ready(()), if !heard.is_empty() => {
                    for news in heard.drain(..) {
                        let _nobody_asks = self.news.send(news).await;
                    }
                }
                said = say(&self.channel, unsaid.front()) => {
                    said?;
                    unsaid.pop_front();
                }
                Some(message) = self.words.recv() => match message {
                    Message::Refused { error } => return Err(Over::Refused(error)),
                    Message::Bye(_) => {
                        // One that is gone has what was sent, and misses nothing.
                        let _gone = self.channel.last_word(&message);
                        return Err(Over::Bye);
                    }
                    Message::State(_) => {
                        // One that is behind hears the next one.
                        let _behind = self.channel.try_send(&message);
                    }
                    word => unsaid.push_back(word),
                },
                sent = load.send(&self.channel) => {
                    sent?;
                    load.is_sent();
                }
                () = std::future::ready(()), if takes && !load.waiting.is_empty() => {
                    heard.extend(load.pack().map(News::Unmovable));
                }
                some = self.departures.recv_many(&mut came, HANDOFF_BATCH), if takes && !ended => {
                    ended = some == 0;
                    load.waiting.extend(came.drain(..));
                }
                () = due(late) => return Err(Over::Late(why)),
            }
        }
    }

    fn hear(&self, message: Message, load: &mut Load) -> Result<Option<News>, Over> {
        let news = match message {
            Message::Ack { batch } => {
                load.acknowledge(batch, &self.counters);
                return Ok(None);
            }
            Message::Hold => {
                load.held = Some(now());
                return Ok(None);
            }
            Message::Here { pid, generation } => {
                load.resume();
                News::Here { pid, generation }
            }
            Message::Serving => News::Serving,
            Message::Release { names } => News::Release(names),
            Message::Leave => News::Leave,
            Message::Refused { error } => return Err(Over::Declined(error)),
            other => return Err(Over::OutOfTurn(other.name())),
        };
        Ok(Some(news))
    }
}

/// Sends a word; never ends if there is none.
async fn say(channel: &Channel, word: Option<&Message>) -> Result<(), Over> {
    match word {
        Some(word) => Ok(channel.send(word, &[], &[]).await?),
        None => std::future::pending().await,
    }
}

/// By the clock of the runtime, by which it waits.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Rest {
    /// Takes note of what has come meanwhile; whether the successor has asked us to leave.
    fn hear(&mut self) -> bool {
        let mut dismissed = false;
        loop {
            let message = match self.channel.try_recv() {
                Ok(Some(received)) => received.message,
                // An acknowledgement may stand behind it.
                Err(Broken::Malformed(_)) => continue,
                Ok(None) | Err(Broken::Io(_)) => return dismissed,
            };
            match message {
                Message::Ack { batch } => self.load.acknowledge(batch, &self.counters),
                Message::Release { .. } | Message::Leave => dismissed = true,
                _ => {}
            }
        }
    }

    /// Says the last word: what is not acknowledged is ours, and whether this process goes
    /// on in the successor's place.
    pub(super) fn keep(mut self, over: &Over, goes_on: bool) -> Kept {
        let error = over.to_string();
        let goes_on = goes_on || matches!(over, Over::Refused(_));
        let word = if goes_on { Message::Refused { error } } else { Message::Kept { error } };
        let said = self.channel.last_word(&word);
        // From here on it cannot acknowledge anything.
        self.hear();
        let unheard = said.is_err_and(|error| !error.is_end());
        let knows = !unheard || matches!(over, Over::Declined(_));
        let Load { open, packed, waiting, taken, .. } = self.load;
        let (open, lost) = if knows { (open, VecDeque::new()) } else { (VecDeque::new(), open) };
        let ours = open.into_iter().chain(packed).flat_map(Sent::into_departures).chain(waiting);
        let lost = lost.iter().map(|sent| sent.riders.len()).sum();
        Kept { ours: ours.collect(), taken, lost, channel: (!unheard).then_some(self.channel) }
    }
}

/// Connections that go, and how far each of them has come.
#[derive(Default)]
struct Load {
    waiting: VecDeque<Departure>,
    /// The next batch; there may be no room for it at the moment.
    packed: Option<Sent>,
    /// What was sent, and not acknowledged.
    open: VecDeque<Sent>,
    /// The number of the last batch.
    number: u64,
    /// How many connections the successor has acknowledged.
    taken: usize,
    /// Since when nobody reads at the other end.
    held: Option<Instant>,
    /// How many have said that they read there, one after the other.
    readers: u32,
}

/// A batch that was sent.
struct Sent {
    number: u64,
    at: Instant,
    batch: Batch,
    /// What each is counted as, and what keeps the drain open until the successor has it.
    riders: Vec<(MovedKind, Hold<ConnectionState>)>,
}

impl Load {
    /// When the successor is given up, and why.
    fn late(&self) -> (Deadline, &'static str) {
        if let Some(since) = self.held {
            let why = "nobody has come in its place since it said that it would not read";
            return (Deadline::after(since, HANDOFF_HOLD), why);
        }
        let oldest = self.open.front().or(self.packed.as_ref());
        // One that came in the place of another may be ended by that one if it stalls, which
        // takes as long as a hold; then that one reads again.
        let patience = if self.readers > 1 { HANDOFF_HOLD } else { HANDOFF_ACK };
        let late = oldest.map(|sent| Deadline::after(sent.at, patience));
        let why = "it has not taken over in time what was sent to it";
        (late.unwrap_or(Deadline::NEVER), why)
    }

    /// Whether one more batch may be made.
    fn takes(&self) -> bool {
        self.held.is_none() && self.packed.is_none() && self.open.len() < HANDOFF_WINDOW
    }

    /// Makes a batch of as many as go into one packet; or gives back one that goes into none.
    fn pack(&mut self) -> Option<Departure> {
        let (mut batch, mut riders) = (Batch::default(), Vec::new());
        while let Some(Departure { parcel, kind, hold }) = self.waiting.pop_front() {
            match batch.push(parcel) {
                Ok(()) => riders.push((kind, hold)),
                Err(parcel) => {
                    let departure = Departure { parcel, kind, hold };
                    if batch.is_empty() {
                        return Some(departure);
                    }
                    self.waiting.push_front(departure);
                    break;
                }
            }
        }
        self.number += 1;
        self.packed = Some(Sent { number: self.number, at: now(), batch, riders });
        None
    }

    /// Sends the next batch; never ends if there is none, or nobody reads.
    async fn send(&self, channel: &Channel) -> Result<(), Over> {
        match self.packed.as_ref().filter(|_| self.held.is_none()) {
            Some(sent) => {
                let (message, fds, octets) = sent.batch.message(sent.number);
                Ok(channel.send(&message, &fds, octets).await?)
            }
            None => std::future::pending().await,
        }
    }

    fn is_sent(&mut self) {
        self.open.extend(self.packed.take());
    }

    /// Somebody reads again, who has seen nothing yet.
    fn resume(&mut self) {
        self.held = None;
        self.readers = self.readers.saturating_add(1);
        let now = now();
        for sent in self.open.iter_mut().chain(&mut self.packed) {
            sent.at = now;
        }
    }

    /// A batch is the successor's: our copies are closed.
    fn acknowledge(&mut self, number: u64, counters: &Counters) {
        let Some(at) = self.open.iter().position(|sent| sent.number == number) else { return };
        for (kind, _) in self.open.remove(at).iter().flat_map(|sent| &sent.riders) {
            self.taken += 1;
            counters.moved(*kind);
        }
    }
}

impl Sent {
    fn into_departures(self) -> impl Iterator<Item = Departure> {
        let parcels = self.batch.into_parcels().into_iter();
        parcels.zip(self.riders).map(|(parcel, (kind, hold))| Departure { parcel, kind, hold })
    }
}
