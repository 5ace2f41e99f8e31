//! The states a connection is counted in, and how the counts are shown.
//!
//! Owns the census kinds and the shape of `connections` in the status document.
//! Promises that every protocol and state of the public interface is shown,
//! with 0 where nothing is counted yet. Does not count.

use serde::{Deserialize, Serialize};

/// What a downstream connection is doing, as the census counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConnectionState {
    /// Accepted, no octet of the first request read yet.
    H1Fresh,
    /// Part of a request head has been read.
    H1Reading,
    /// A request head has been read and its response is not finished.
    H1Active,
    /// Between requests.
    H1Idle,
    /// The last response is out, FIN sent, lingering.
    H1Closing,
    /// Streams are open.
    H2Active,
    /// No stream is open.
    H2Idle,
    /// The last stream is over, FIN sent, lingering.
    H2Closing,
    /// A tunnel whose frames are followed.
    TunnelWebSocket,
    /// A tunnel of which nothing is known.
    TunnelOpaque,
}

impl crate::drain::Kind for ConnectionState {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }
}

impl ConnectionState {
    /// All states, in the order of [`ConnectionState::index`].
    pub const ALL: [ConnectionState; 10] = [
        Self::H1Fresh,
        Self::H1Reading,
        Self::H1Active,
        Self::H1Idle,
        Self::H1Closing,
        Self::H2Active,
        Self::H2Idle,
        Self::H2Closing,
        Self::TunnelWebSocket,
        Self::TunnelOpaque,
    ];

    /// Whether nothing more is served on it.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::H1Closing | Self::H2Closing)
    }

    /// The state in which a connection of the same protocol lingers.
    pub const fn closing(self) -> Self {
        match self {
            Self::H2Active | Self::H2Idle | Self::H2Closing => Self::H2Closing,
            _ => Self::H1Closing,
        }
    }

    /// The place of this state in an array of counts.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The protocol's name in metrics and status.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::H1Fresh | Self::H1Reading | Self::H1Active | Self::H1Idle | Self::H1Closing => {
                "h1"
            }
            Self::H2Active | Self::H2Idle | Self::H2Closing => "h2",
            Self::TunnelWebSocket | Self::TunnelOpaque => "tunnel",
        }
    }

    /// The name of both, as generations tell it each other.
    pub fn name(self) -> String {
        format!("{}_{}", self.protocol(), self.state())
    }

    /// The state's name in metrics and status.
    pub const fn state(self) -> &'static str {
        match self {
            Self::H1Fresh => "fresh",
            Self::H1Reading => "reading",
            Self::H1Active | Self::H2Active => "active",
            Self::H1Idle | Self::H2Idle => "idle",
            Self::H1Closing | Self::H2Closing => "closing",
            Self::TunnelWebSocket => "websocket",
            Self::TunnelOpaque => "opaque",
        }
    }
}

/// Open connections by protocol and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// HTTP/1 connections.
    pub h1: H1Counts,
    /// HTTP/2 connections.
    pub h2: H2Counts,
    /// Upgraded connections.
    pub tunnel: TunnelCounts,
}

/// HTTP/1 connections by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct H1Counts {
    /// No octet of the first request read yet.
    pub fresh: usize,
    /// In a request head.
    pub reading: usize,
    /// Between a request head and the end of its response.
    pub active: usize,
    /// Between requests.
    pub idle: usize,
    /// Lingering after the last response.
    pub closing: usize,
}

/// HTTP/2 connections by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct H2Counts {
    /// With open streams.
    pub active: usize,
    /// Without.
    pub idle: usize,
    /// Lingering after the last stream.
    pub closing: usize,
}

/// Upgraded connections by what is known of their protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelCounts {
    /// WebSocket.
    pub websocket: usize,
    /// Any other protocol.
    pub opaque: usize,
}

/// Counts by [`ConnectionState::index`].
pub type StateCounts = [usize; ConnectionState::ALL.len()];

impl From<StateCounts> for ConnectionCounts {
    fn from(counts: StateCounts) -> Self {
        let at = |state: ConnectionState| counts[state.index()];
        Self {
            h1: H1Counts {
                fresh: at(ConnectionState::H1Fresh),
                reading: at(ConnectionState::H1Reading),
                active: at(ConnectionState::H1Active),
                idle: at(ConnectionState::H1Idle),
                closing: at(ConnectionState::H1Closing),
            },
            h2: H2Counts {
                active: at(ConnectionState::H2Active),
                idle: at(ConnectionState::H2Idle),
                closing: at(ConnectionState::H2Closing),
            },
            tunnel: TunnelCounts {
                websocket: at(ConnectionState::TunnelWebSocket),
                opaque: at(ConnectionState::TunnelOpaque),
            },
        }
    }
}

impl ConnectionCounts {
    /// Each count with the names of its protocol and state.
    pub const fn rows(&self) -> [(&'static str, &'static str, usize); 10] {
        [
            ("h1", "fresh", self.h1.fresh),
            ("h1", "reading", self.h1.reading),
            ("h1", "active", self.h1.active),
            ("h1", "idle", self.h1.idle),
            ("h1", "closing", self.h1.closing),
            ("h2", "active", self.h2.active),
            ("h2", "idle", self.h2.idle),
            ("h2", "closing", self.h2.closing),
            ("tunnel", "websocket", self.tunnel.websocket),
            ("tunnel", "opaque", self.tunnel.opaque),
        ]
    }

    /// All open connections.
    pub fn total(&self) -> usize {
        self.rows().iter().map(|row| row.2).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_shown_under_its_own_names() {
        for (place, state) in ConnectionState::ALL.into_iter().enumerate() {
            assert_eq!(state.index(), place);
            let mut counts = StateCounts::default();
            counts[place] = 7;
            let shown = ConnectionCounts::from(counts);
            assert_eq!(shown.total(), 7);
            assert!(shown.rows().contains(&(state.protocol(), state.state(), 7)));
        }
    }
}
