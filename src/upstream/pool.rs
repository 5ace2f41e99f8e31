//! Endpoints in turn, and their idle connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::connection::{Connection, Look};
use super::spare::Spare;
use crate::config::Endpoint;
use crate::drain::Deadline;
use crate::http1::Buffer;
use crate::limits::POOL_IDLE_MAX;
use crate::net::{Clock, ConnectError, connect};

/// Which endpoint of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointId(usize);

/// A worker's connections to its app servers.
pub struct Pool {
    endpoints: Vec<Line>,
    next: Cell<usize>,
    idle_timeout: Duration,
    clock: Rc<Clock>,
    spare: Rc<Spare>,
}

struct Line {
    endpoint: Endpoint,
    name: Box<str>,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: u64,
}

impl Pool {
    /// A pool without connections.
    pub fn new(
        endpoints: &[Endpoint],
        idle_timeout: Duration,
        clock: Rc<Clock>,
        spare: Rc<Spare>,
    ) -> Self {
        let line = |endpoint: &Endpoint| Line {
            endpoint: endpoint.clone(),
            name: endpoint.to_string().into(),
            idle: RefCell::default(),
        };
        let endpoints = endpoints.iter().map(line).collect();
        Pool { endpoints, next: Cell::new(0), idle_timeout, clock, spare }
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is no endpoint at all; a checked configuration has one.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint whose turn it is.
    #[inline]
    pub fn pick(&self) -> EndpointId {
        let turn = self.next.get();
        self.next.set(if turn + 1 >= self.endpoints.len() { 0 } else { turn + 1 });
        EndpointId(turn)
    }

    /// The endpoint after this one.
    pub fn after(&self, id: EndpointId) -> EndpointId {
        EndpointId(if id.0 + 1 >= self.endpoints.len() { 0 } else { id.0 + 1 })
    }

    /// The endpoint as it was configured.
    pub fn name(&self, id: EndpointId) -> &str {
        &self.endpoints[id.0].name
    }

    /// The idle connection used last, if one is still good. Those that are not
    /// are closed on the way.
    #[inline]
    pub fn checkout(&self, id: EndpointId) -> Option<Connection> {
        let mut idle = self.endpoints[id.0].idle.borrow_mut();
        while let Some(Idle { mut connection, since }) = idle.pop() {
            let age = Duration::from_millis(self.clock.now().saturating_sub(since));
            if age < self.idle_timeout && connection.look() == Look::Quiet {
                connection.buffer = self.spare.small();
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(
        &self,
        id: EndpointId,
        until: Deadline,
    ) -> Result<Connection, ConnectError> {
        let socket = connect(&self.endpoints[id.0].endpoint, until).await?;
        Ok(Connection { socket, buffer: self.spare.small(), endpoint: id, reused: false })
    }

    /// Takes a connection back whose response has ended cleanly, with nothing behind it.
    #[inline]
    pub fn checkin(&self, mut connection: Connection) {
        self.spare.give(std::mem::take(&mut connection.buffer));
        let mut idle = self.endpoints[connection.endpoint.0].idle.borrow_mut();
        if idle.len() < POOL_IDLE_MAX && !self.idle_timeout.is_zero() {
            idle.push(Idle { connection, since: self.clock.now() });
        }
    }

    /// Closes a connection that can not be used again.
    pub fn discard(&self, mut connection: Connection) {
        self.spare.give(std::mem::take::<Buffer>(&mut connection.buffer));
    }

    /// Closes what has been idle too long; whether anything is left.
    pub fn sweep(&self) -> bool {
        let mut left = false;
        for line in &self.endpoints {
            let mut idle = line.idle.borrow_mut();
            let old = |idle: &Idle| {
                let age = Duration::from_millis(self.clock.now().saturating_sub(idle.since));
                age >= self.idle_timeout || idle.connection.look() != Look::Quiet
            };
            idle.retain(|idle| !old(idle));
            left |= !idle.is_empty();
        }
        left
    }
}
