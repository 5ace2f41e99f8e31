//! What two processes say to each other. Plain data: how it travels is in `channel`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::moved::Moved;

/// The version of the messages; another one is refused.
pub const VERSION: u32 = 1;

/// A message. A kind or a field that is not known is refused, never skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// The first word of a successor.
    Hello {
        /// The version of its messages.
        protocol: u32,
        /// The version of its program.
        version: String,
        /// Its number.
        pid: u32,
    },
    /// What a successor needs besides sockets.
    Welcome(Welcome),
    /// Sockets that do not belong to a connection, one descriptor each.
    Sockets {
        /// Its number, for the acknowledgement.
        batch: u64,
        /// What they are, in the order of the descriptors.
        sockets: Vec<Given>,
    },
    /// All of them have been sent.
    Begin,
    /// A batch of this number has been received whole, and is the successor's.
    Ack {
        /// Which one.
        batch: u64,
    },
    /// The successor can serve, and has shown it.
    Ready {
        /// Listeners that it has no use for: it has closed its copies.
        released: Vec<String>,
        /// What else it has no use for.
        unclaimed: Vec<GivenKind>,
    },
    /// The successor ends, for this reason.
    Failed {
        /// As it would have been shown to a person.
        error: String,
    },
    /// The successor is to accept now.
    Go {
        /// What each generation has counted since it began, at the last moment.
        counted: Vec<(u32, Tally)>,
        /// How those are that are still there, this elder among them.
        elders: Vec<State>,
    },
    /// Nothing is handed over, or nothing more, for this reason; said by either side. From
    /// an elder it means, whenever it comes, that the elder goes on itself: whatever it has
    /// sent and not heard an acknowledgement of is its own, and the other is no successor.
    Refused {
        /// As it is shown to a person.
        error: String,
    },
    /// The successor accepts.
    Serving,
    /// Who serves at this end of the channel: the successor, or whoever has its elders now.
    Here {
        /// Its number.
        pid: u32,
        /// Its generation.
        generation: u32,
    },
    /// Nobody reads at this end of the channel until the next `Here`: it is about to be
    /// another process's. Until then no connections are sent, and none are late.
    Hold,
    /// Connections, with their descriptors and octets.
    Connections {
        /// Its number, for the acknowledgement.
        batch: u64,
        /// What they are, in the order of the descriptors.
        connections: Vec<Moved>,
    },
    /// The elder is to close its copies of these listeners.
    Release {
        /// Their names.
        names: Vec<String>,
    },
    /// It has closed them.
    Released {
        /// Their names.
        names: Vec<String>,
    },
    /// The elder is to go over to its stop plan.
    Leave,
    /// The successor is the service manager's main process from now on.
    Main,
    /// How the elder is.
    State(State),
    /// The last word of an elder that cannot hand over what it still has, for this reason,
    /// and leaves all the same: whatever it has sent and not heard an acknowledgement of is
    /// its own, but the other is the successor.
    Kept {
        /// As it is shown to a person.
        error: String,
    },
    /// The last word of an elder: nothing is left. What it has sent is the successor's.
    Bye(State),
}

impl Message {
    /// What kind of message it is.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "hello",
            Message::Welcome(_) => "welcome",
            Message::Sockets { .. } => "sockets",
            Message::Begin => "begin",
            Message::Ack { .. } => "ack",
            Message::Ready { .. } => "ready",
            Message::Failed { .. } => "failed",
            Message::Go { .. } => "go",
            Message::Refused { .. } => "refused",
            Message::Serving => "serving",
            Message::Here { .. } => "here",
            Message::Hold => "hold",
            Message::Connections { .. } => "connections",
            Message::Release { .. } => "release",
            Message::Released { .. } => "released",
            Message::Leave => "leave",
            Message::Main => "main",
            Message::State(_) => "state",
            Message::Kept { .. } => "kept",
            Message::Bye(_) => "bye",
        }
    }

    /// Whether it says more than its name.
    pub(super) const fn has_fields(&self) -> bool {
        // Each by name: of what has none, nobody else sees an unknown field.
        match self {
            Message::Begin | Message::Serving | Message::Hold | Message::Leave | Message::Main => {
                false
            }
            Message::Hello { .. }
            | Message::Welcome(_)
            | Message::Sockets { .. }
            | Message::Ack { .. }
            | Message::Ready { .. }
            | Message::Failed { .. }
            | Message::Go { .. }
            | Message::Refused { .. }
            | Message::Here { .. }
            | Message::Connections { .. }
            | Message::Release { .. }
            | Message::Released { .. }
            | Message::State(_)
            | Message::Kept { .. }
            | Message::Bye(_) => true,
        }
    }
}

/// What a successor needs besides sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The version of the messages.
    pub protocol: u32,
    /// The successor's generation.
    pub generation: u32,
    /// The elder's number.
    pub pid: u32,
    /// The keys of session tickets, the current one first.
    pub tickets: Vec<Ticket>,
    /// What each generation has counted since it began; 0 stands for those that are gone.
    pub counted: Vec<(u32, Tally)>,
}

/// The key of session tickets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// What a ticket names it by.
    pub name: [u8; 16],
    /// The key itself.
    pub secret: [u8; 32],
    /// Since when it has been used, in seconds of Unix time.
    pub since: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("since", &self.since).finish_non_exhaustive()
    }
}

/// Counters by name. A name that the receiver does not know is kept and passed on.
pub type Tally = BTreeMap<String, u64>;

/// What is there now, by name.
pub type Gauge = BTreeMap<String, u64>;

/// A socket that is handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// What it is.
    pub kind: GivenKind,
    /// A listener by its address as configured; an elder by its generation.
    pub name: String,
    /// Who holds it, too, and goes on when the last generation has ended.
    #[serde(default)]
    pub keeper: Option<Keeper>,
    /// The file of its path, where it has one: where that leads is seen by it.
    #[serde(default)]
    pub file: Option<FileId>,
}

/// Device and inode: what makes a file itself and no other.
pub type FileId = (u64, u64);

/// How a service manager holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// For a socket unit, which has opened it.
    Unit,
    /// In the descriptor store, where we have put it and can take it out.
    Store,
}

/// What a socket that is handed over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenKind {
    /// A listener for clients.
    Listener,
    /// The admin listener.
    Admin,
    /// The listener at which successors that others start ask.
    Takeover,
    /// The channel of an elder that is still draining.
    Elder,
}

/// How an elder is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Its generation.
    pub generation: u32,
    /// Its number.
    pub pid: u32,
    /// The name of its phase.
    pub phase: String,
    /// Milliseconds to its hard deadline, if it has one.
    pub deadline_ms: Option<u64>,
    /// Its connections, by protocol and state.
    pub connections: Gauge,
    /// What it has handed over, by kind.
    pub moved: Tally,
    /// Why what is left is still there: how many of each reason.
    pub waiting: Gauge,
    /// What it has counted since it began.
    pub counted: Tally,
}
