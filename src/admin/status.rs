//! The status document.
//!
//! Owns its shape, for the server that writes it and the client that reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::handoff::State;
use crate::telemetry::{ConnectionCounts, ConnectionState, TunnelStatus};

/// What `/status` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Which process this is, counted across upgrades.
    pub generation: u32,
    /// The name of the phase.
    pub phase: String,
    /// Milliseconds left to the hard deadline, if there is one.
    pub deadline_ms: Option<u64>,
    /// Open connections.
    pub connections: ConnectionCounts,
    /// Requests answered so far.
    pub requests: u64,
    /// Requests that arrived on an idle connection after our FIN.
    pub raced: u64,
    /// Requests ended by the hard deadline.
    pub cut: u64,
    /// Endless responses under way.
    #[serde(default)]
    pub endless: u64,
    /// Endless responses that a drain has ended where they may end.
    #[serde(default)]
    pub told: u64,
    /// What this generation has handed over to its successor, by kind.
    #[serde(default)]
    pub moved: BTreeMap<String, u64>,
    /// Processes that this one has replaced and that are still there, the oldest first.
    #[serde(default)]
    pub elders: Vec<ElderStatus>,
    /// The oldest of the tunnels; over the unix socket only, since they name clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<TunnelStatus>,
}

/// A process that was replaced and is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElderStatus {
    /// Which process it is, counted across upgrades.
    pub generation: u32,
    /// Its number.
    pub pid: u32,
    /// The name of its phase.
    pub phase: String,
    /// Milliseconds left to its hard deadline, if there is one.
    pub deadline_ms: Option<u64>,
    /// Its open connections.
    pub connections: ConnectionCounts,
    /// What it has handed over, by kind.
    pub moved: BTreeMap<String, u64>,
    /// What it still waits for, and how many times.
    pub waiting: BTreeMap<String, u64>,
}

impl From<State> for ElderStatus {
    fn from(state: State) -> Self {
        let State { generation, pid, phase, deadline_ms, connections, moved, waiting, .. } = state;
        let count = |state: ConnectionState| connections.get(&state.name()).copied().unwrap_or(0);
        let counts =
            ConnectionState::ALL.map(|state| count(state).try_into().unwrap_or(usize::MAX));
        let connections = ConnectionCounts::from(counts);
        ElderStatus { generation, pid, phase, deadline_ms, connections, moved, waiting }
    }
}

#[cfg(test)]
pub(super) fn example() -> Status {
    let mut connections = ConnectionCounts::default();
    connections.h1.active = 3;
    connections.h1.idle = 12;
    Status {
        version: "0.1.0".into(),
        pid: 4242,
        generation: 1,
        phase: "draining".into(),
        deadline_ms: Some(12_345),
        connections,
        requests: 1000,
        raced: 1,
        cut: 0,
        endless: 2,
        told: 5,
        moved: BTreeMap::new(),
        elders: Vec::new(),
        tunnels: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elder_is_shown_in_the_same_shape() {
        let connections = [("h1_active".to_owned(), 2), ("tunnel_websocket".to_owned(), 1)].into();
        let elder = ElderStatus::from(State { connections, ..State::default() });
        let (active, websocket) = (elder.connections.h1.active, elder.connections.tunnel.websocket);
        assert_eq!((active, websocket, elder.connections.total()), (2, 1, 3));
    }

    #[test]
    fn the_document_has_the_shape_of_the_interface() {
        assert_eq!(
            serde_json::to_string(&example()).unwrap(),
            "{\"version\":\"0.1.0\",\"pid\":4242,\"generation\":1,\"phase\":\"draining\",\
             \"deadline_ms\":12345,\"connections\":{\"h1\":{\"fresh\":0,\"reading\":0,\
             \"active\":3,\"idle\":12,\"closing\":0},\"h2\":{\"active\":0,\"idle\":0,\
             \"closing\":0},\"tunnel\":{\"websocket\":0,\"opaque\":0}},\"requests\":1000,\
             \"raced\":1,\"cut\":0,\"endless\":2,\"told\":5,\"moved\":{},\"elders\":[]}"
        );
        let serving = Status { deadline_ms: None, ..example() };
        let text = serde_json::to_string(&serving).unwrap();
        assert!(text.contains("\"deadline_ms\":null"));
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), serving);
    }
}
