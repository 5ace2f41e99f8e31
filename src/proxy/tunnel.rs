//! A connection, or a stream, that has become another protocol's: what is known of it, and
//! what is written down of it when it ends. How it is relayed is the business of `serve`.

use std::time::{Duration, Instant};

use super::downstream::Caller;
use super::failure::Failure;
use super::record::{Summary, address_of, lossy, record, shown_target};
use super::request::{Request, Upgrade, ago};
use super::{Proxy, Telling};
use crate::config::{OnDrain, RouteDrain};
use crate::handoff::{MovedRequest, MovedTunnel};
use crate::http1::Buffer;
use crate::net::{Peer, Socket};
use crate::telemetry::About;
use crate::upstream::Connection;

/// A tunnel, from the app server's 101 on.
#[derive(Debug)]
pub struct Tunnel {
    /// The app server's side.
    pub upstream: Socket,
    /// What came behind the 101.
    pub ahead: Buffer,
    /// The app server, as configured.
    name: Box<str>,
    request: Request,
    first_byte: Option<Instant>,
    attempts: u8,
}

impl Tunnel {
    pub(super) fn new(
        upstream: Connection<Socket>,
        name: &str,
        request: Request,
        first_byte: Option<Instant>,
        attempts: u8,
    ) -> Self {
        let Connection { socket: upstream, buffer: ahead, .. } = upstream;
        Tunnel { upstream, ahead, name: name.into(), request, first_byte, attempts }
    }

    /// One that an elder has relayed until now; none if what is told of it cannot be.
    pub fn arrive(upstream: Socket, moved: &MovedTunnel, texts: &[u8]) -> Option<Self> {
        let is_websocket = moved.up.frames.is_some();
        Some(Tunnel {
            upstream,
            ahead: Buffer::default(),
            name: moved.upstream.as_str().into(),
            request: Request::arrive(&moved.request, is_websocket, texts)?,
            first_byte: moved.request.first_byte.map(ago),
            attempts: moved.request.attempts,
        })
    }

    /// The app server's socket and name, and what is told of the request, with its texts.
    pub fn depart(self) -> (Socket, String, MovedRequest, Vec<u8>) {
        let (request, texts) = self.request.depart(self.first_byte, self.attempts);
        (self.upstream, self.name.into(), request, texts)
    }

    /// Whether its frames are those of a WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.request.upgrade.as_deref().is_some_and(Upgrade::is_websocket)
    }

    /// Its place among what a drain tells to end, if it is told: its route comes first.
    pub fn telling<'a>(&self, proxy: &'a Proxy) -> Option<Telling<'a>> {
        let config = &proxy.config;
        let route = config.routes.of(self.request.target());
        let after = match (route.and_then(|route| route.on_drain), config.websocket.on_drain) {
            (Some(RouteDrain::CloseAfter(time)), _) => Some(time),
            (Some(RouteDrain::Cancel), _) => Some(Duration::ZERO),
            (Some(RouteDrain::Finish), _) | (None, OnDrain::Leave) => return None,
            (None, OnDrain::Close) => None,
        };
        Some(proxy.tellings.enter(proxy, after))
    }

    /// Who and what it is, for the status.
    pub fn about(&self, proxy: &Proxy, (peer, address): (Peer, &str)) -> About {
        let token = self.request.upgrade.as_deref().map(Upgrade::token);
        About {
            kind: lossy(token.unwrap_or_default()).to_ascii_lowercase(),
            client: address_of(&Caller { peer, address }, &self.request),
            target: shown_target(proxy, self.request.target()),
            upstream: self.name.clone().into(),
        }
    }

    /// Closes the app server's side. `octets` passed to the app server and to the client;
    /// `failure` is what went wrong; `answered` is whether the client has said goodbye.
    pub fn close(self, octets: (u64, u64), failure: Option<Failure>, answered: bool) -> Passed {
        let Tunnel { name, request, first_byte, attempts, .. } = self;
        Passed { name, request, first_byte, attempts, octets, failure, answered }
    }
}

/// A tunnel that is over and not written down.
#[derive(Debug)]
pub struct Passed {
    name: Box<str>,
    request: Request,
    first_byte: Option<Instant>,
    attempts: u8,
    octets: (u64, u64),
    failure: Option<Failure>,
    answered: bool,
}

impl Passed {
    /// Whether the client gave it up.
    pub fn was_cancelled(&self) -> bool {
        matches!(self.failure, Some(Failure::ClientGone))
    }

    /// Counts it as a request and writes down what became of it. `lost` is why its last
    /// octets did not get out, if they did not: of no account to a client that has said
    /// goodbye.
    pub fn record(self, proxy: &Proxy, (peer, address): (Peer, &str), lost: Option<Failure>) {
        let failure = self.failure.or(lost.filter(|_| !self.answered));
        let (bytes_in, bytes_out) = self.octets;
        let summary = Summary {
            status: if self.request.is_connect() { 200 } else { 101 },
            bytes_in,
            bytes_out,
            first_byte: self.first_byte,
            upstream: &self.name,
            retries: self.attempts.saturating_sub(1),
            handed: true,
            failure: failure.as_ref(),
            told: false,
        };
        record(proxy, &Caller { peer, address }, &self.request, &summary);
        proxy.spare.give_head(self.request.head);
    }
}
