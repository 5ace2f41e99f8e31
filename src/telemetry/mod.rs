//! What the program says about itself: events on stderr, the access log on
//! stdout, counters, the metrics text and the drain report.
//!
//! Owns the writer threads and the shapes of what is written. Promises that no
//! worker ever waits for a log: what a slow or full output cannot take is
//! dropped and counted. Does not decide when anything is reported, and serves
//! nothing over a socket (that is [`crate::admin`]).

pub mod access;
pub mod clock;
pub mod connections;
pub mod counters;
pub mod event;
pub mod metrics;
pub mod moved;
pub mod report;
pub mod sink;
pub mod tally;
pub mod tunnels;

mod escape;
mod line;

pub use access::{AccessLog, Record};
pub use connections::{ConnectionCounts, ConnectionState};
pub use counters::{CloseReason, Counters, Family, Totals};
pub use event::{Event, Events, Level};
pub use metrics::MetricsView;
pub use moved::MovedKind;
pub use report::{CutRequest, DrainReport};
pub use sink::Sink;
pub use tunnels::{About, TunnelEntry, TunnelStatus, Tunnels};
