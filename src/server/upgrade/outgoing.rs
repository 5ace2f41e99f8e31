//! The elder's side from the moment when the successor may accept: connections go over in
//! batches, and what was not acknowledged when the successor ends is still ours.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{Shutdown, shutdown};
use tokio::sync::mpsc;

use crate::drain::Deadline;
use crate::drain::Hold;
use crate::handoff::{Batch, Broken, Channel, Message};
use crate::limits::{HANDOFF_ACK, HANDOFF_BATCH, HANDOFF_WINDOW};
use crate::serve::Departure;
use crate::server::control::due;
use crate::telemetry::{ConnectionState, Counters, MovedKind};

/// What the successor says.
pub(in crate::server) enum News {
    /// It accepts.
    Serving,
    /// This process is at the other end.
    Here(u32),
    /// It wants our copies of these listeners closed.
    Release(Vec<String>),
    /// It wants us gone soon.
    Leave,
    /// No packet takes this connection. Its worker sees to it that there is none.
    Unmovable(Departure),
}

/// What is left when the channel has ended.
pub(in crate::server) struct Left {
    pub(super) departures: mpsc::Receiver<Departure>,
    /// What is still ours.
    pub(super) ours: Vec<Departure>,
    pub(super) over: Over,
    /// Not read any more.
    pub(super) channel: Channel,
    /// The successor has asked us to leave before.
    pub(super) dismissed: bool,
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

/// A batch that was sent.
struct Sent {
    number: u64,
    at: Instant,
    batch: Batch,
    /// What each is counted as, and what keeps the drain open until the successor has it.
    riders: Vec<(MovedKind, Hold<ConnectionState>)>,
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
    /// A batch was not acknowledged in time.
    Late,
}

impl From<Broken> for Over {
    fn from(error: Broken) -> Self {
        match error {
            Broken::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => Over::Ended,
            error => Over::Broken(error),
        }
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
            Over::Late => write!(f, "it has not taken connections over in {HANDOFF_ACK:?}"),
        }
    }
}

impl Line {
    /// Lets the successor accept, and hands connections over until it or we are done.
    pub(super) async fn run(mut self, go: Message) -> Left {
        let (mut open, mut waiting) = (VecDeque::new(), VecDeque::new());
        let over = match self.drive(go, &mut open, &mut waiting).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        // From here on it cannot acknowledge anything: there is no doubt whose they are.
        let _gone = shutdown(&self.channel, Shutdown::Read);
        let mut dismissed = false;
        while let Ok(Some(received)) = self.channel.try_recv() {
            match received.message {
                Message::Ack { batch } => acknowledge(&mut open, batch, &self.counters),
                Message::Release { .. } | Message::Leave => dismissed = true,
                _ => {}
            }
        }
        let unsent = waiting.into_iter();
        let ours = open.into_iter().flat_map(Sent::into_departures).chain(unsent).collect();
        Left { departures: self.departures, ours, over, channel: self.channel, dismissed }
    }

    async fn drive(
        &mut self,
        go: Message,
        open: &mut VecDeque<Sent>,
        waiting: &mut VecDeque<Departure>,
    ) -> Result<std::convert::Infallible, Over> {
        self.say(&go).await?;
        let mut number = 0;
        let mut came = Vec::new();
        let mut ended = false;
        loop {
            let late = open.front().map_or(Deadline::NEVER, Sent::due);
            let room = open.len() < HANDOFF_WINDOW;
            tokio::select! {
                biased;
                received = self.channel.recv() => {
                    let received = received?.ok_or(Over::Ended)?;
                    self.hear(received.message, open).await?;
                }
                Some(message) = self.words.recv() => {
                    self.say(&message).await?;
                    match message {
                        Message::Bye(_) => return Err(Over::Bye),
                        Message::Refused { error } => return Err(Over::Refused(error)),
                        _ => {}
                    }
                }
                () = std::future::ready(()), if room && !waiting.is_empty() => {
                    number += 1;
                    self.send(number, open, waiting).await?;
                }
                some = self.departures.recv_many(&mut came, HANDOFF_BATCH), if room && !ended => {
                    ended = some == 0;
                    waiting.extend(came.drain(..));
                }
                () = due(late) => return Err(Over::Late),
            }
        }
    }

    async fn say(&self, message: &Message) -> Result<(), Over> {
        self.send_whole(message, &[], &[]).await
    }

    /// Sends a packet, unless nobody takes it for too long.
    async fn send_whole(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
        octets: &[u8],
    ) -> Result<(), Over> {
        let sent = tokio::time::timeout(HANDOFF_ACK, self.channel.send(message, fds, octets));
        sent.await.map_err(|_| Over::Late)?.map_err(Over::from)
    }

    /// Sends as many as go into one packet. What cannot be sent is in `open` all the same.
    async fn send(
        &self,
        number: u64,
        open: &mut VecDeque<Sent>,
        waiting: &mut VecDeque<Departure>,
    ) -> Result<(), Over> {
        let (mut batch, mut riders) = (Batch::default(), Vec::new());
        while let Some(Departure { parcel, kind, hold }) = waiting.pop_front() {
            match batch.push(parcel) {
                Ok(()) => riders.push((kind, hold)),
                Err(parcel) => {
                    waiting.push_front(Departure { parcel, kind, hold });
                    break;
                }
            }
        }
        if batch.is_empty()
            && let Some(departure) = waiting.pop_front()
        {
            let _nobody_asks = self.news.send(News::Unmovable(departure)).await;
            return Ok(());
        }
        open.push_back(Sent { number, at: Instant::now(), batch, riders });
        if let Some(sent) = open.back() {
            let (message, fds, octets) = sent.batch.message(number);
            self.send_whole(&message, &fds, octets).await?;
        }
        Ok(())
    }

    async fn hear(&self, message: Message, open: &mut VecDeque<Sent>) -> Result<(), Over> {
        let news = match message {
            Message::Ack { batch } => {
                acknowledge(open, batch, &self.counters);
                return Ok(());
            }
            Message::Serving => News::Serving,
            Message::Here { pid, .. } => News::Here(pid),
            Message::Release { names } => News::Release(names),
            Message::Leave => News::Leave,
            Message::Refused { error } => return Err(Over::Declined(error)),
            other => return Err(Over::OutOfTurn(other.name())),
        };
        let _nobody_asks = self.news.send(news).await;
        Ok(())
    }
}

impl Sent {
    fn due(&self) -> Deadline {
        Deadline::after(self.at, HANDOFF_ACK)
    }

    fn into_departures(self) -> impl Iterator<Item = Departure> {
        let parcels = self.batch.into_parcels().into_iter();
        parcels.zip(self.riders).map(|(parcel, (kind, hold))| Departure { parcel, kind, hold })
    }
}

/// A batch is the successor's: our copies are closed.
fn acknowledge(open: &mut VecDeque<Sent>, number: u64, counters: &Counters) {
    let Some(at) = open.iter().position(|sent| sent.number == number) else { return };
    for (kind, _) in open.remove(at).iter().flat_map(|sent| &sent.riders) {
        counters.moved(*kind);
    }
}
