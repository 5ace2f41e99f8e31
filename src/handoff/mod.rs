//! Handing sockets, and the connections that live on them, to a successor.
//!
//! Owns the messages between the two processes and how they travel. Knows nothing
//! of HTTP: what a connection is doing is data here ([`moved`]), read and written by
//! whoever serves it.
//!
//! | who | says | and then |
//! | --- | --- | --- |
//! | successor | [`Message::Hello`] | waits |
//! | elder | [`Message::Welcome`], [`Message::Sockets`] in acknowledged batches, [`Message::Begin`] | serves on |
//! | successor | [`Message::Ready`], or [`Message::Failed`] and ends | waits, without accepting |
//! | elder | [`Message::Go`], or [`Message::Refused`] | serves on |
//! | successor | [`Message::Serving`], [`Message::Here`] | accepts |
//! | elder | [`Message::Connections`] in acknowledged batches, [`Message::State`] from time to time | accepts no more |
//! | successor | [`Message::Release`], [`Message::Leave`]; [`Message::Refused`] if it takes no more | |
//! | successor | [`Message::Hold`] | lets another one, or itself again, say [`Message::Here`] |
//! | elder | [`Message::Released`], [`Message::Main`], at its end [`Message::Bye`] | |
//! | elder | [`Message::Refused`] or [`Message::Kept`], if the successor stalls, breaks off or is not understood | has what was not acknowledged |
//!
//! A descriptor is the elder's until it reads the acknowledgement of its batch: only
//! then the elder closes its copy, and only after it was sent the successor acts on
//! its own. What a dying successor has acknowledged is read before its end.
//!
//! A side that stands still for long is not dead. Before an elder takes back what was not
//! acknowledged, it says so as its last word, for which there is always room, and then
//! closes its ear: an acknowledgement that comes later fails. A successor that fails to
//! acknowledge reads the channel to its end. If it finds that word there, the batch, and
//! what stands behind it, is the elder's; else the elder has ended, and it is its own. An
//! elder that cannot say its last word gives those connections up.

pub mod batch;
pub mod channel;
pub mod fuzz;
pub mod inherit;
pub mod launch;
pub mod message;
pub mod moved;
pub mod path;
mod process;
pub mod takeover;
mod unheard;
mod watch;
pub mod wire;

pub use batch::{Batch, parcels};
pub use channel::{Broken, Channel, Received};
pub use launch::{Launched, launch};
pub use message::{
    FileId, Gauge, Given, GivenKind, Keeper, Message, State, Tally, Ticket, VERSION, Welcome,
};
pub use moved::{Moved, MovedFrames, MovedRequest, MovedTunnel, MovedWay, Parcel, Transport};
pub use process::Process;
pub use takeover::Takeover;
pub use watch::watch;
