//! A worker's connections to one endpoint: who gets a place on which of them.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::link::{Link, Place, drive, open};
use super::stream::Stream;
use crate::config::{Endpoint, Upstream};
use crate::drain::Deadline;
use crate::limits::H2_UPSTREAM_CONNECTIONS_MAX;
use crate::net::{ConnectError, connect};
use crate::tls::Calls;

/// What connections go by.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct Rules {
    /// The most streams on one of them.
    pub(super) streams: usize,
    /// How long one without streams is kept.
    pub(super) idle: Duration,
    /// How long a silence may be before a PING; zero switches that off.
    pub(super) ping_interval: Duration,
    /// And after it.
    pub(super) ping_timeout: Duration,
}

impl Rules {
    pub(in crate::upstream) fn of(upstream: &Upstream) -> Self {
        Rules {
            streams: upstream.h2_streams,
            idle: upstream.h2_idle_timeout,
            ping_interval: upstream.h2_ping_interval,
            ping_timeout: upstream.h2_ping_timeout,
        }
    }
}

/// The connections.
#[derive(Debug)]
pub(in crate::upstream) struct Links {
    rules: Rules,
    endpoint: Endpoint,
    open: RefCell<Vec<Entry>>,
    /// How many were opened ever.
    opened: Cell<u64>,
    /// One is being opened; whoever needs it too waits for that.
    opening: Cell<bool>,
    news: Notify,
    /// How many there are, those that take no more streams among them.
    alive: Cell<usize>,
    /// There may be a place.
    room: Rc<Notify>,
}

#[derive(Debug)]
struct Entry {
    link: Rc<Link>,
    send: SendRequest<Bytes>,
}

impl Links {
    /// None so far.
    pub(in crate::upstream) fn new(endpoint: Endpoint, rules: Rules) -> Rc<Self> {
        Rc::new(Links {
            rules,
            endpoint,
            open: RefCell::default(),
            opened: Cell::new(0),
            opening: Cell::new(false),
            news: Notify::new(),
            alive: Cell::new(0),
            room: Rc::default(),
        })
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A place on an open connection that has room, if there is one.
    pub(in crate::upstream) fn take(&self) -> Option<Stream> {
        self.take_after(0)
    }

    /// The same on one that was opened after the first `floor`.
    fn take_after(&self, floor: u64) -> Option<Stream> {
        let mut open = self.open.borrow_mut();
        // After a GOAWAY there are no new streams, and h2 knows of it first.
        let mut nobody = Context::from_waker(Waker::noop());
        open.retain_mut(|entry| !matches!(entry.send.poll_ready(&mut nobody), Poll::Ready(Err(_))));
        let fits = |entry: &&Entry| {
            let most = self.rules.streams.min(entry.link.most.get());
            entry.link.number > floor && entry.link.streams.get() < most
        };
        let entry = open.iter().find(fits)?;
        let secure = self.endpoint.speaks.is_tls();
        Some(Stream::new(Place::on(&entry.link), entry.send.clone(), secure))
    }

    /// A place on a connection that is opened from now on: on those there are, there is
    /// no room, or something has gone wrong. One is opened at a time, and all who wait
    /// for it share it. `until` bounds it all. If there are too many, any place will do
    /// that becomes free.
    pub(in crate::upstream) async fn open(
        self: &Rc<Self>,
        calls: Option<&Calls>,
        drivers: &RefCell<JoinSet<()>>,
        until: Deadline,
    ) -> Result<Stream, ConnectError> {
        let floor = self.opened.get();
        let attempt = async {
            loop {
                let floor = if self.is_full() { 0 } else { floor };
                if let Some(stream) = self.take_after(floor) {
                    return Ok(stream);
                }
                if self.is_full() {
                    self.room.notified().await;
                    continue;
                }
                if self.opening.get() {
                    self.news.notified().await;
                    continue;
                }
                let _turn = Turn::begin(self);
                let socket = connect(&self.endpoint, calls, until).await?;
                let number = self.opened.get() + 1;
                let opened = open(socket, number, &self.rules, &self.room).await?;
                self.opened.set(number);
                let link = Rc::clone(&opened.link);
                let mut drivers = drivers.borrow_mut();
                while drivers.try_join_next().is_some() {}
                drivers.spawn_local(drive(Alive::on(self), Rc::clone(&link), opened.line));
                self.open.borrow_mut().push(Entry { link, send: opened.send });
                self.room.notify_waiters();
            }
        };
        match until.instant() {
            None => attempt.await,
            Some(at) => tokio::time::timeout_at(at.into(), attempt)
                .await
                .unwrap_or_else(|_| Err(self.late())),
        }
    }

    /// Whether no connection may be opened.
    fn is_full(&self) -> bool {
        self.alive.get() >= H2_UPSTREAM_CONNECTIONS_MAX
    }

    /// Why nobody has got a place in time.
    fn late(&self) -> ConnectError {
        if self.is_full() {
            let full = "all HTTP/2 connections to the app server are full";
            return ConnectError::Exhausted(io::Error::other(full));
        }
        ConnectError::TimedOut
    }

    /// Opens no more streams on a connection; those that are open go on.
    pub(super) fn forget(&self, number: u64) {
        self.open.borrow_mut().retain(|entry| entry.link.number != number);
    }

    /// Opens no more streams on any.
    pub(in crate::upstream) fn forget_all(&self) {
        self.open.borrow_mut().clear();
    }
}

/// A connection, as long as it is there.
pub(super) struct Alive(Rc<Links>);

impl Alive {
    fn on(links: &Rc<Links>) -> Self {
        links.alive.set(links.alive.get() + 1);
        Alive(Rc::clone(links))
    }

    /// What it belongs to.
    pub(super) fn links(&self) -> &Links {
        &self.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
        self.0.room.notify_one();
    }
}

/// The turn of whoever opens a connection. However it ends, the others look again.
struct Turn<'a>(&'a Links);

impl<'a> Turn<'a> {
    fn begin(links: &'a Links) -> Self {
        links.opening.set(true);
        Turn(links)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.news.notify_waiters();
    }
}
