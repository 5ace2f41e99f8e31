//! What the control thread gives a worker, and what a worker gives back.

use std::io;
use std::os::fd::OwnedFd;

use tokio::sync::{mpsc, oneshot};

use crate::drain::Hold;
use crate::handoff::Parcel;
use crate::net::{Listener, Peer};
use crate::telemetry::{ConnectionState, MovedKind};

/// What a worker is given while it works. It ends when nothing can come any more.
pub enum Delivery {
    /// A listener to accept from, until draining begins.
    Listener {
        /// The worker's copy.
        listener: Listener,
        /// Dropped when it accepts no more, and has closed its copy.
        accepting: mpsc::Sender<()>,
        /// Told whether it accepts.
        opened: mpsc::Sender<io::Result<()>>,
    },
    /// A new connection, accepted elsewhere.
    Connection {
        /// The connection.
        fd: OwnedFd,
        /// Who it is.
        peer: Peer,
        /// The listener's port, or 0.
        port: u16,
        /// Whether it speaks TLS.
        secure: bool,
        /// Keeps the drain open while the connection travels.
        hold: Hold<ConnectionState>,
    },
    /// Whether the worker still turns: it answers.
    Question(oneshot::Sender<()>),
    /// A connection that an elder has served, or that could not go to a successor.
    Arrival {
        /// The connection.
        parcel: Parcel,
        /// Keeps the drain open while the connection travels.
        hold: Hold<ConnectionState>,
    },
}

/// A connection that leaves a worker for the successor, while orders say that they move.
pub struct Departure {
    /// What it is counted as when the successor has it: only then it has moved.
    pub kind: MovedKind,
    /// The connection.
    pub parcel: Parcel,
    /// Keeps the drain open until the successor has it.
    pub hold: Hold<ConnectionState>,
}
