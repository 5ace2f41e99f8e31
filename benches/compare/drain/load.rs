//! The app and the clients of the demo around a proxy.

use std::net::SocketAddr;
use std::time::Duration;

use ebbtide::demo::app::App;
use ebbtide::demo::clients::{Clients, Kind, Mix};

use super::account::Account;
use crate::support::Error;
use crate::support::proxy::Doors;

/// How long what takes long takes.
const LONG: Duration = Duration::from_secs(1);

/// Clients of no kind yet.
const fn nobody() -> Mix {
    let mut mix = Mix::none();
    mix.long = LONG;
    mix
}

/// Clients of all kinds over HTTP/1.1: busy ones as in the research that these rows come
/// from, and as many that are mostly idle.
const HTTP1: Mix = SHORT.with(Kind::Long, 8).with(Kind::Download, 8).with(Kind::Upload, 8);

/// The same without what takes long.
const SHORT: Mix = nobody()
    .with(Kind::Get, 16)
    .with(Kind::Post, 16)
    .with(Kind::SlowGet, 16)
    .with(Kind::SlowPost, 16)
    .with(Kind::OneEach, 8)
    .with(Kind::MostlyIdle, 64);

/// HTTP/2 has a port of its own with some.
const HTTP2: Mix = nobody().with(Kind::H2, 8);

/// How many clients there are.
pub(super) const fn clients() -> usize {
    let mut sum = 0;
    let mut at = 0;
    while at < Kind::COUNT {
        sum += HTTP1.of(Kind::ALL[at]) + HTTP2.of(Kind::ALL[at]);
        at += 1;
    }
    sum
}

/// How many there are of those without what takes long.
pub(super) const fn short_clients() -> usize {
    let mut sum = 0;
    let mut at = 0;
    while at < Kind::COUNT {
        sum += SHORT.of(Kind::ALL[at]);
        at += 1;
    }
    sum
}

/// An app, and clients once there is a proxy before it.
pub(super) struct Load {
    app: App,
    clients: Vec<Clients>,
}

impl Load {
    pub(super) fn prepare() -> Result<Self, Error> {
        Ok(Self { app: App::start()?, clients: Vec::new() })
    }

    /// Where the app is.
    pub(super) fn upstream(&self) -> SocketAddr {
        self.app.addr()
    }

    /// Starts the clients.
    pub(super) fn begin(&mut self, doors: &Doors) -> Result<(), Error> {
        self.join(doors.h1, HTTP1)?;
        self.join(doors.h2, HTTP2)
    }

    /// Starts only those of the research, over HTTP/1.1: what they ask for takes 300 ms
    /// at most, so that an old process has no other reason to stay.
    pub(super) fn begin_short(&mut self, doors: &Doors) -> Result<(), Error> {
        self.join(doors.h1, SHORT)
    }

    fn join(&mut self, addr: SocketAddr, mix: Mix) -> Result<(), Error> {
        self.clients.push(Clients::start(addr, self.app.ledger(), mix)?);
        Ok(())
    }

    /// Lets the clients end, and adds what they have counted.
    pub(super) fn finish(self, account: &mut Account) {
        for clients in self.clients {
            account.add(&clients.finish());
        }
        account.repeated += self.app.ledger().repeated();
    }
}
