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
//! | elder | [`Message::Released`], [`Message::Main`], at its end [`Message::Bye`] | |
//!
//! A descriptor is the elder's until it reads the acknowledgement of its batch: only
//! then the elder closes its copy, and only after it was sent the successor acts on
//! its own. Acknowledgements that a dying successor has sent are read before its end,
//! so there is never a doubt whose a connection is.

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
    Gauge, Given, GivenKind, Keeper, Message, State, Tally, Ticket, VERSION, Welcome,
};
pub use moved::{Moved, MovedFrames, MovedRequest, MovedTunnel, MovedWay, Parcel, Transport};
pub use process::Process;
pub use takeover::Takeover;
pub use watch::watch;
