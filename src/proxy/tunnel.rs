//! A connection that has become another protocol's: what is known of it, and what is
//! written down of it when it ends. How it is relayed is the business of `serve`.

use std::time::Instant;

use super::Proxy;
use super::downstream::Caller;
use super::failure::Failure;
use super::record::{Summary, address_of, lossy, record, shown_target};
use super::request::{Request, Upgrade};
use crate::net::{Peer, Socket};
use crate::telemetry::About;
use crate::upstream::Connection;

/// A tunnel, from its 101 on.
#[derive(Debug)]
pub struct Tunnel {
    /// The app server's side. Its buffer may hold what came behind the 101.
    pub upstream: Connection<Socket>,
    request: Request,
    first_byte: Option<Instant>,
    attempts: u8,
}

impl Tunnel {
    pub(super) fn new(
        upstream: Connection<Socket>,
        request: Request,
        first_byte: Option<Instant>,
        attempts: u8,
    ) -> Self {
        Tunnel { upstream, request, first_byte, attempts }
    }

    /// Whether its frames are those of a WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.request.upgrade.as_deref().is_some_and(Upgrade::is_websocket)
    }

    /// Who and what it is, for the status.
    pub fn about(&self, proxy: &Proxy, (peer, address): (Peer, &str)) -> About {
        let token = self.request.upgrade.as_deref().map(Upgrade::token);
        About {
            kind: lossy(token.unwrap_or_default()).to_ascii_lowercase(),
            client: address_of(&Caller { peer, address }, &self.request),
            target: shown_target(proxy, self.request.target()),
            upstream: proxy.pool.name(self.upstream.endpoint).to_owned(),
        }
    }

    /// Closes the app server's side; counts the tunnel as a request and writes down what
    /// became of it: the octets that passed to the app server and to the client, and what
    /// went wrong.
    pub fn finish(
        self,
        proxy: &Proxy,
        (peer, address): (Peer, &str),
        (bytes_in, bytes_out): (u64, u64),
        failure: Option<&Failure>,
    ) {
        let summary = Summary {
            status: 101,
            bytes_in,
            bytes_out,
            first_byte: self.first_byte,
            upstream: proxy.pool.name(self.upstream.endpoint),
            retries: self.attempts.saturating_sub(1),
            handed: true,
            failure,
        };
        record(proxy, &Caller { peer, address }, &self.request, &summary);
        proxy.pool.discard(self.upstream);
        proxy.spare.give_head(self.request.head);
    }
}
