//! What moves to a successor, as it is counted.

/// A connection that has moved, by what it was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MovedKind {
    /// No request had come on it.
    H1Fresh,
    /// It was between requests.
    H1Idle,
    /// It was serving, and moved behind its response.
    H1Active,
    /// A tunnel whose frames are followed.
    WebSocket,
    /// Another tunnel.
    Tunnel,
}

impl MovedKind {
    /// All kinds.
    pub const ALL: [MovedKind; 5] =
        [Self::H1Fresh, Self::H1Idle, Self::H1Active, Self::WebSocket, Self::Tunnel];

    /// The name used in metrics, status and the drain report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H1Fresh => "h1_fresh",
            Self::H1Idle => "h1_idle",
            Self::H1Active => "h1_active",
            Self::WebSocket => "websocket",
            Self::Tunnel => "tunnel",
        }
    }
}
