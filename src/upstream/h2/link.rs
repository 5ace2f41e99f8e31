//! One connection: how it is opened, what is known of it, and the task that drives it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::links::{Alive, Rules};
use crate::limits::{
    H2_PING_AGAIN, H2_PINGS, H2_SEND_BUFFER, H2_UPSTREAM_DATA_OVERHEAD, H2_UPSTREAM_RESETS,
    H2_UPSTREAM_RESETS_FOR, H2_UPSTREAM_RESETS_MAX, H2_UPSTREAM_WINDOW_STREAM, RESPONSE_HEAD_MAX,
    TICK,
};
use crate::net::{ConnectError, Socket};

/// What the pool, the driver and the streams of a connection all know.
#[derive(Debug)]
pub(super) struct Link {
    /// Which of its endpoint, in the order of their opening, from 1.
    pub(super) number: u64,
    /// The most streams that the app server allows.
    pub(super) most: Cell<usize>,
    /// Streams that are open, by our count.
    pub(super) streams: Cell<usize>,
    /// Since when there are none, or some.
    since: Cell<Instant>,
    /// When the first of them was opened since the app server has said anything.
    asked: Cell<Option<Instant>>,
    /// It has answered a request.
    pub(super) proven: Cell<bool>,
    /// Whoever waits for a place, on any connection of its endpoint.
    room: Rc<Notify>,
}

/// A stream's place on a link, given back on drop.
#[derive(Debug)]
pub(super) struct Place(pub(super) Rc<Link>);

impl Place {
    pub(super) fn on(link: &Rc<Link>) -> Self {
        if link.streams.get() == 0 || link.asked.get().is_none() {
            link.asked.set(Some(Instant::now()));
        }
        link.count(link.streams.get() + 1);
        Place(Rc::clone(link))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count(self.0.streams.get() - 1);
        self.0.room.notify_one();
    }
}

impl Link {
    fn count(&self, streams: usize) {
        let before = self.streams.replace(streams);
        if (before == 0) != (streams == 0) {
            self.since.set(Instant::now());
        }
    }
}

/// A connection as the pool gets it: to be driven, and a handle for new streams.
pub(super) struct Opened {
    pub(super) link: Rc<Link>,
    pub(super) send: SendRequest<Bytes>,
    pub(super) line: Line,
}

/// What [`drive`] needs.
pub(super) struct Line {
    h2: Connection<Io, Bytes>,
    heard: Rc<Cell<u64>>,
}

/// Speaks HTTP/2 on a new connection until the app server has said its settings: from
/// then on it is known to be one, and how many streams it takes.
pub(super) async fn open(
    socket: Socket,
    number: u64,
    rules: &Rules,
    room: &Rc<Notify>,
) -> Result<Opened, ConnectError> {
    let heard = Rc::new(Cell::new(0));
    let streams = u32::try_from(rules.streams).unwrap_or(u32::MAX);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(H2_UPSTREAM_WINDOW_STREAM)
        // A client that does not read must not stop the others.
        .initial_connection_window_size(H2_UPSTREAM_WINDOW_STREAM.saturating_mul(streams))
        .data_frame_budget(rules.streams.saturating_mul(H2_UPSTREAM_DATA_OVERHEAD))
        .max_concurrent_reset_streams(rules.streams.saturating_mul(H2_UPSTREAM_RESETS))
        .reset_stream_duration(H2_UPSTREAM_RESETS_FOR)
        .max_header_list_size(RESPONSE_HEAD_MAX as u32)
        .max_send_buffer_size(H2_SEND_BUFFER)
        .max_local_error_reset_streams(Some(H2_UPSTREAM_RESETS_MAX))
        // None before the settings: then there is a number, or there is no limit.
        .initial_max_send_streams(0);
    let useless = |heard: u64| {
        let what = if heard == 0 { "closed at once" } else { "spoke something else than HTTP/2" };
        ConnectError::Useless(what)
    };
    let io = Io { socket, heard: Rc::clone(&heard) };
    let shaken = builder.handshake(io).await;
    let (send, mut h2) = shaken.map_err(|_| useless(heard.get()))?;
    let most = poll_fn(|cx| match Pin::new(&mut h2).poll(cx) {
        Poll::Ready(_) => Poll::Ready(Err(useless(heard.get()))),
        Poll::Pending if h2.max_concurrent_send_streams() > 0 => {
            Poll::Ready(Ok(h2.max_concurrent_send_streams()))
        }
        Poll::Pending => Poll::Pending,
    });
    let link = Link {
        number,
        most: Cell::new(most.await?),
        streams: Cell::new(0),
        since: Cell::new(Instant::now()),
        asked: Cell::new(None),
        proven: Cell::new(false),
        room: Rc::clone(room),
    };
    Ok(Opened { link: Rc::new(link), send, line: Line { h2, heard } })
}

/// Drives a connection to its end. Dropped, it leaves every stream that is left broken.
pub(super) async fn drive(alive: Alive, link: Rc<Link>, line: Line) {
    let links = alive.links();
    let Line { mut h2, heard } = line;
    let mut pings = h2.ping_pong();
    let mut watch = Watch::new(heard.get());
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        if Pin::new(&mut h2).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let most = h2.max_concurrent_send_streams();
        if link.most.replace(most) < most {
            link.room.notify_waiters();
        }
        watch.look(&link, heard.get());
        loop {
            let due = watch.due(&link, links.rules());
            if timer.deadline() > due || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match watch.act(&link, links.rules()) {
                Act::Nothing => {}
                Act::Ping => ping(pings.as_mut(), cx),
                // h2 says goodbye when nobody can open a stream any more.
                Act::Retire => links.forget(link.number),
                Act::GiveUp => return Poll::Ready(()),
            }
        }
    })
    .await;
    links.forget(link.number);
}

fn ping(pings: Option<&mut PingPong>, cx: &mut Context<'_>) {
    if let Some(pings) = pings {
        // The answer to the last one makes room for another.
        let _answered = pings.poll_pong(cx);
        let _under_way = pings.send_ping(Ping::opaque());
    }
}

/// Octets of a PING's acknowledgement.
const PONG: u64 = 9 + 8;

/// Whether the app server is still there.
struct Watch {
    /// Octets that have come.
    heard: u64,
    /// When the last of them did.
    since: Instant,
    /// When it was sent a PING that nothing has come after.
    pinged: Option<Instant>,
    /// How many PINGs it has answered since it has said anything else.
    assured: u8,
    /// Since when the goodbye is under way.
    leaving: Option<Instant>,
}

/// What is to be done now.
enum Act {
    Nothing,
    Ping,
    Retire,
    GiveUp,
}

impl Watch {
    fn new(heard: u64) -> Self {
        Watch { heard, since: Instant::now(), pinged: None, assured: 0, leaving: None }
    }

    fn look(&mut self, link: &Link, heard: u64) {
        let more = heard - self.heard;
        if more > 0 {
            let only_there = self.pinged.is_some() && more <= PONG;
            let assured = if only_there { self.assured.saturating_add(1) } else { 0 };
            link.asked.set(None);
            *self = Watch { assured, leaving: self.leaving, ..Watch::new(heard) };
        }
    }

    /// When the silence on a connection with streams has to be looked into.
    fn silence_end(&self, link: &Link, rules: &Rules) -> Option<Instant> {
        if rules.ping_interval.is_zero() {
            return None;
        }
        Some(match self.pinged {
            Some(at) => later(at, rules.ping_timeout),
            None if self.assured > 0 => match link.asked.get() {
                // What was asked since then shall not wait for an app server that is gone.
                Some(asked) if self.assured < H2_PINGS => later(asked, rules.ping_interval),
                // Servers of gRPC send away who asks again too soon.
                _ => later(self.since, rules.ping_interval.max(H2_PING_AGAIN)),
            },
            None => later(self.since.max(link.since.get()), rules.ping_interval),
        })
    }

    /// When something may have to be done, at the latest.
    fn due(&self, link: &Link, rules: &Rules) -> Instant {
        if let Some(since) = self.leaving {
            return later(since, rules.ping_timeout);
        }
        if link.streams.get() == 0 {
            return later(link.since.get(), rules.idle);
        }
        // Nobody tells when the last stream ends: that is looked for.
        let look = Instant::now() + rules.idle.max(TICK);
        self.silence_end(link, rules).map_or(look, |end| end.min(look))
    }

    fn act(&mut self, link: &Link, rules: &Rules) -> Act {
        let now = Instant::now();
        if self.leaving.is_some() {
            // It does not even take that.
            return Act::GiveUp;
        }
        if link.streams.get() == 0 {
            self.pinged = None;
            if now < later(link.since.get(), rules.idle) {
                return Act::Nothing;
            }
            self.leaving = Some(now);
            return Act::Retire;
        }
        if self.silence_end(link, rules).is_none_or(|end| now < end) {
            return Act::Nothing;
        }
        match self.pinged.replace(now) {
            Some(_) => Act::GiveUp,
            None => Act::Ping,
        }
    }
}

fn later(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

/// h2's end of the socket.
struct Io {
    socket: Socket,
    heard: Rc<Cell<u64>>,
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        let n = ready!(io.socket.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        io.heard.set(io.heard.get() + n as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write(cx, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_end(cx)
    }
}
