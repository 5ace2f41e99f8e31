//! Endpoints in turn, and their idle connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::connection::{Connection, Wire};
use super::h2::{Links, Rules, Stream};
use super::spare::Spare;
use crate::config::{Endpoint, Upstream};
use crate::drain::Deadline;
use crate::http1::Buffer;
use crate::limits::{H2_FAREWELL, POOL_IDLE_MAX};
use crate::net::{Clock, ConnectError, Look, Socket, connect};
use crate::tls::Calls;

/// Which endpoint of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointId(usize);

/// A worker's connections to its app servers.
pub struct Pool {
    endpoints: Vec<Line>,
    next: Cell<usize>,
    idle_timeout: Duration,
    calls: Option<Calls>,
    /// Tasks that drive connections of HTTP/2.
    drivers: RefCell<JoinSet<()>>,
    clock: Rc<Clock>,
    spare: Rc<Spare>,
}

struct Line {
    endpoint: Endpoint,
    name: Box<str>,
    idle: RefCell<Vec<Idle>>,
    /// If it speaks HTTP/2.
    links: Option<Rc<Links>>,
}

struct Idle {
    socket: Socket,
    since: u64,
}

impl Pool {
    /// A pool without connections; `calls` is there if TLS is spoken to any of them.
    pub fn new(
        upstream: &Upstream,
        calls: Option<Calls>,
        clock: Rc<Clock>,
        spare: Rc<Spare>,
    ) -> Self {
        let rules = Rules::of(upstream);
        let line = |endpoint: &Endpoint| Line {
            endpoint: endpoint.clone(),
            name: endpoint.to_string().into(),
            idle: RefCell::default(),
            links: endpoint.speaks.is_h2().then(|| Links::new(endpoint.clone(), rules)),
        };
        Pool {
            endpoints: upstream.endpoints.iter().map(line).collect(),
            next: Cell::new(0),
            idle_timeout: upstream.idle_timeout,
            calls,
            drivers: RefCell::default(),
            clock,
            spare,
        }
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

    /// The idle connection used last, if one is still good; those that are not are
    /// closed on the way. Of HTTP/2 a place on one that is open.
    #[inline]
    pub fn checkout(&self, id: EndpointId) -> Option<Connection> {
        let line = &self.endpoints[id.0];
        if let Some(links) = &line.links {
            return links.take().map(|stream| self.stream(id, stream));
        }
        let mut idle = line.idle.borrow_mut();
        while let Some(Idle { mut socket, since }) = idle.pop() {
            let age = Duration::from_millis(self.clock.now().saturating_sub(since));
            if age < self.idle_timeout && socket.look() == Look::Quiet {
                let (socket, buffer) = (Wire::Socket(socket), self.spare.small());
                return Some(Connection { socket, buffer, endpoint: id, reused: true });
            }
        }
        None
    }

    /// A new connection, or of HTTP/2 a place on one that is opened from now on.
    pub async fn connect(
        &self,
        id: EndpointId,
        until: Deadline,
    ) -> Result<Connection, ConnectError> {
        let line = &self.endpoints[id.0];
        if let Some(links) = &line.links {
            let stream = links.open(self.calls.as_ref(), &self.drivers, until).await?;
            return Ok(self.stream(id, stream));
        }
        let socket = connect(&line.endpoint, self.calls.as_ref(), until).await?;
        let (socket, buffer) = (Wire::Socket(socket), self.spare.small());
        Ok(Connection { socket, buffer, endpoint: id, reused: false })
    }

    fn stream(&self, id: EndpointId, stream: Stream) -> Connection {
        let (reused, buffer) = (stream.is_proven(), self.spare.small());
        Connection { socket: Wire::Stream(Box::new(stream)), buffer, endpoint: id, reused }
    }

    /// Takes a connection back whose response has ended cleanly, with nothing behind it.
    #[inline]
    pub fn checkin(&self, connection: Connection) {
        self.spare.give(connection.buffer);
        let Wire::Socket(socket) = connection.socket else { return };
        let mut idle = self.endpoints[connection.endpoint.0].idle.borrow_mut();
        if idle.len() < POOL_IDLE_MAX && !self.idle_timeout.is_zero() {
            idle.push(Idle { socket, since: self.clock.now() });
        }
    }

    /// Closes a connection that can not be used again.
    pub fn discard<W>(&self, mut connection: Connection<W>) {
        self.spare.give(std::mem::take::<Buffer>(&mut connection.buffer));
    }

    /// Closes what has been idle too long; whether anything is left.
    pub fn sweep(&self) -> bool {
        let mut left = false;
        for line in &self.endpoints {
            let mut idle = line.idle.borrow_mut();
            let old = |idle: &mut Idle| {
                let age = Duration::from_millis(self.clock.now().saturating_sub(idle.since));
                age >= self.idle_timeout || idle.socket.look() != Look::Quiet
            };
            idle.retain_mut(|idle| !old(idle));
            left |= !idle.is_empty();
        }
        left
    }

    /// Says goodbye on the connections of HTTP/2, and waits a moment until that is out:
    /// nobody is served any more.
    pub async fn close(&self) {
        for links in self.endpoints.iter().filter_map(|line| line.links.as_ref()) {
            links.forget_all();
        }
        let mut drivers = self.drivers.take();
        let all = async { while drivers.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(H2_FAREWELL, all).await;
    }
}
