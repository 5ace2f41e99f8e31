//! The successor's side, until it serves: what it is given, and what it says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;

use super::ledger::Ledger;
use crate::handoff::path::leads_to;
use crate::handoff::{
    Channel, Given, GivenKind, Keeper, Message, Received, State, Ticket, VERSION, Welcome,
};
use crate::limits::{HANDOFF_SOCKETS_MAX, LAST_WORDS};
use crate::tls::{TicketKey, TicketKeys};

/// The process that this one takes over from, and what it has given so far.
pub(in crate::server) struct Predecessor {
    channel: Channel,
    /// This process was started by somebody else, and has asked at a path.
    asked: bool,
    /// None if it ended before it could say so.
    welcome: Option<Welcome>,
    given: Vec<(Given, OwnedFd)>,
    /// All that it had to give has come.
    whole: bool,
    /// What it has said when it let us go on.
    ledger: Ledger,
    states: Vec<State>,
}

/// Why there is nothing to take over.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The elder's own words.
    #[error("the running process does not hand over: {0}")]
    Refused(String),
    /// It speaks in a way that is not understood.
    #[error("the running process cannot be understood: {0}")]
    Broken(String),
    /// It has said nothing for so long.
    #[error("the running process has said nothing for {0:?}")]
    Silent(Duration),
    /// It has not even said that it is one.
    #[error(
        "the running process has closed the channel: does it run as another user, or has it \
         just ended?"
    )]
    Closed,
}

fn broken(error: impl ToString) -> Refusal {
    Refusal::Broken(error.to_string())
}

impl Predecessor {
    /// A process that has been asked by this one, or has started it.
    pub(in crate::server) fn new(channel: Channel, asked: bool) -> Self {
        Predecessor {
            channel,
            asked,
            welcome: None,
            given: Vec::new(),
            whole: false,
            ledger: Ledger::default(),
            states: Vec::new(),
        }
    }

    /// Says hello, and takes what is given until all of it is there. An elder that ends
    /// meanwhile leaves what it has given; one that was only asked must have said that it
    /// is one.
    pub(in crate::server) async fn greet(&mut self, patience: Duration) -> Result<(), Refusal> {
        let greeted = tokio::time::timeout(patience, self.take_all()).await;
        greeted.unwrap_or(Err(Refusal::Silent(patience)))?;
        if self.asked && self.welcome.is_none() { Err(Refusal::Closed) } else { Ok(()) }
    }

    /// How many sockets have come, if it has ended before all of them had.
    pub(in crate::server) fn has_ended(&self) -> Option<usize> {
        (!self.whole).then_some(self.given.len())
    }

    async fn take_all(&mut self) -> Result<(), Refusal> {
        let hello = Message::Hello {
            protocol: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        };
        self.say(&hello).await;
        loop {
            let Some(Received { message, fds, .. }) = self.channel.recv().await.map_err(broken)?
            else {
                return Ok(());
            };
            match message {
                Message::Welcome(Welcome { protocol, .. }) if protocol != VERSION => {
                    let ours = format!("it speaks version {protocol}, this process {VERSION}");
                    return Err(broken(ours));
                }
                Message::Welcome(welcome) => self.welcome = Some(welcome),
                Message::Sockets { batch, sockets } => {
                    if self.given.len() + sockets.len() > HANDOFF_SOCKETS_MAX {
                        return Err(broken("too many sockets"));
                    }
                    self.given.extend(sockets.into_iter().zip(fds));
                    self.say(&Message::Ack { batch }).await;
                }
                Message::Begin => {
                    self.whole = true;
                    return Ok(());
                }
                Message::Refused { error } => return Err(Refusal::Refused(error)),
                other => return Err(broken(format!("{} out of turn", other.name()))),
            }
        }
    }

    /// Which generation this process is.
    pub(in crate::server) fn generation(&self) -> Option<u32> {
        self.welcome.as_ref().map(|welcome| welcome.generation)
    }

    /// The keys of session tickets.
    pub(in crate::server) fn tickets(&self) -> Option<TicketKeys> {
        let mut keys = self.welcome.as_ref()?.tickets.iter().map(|ticket| TicketKey {
            name: ticket.name,
            secret: ticket.secret,
            since: ticket.since,
        });
        Some(TicketKeys { current: keys.next()?, previous: keys.collect() })
    }

    /// A socket of this kind, once: of this name, or, where there is a path, the one to
    /// which that leads from here, however it is spelled. One that the path does not lead
    /// to would be reached by nobody, be it that the path was removed or that this process
    /// sees other files there.
    pub(in crate::server) fn take(
        &mut self,
        kind: GivenKind,
        name: &str,
        path: Option<&Path>,
    ) -> Option<Inherited> {
        let asked = self.asked && kind == GivenKind::Takeover;
        let leads = |given: &Given| {
            // We have just come to it by that path.
            asked || path.zip(given.file).is_some_and(|(path, file)| leads_to(path, file))
        };
        // What a service manager has opened is where that has put it.
        let may_be_elsewhere = |given: &Given| {
            path.is_none() || given.file.is_none() || given.keeper == Some(Keeper::Unit)
        };
        let all = |fits: &dyn Fn(&Given) -> bool| {
            self.given.iter().position(|(given, _)| given.kind == kind && fits(given))
        };
        let found = all(&leads);
        let at = found.or_else(|| all(&|given| given.name == name && may_be_elsewhere(given)))?;
        let (given, fd) = self.given.swap_remove(at);
        // A manager may open what lies outside on purpose, and who has started us is near.
        let may_be_far = self.asked && given.keeper != Some(Keeper::Unit);
        Some(Inherited { fd, keeper: given.keeper, found: found.is_some(), may_be_far })
    }

    /// Whether there is one of this kind and name that nobody has taken.
    pub(in crate::server) fn has(&self, kind: GivenKind, name: &str) -> bool {
        self.given.iter().any(|(given, _)| given.kind == kind && given.name == name)
    }

    /// Where a listener at this port is that nobody has taken.
    pub(in crate::server) fn at_port(&self, port: u16) -> Option<SocketAddr> {
        let listeners = self.given.iter().filter(|(given, _)| given.kind == GivenKind::Listener);
        let mut places =
            listeners.filter_map(|(_, fd)| SockRef::from(fd).local_addr().ok()?.as_socket());
        places.find(|place| place.port() == port)
    }

    /// The names of the listeners that nobody has taken; they are closed.
    fn leave_rest(&mut self) -> Vec<String> {
        let rest = self.given.extract_if(.., |(given, _)| given.kind == GivenKind::Listener);
        rest.map(|(given, _)| given.name).collect()
    }

    /// What else nobody has taken.
    fn unclaimed(&self) -> Vec<GivenKind> {
        let kinds = self.given.iter().map(|(given, _)| given.kind);
        kinds.filter(|kind| matches!(kind, GivenKind::Admin | GivenKind::Takeover)).collect()
    }

    /// Says that we can serve, and waits to be let: by a word, or by the end of the elder.
    pub(in crate::server) async fn ready(&mut self, patience: Duration) -> Result<(), Refusal> {
        let (released, unclaimed) = (self.leave_rest(), self.unclaimed());
        self.say(&Message::Ready { released, unclaimed }).await;
        let counted = self.welcome.as_ref().map(|welcome| welcome.counted.clone());
        self.ledger = Ledger::new(counted.unwrap_or_default());
        let answer = tokio::time::timeout(patience, self.channel.recv()).await;
        let answer = answer.map_err(|_| Refusal::Silent(patience))?.map_err(broken)?;
        match answer.map(|received| received.message) {
            // An elder that dies now leaves all that it has given.
            None => Ok(()),
            Some(Message::Go { counted, elders }) => {
                self.ledger = Ledger::new(counted);
                self.states = elders;
                Ok(())
            }
            Some(Message::Refused { error }) => Err(Refusal::Refused(error)),
            Some(other) => Err(broken(format!("{} out of turn", other.name()))),
        }
    }

    /// What is left to this process, once it may serve.
    pub(in crate::server) fn inheritance(self) -> Inheritance {
        let mut elders = BTreeMap::new();
        for (given, fd) in self.given {
            if given.kind == GivenKind::Elder
                && let (Ok(generation), Ok(channel)) = (given.name.parse(), Channel::from_fd(fd))
            {
                elders.insert(generation, channel);
            }
        }
        if let Some(welcome) = self.welcome {
            elders.insert(welcome.generation.saturating_sub(1), self.channel);
        }
        Inheritance { elders, states: self.states, ledger: self.ledger }
    }

    /// Says why this process ends.
    pub(in crate::server) async fn fail(self, error: String) {
        // One that stands still must not keep us.
        let failed = Message::Failed { error };
        let _unheard = tokio::time::timeout(LAST_WORDS, self.say(&failed)).await;
    }

    /// Says it; an elder that does not hear it has ended, which shows elsewhere.
    async fn say(&self, message: &Message) {
        let _gone = self.channel.send(message, &[], &[]).await;
    }
}

/// A listener that a predecessor has given.
pub(in crate::server) struct Inherited {
    pub(in crate::server) fd: OwnedFd,
    /// The service manager has a copy, too.
    pub(in crate::server) keeper: Option<Keeper>,
    /// The path that was asked for leads to it.
    pub(in crate::server) found: bool,
    /// Its process may live in another network than this one.
    pub(in crate::server) may_be_far: bool,
}

/// What a process that serves has of those before it.
#[derive(Default)]
pub(in crate::server) struct Inheritance {
    /// Their channels, by generation.
    pub(in crate::server) elders: BTreeMap<u32, Channel>,
    /// How they were last.
    pub(in crate::server) states: Vec<State>,
    /// What they have counted.
    pub(in crate::server) ledger: Ledger,
}

/// The keys of session tickets as a successor is given them.
pub(super) fn tickets(keys: TicketKeys) -> Vec<Ticket> {
    let all = std::iter::once(keys.current).chain(keys.previous);
    all.map(|key| Ticket { name: key.name, secret: key.secret, since: key.since }).collect()
}
