//! Serving the admin listener on the control thread.
//!
//! Owns its connections: how many, how long, and who may have one. Promises
//! that no peer can keep others out: when all places are taken the connection
//! that has been waiting longest gives its place up. Does not decide what is
//! answered (see `routes`), nor when the listener is shut or ends: it is told.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::bind::{AdminListener, Kind};
use super::commands::Commands;
use super::routes::{Origin, answer};
use super::status::Status;
use crate::handoff::takeover::may_ask;
use crate::limits::{
    ADMIN_BUFFER, ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_TIMEOUT, ADMIN_IDLE_TIMEOUT, ADMIN_LAST_WORD,
    ADMIN_STOP_TIMEOUT,
};
use crate::telemetry::{Event, Events, Level};

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The facts that are served.
pub trait View {
    /// The process works.
    fn live(&self) -> bool;
    /// New work should be sent here.
    fn ready(&self) -> bool;
    /// The status document.
    fn status(&self) -> Status;
    /// The metrics text.
    fn metrics(&self) -> String;
}

/// Whom one may ask.
pub struct Service {
    /// How the process is.
    pub view: Rc<dyn View>,
    /// Who does what is asked for.
    pub commands: Rc<dyn Commands>,
    /// The host names, besides our own, under which TCP peers may ask.
    pub names: Vec<String>,
    /// Listened to by every connection that may still be answered from what is known now.
    pub asking: watch::Sender<()>,
}

/// Whose the listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Ours alone: its path goes with it.
    Open,
    /// Ours, and a predecessor still has it: its path stays.
    Shared,
    /// A successor's. Nobody is let in any more, who is in leaves with his answer, and
    /// its path stays. An answer that goes on does so. It may be opened again.
    HandedOver,
    /// The same, and our copy is closed.
    Dropped,
    /// Nobody's: it is closed, and its path goes. An answer that goes on does so.
    Removed,
}

impl Door {
    fn apply(self, listener: &mut Option<AdminListener>, stopping: &watch::Sender<bool>) {
        if let Some(listener) = listener {
            match self {
                Door::Open | Door::Removed => listener.own(),
                Door::Shared | Door::HandedOver | Door::Dropped => listener.leave(),
            }
        }
        if matches!(self, Door::Dropped | Door::Removed) {
            *listener = None;
        }
        stopping.send_replace(!self.lets_in());
    }

    fn lets_in(self) -> bool {
        matches!(self, Door::Open | Door::Shared)
    }
}

/// Serves until `stop` is done, then lets answers under way finish for a moment.
/// Runs on a local runtime: connections are local tasks.
pub async fn serve(
    listener: AdminListener,
    service: Service,
    events: Events,
    mut door: watch::Receiver<Door>,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(false);
    let service = Rc::new(service);
    let mut tasks = JoinSet::new();
    let mut places = Places::default();
    let mut stop = std::pin::pin!(stop);
    let mut listener = Some(listener);
    let mut moves = true;
    loop {
        let state = *door.borrow_and_update();
        state.apply(&mut listener, &stopping);
        let accepted = tokio::select! {
            // Nobody is let in behind a door that was shut a moment ago.
            biased;
            () = &mut stop => break,
            changed = door.changed(), if moves => {
                moves = changed.is_ok();
                continue;
            }
            Some(_) = tasks.join_next() => continue,
            accepted = accept(&listener, &events), if state.lets_in() => accepted,
        };
        let activity = Rc::new(Cell::new(Activity::Head(Instant::now())));
        let connection =
            Connection::new(Rc::clone(&activity), Rc::clone(&service), stopped.clone());
        let task = match accepted {
            Accepted::Tcp(stream, origin) => tasks.spawn_local(connection.run(stream, origin)),
            Accepted::Unix(stream) => tasks.spawn_local(connection.run(stream, Origin::Unix)),
        };
        places.take(Place { activity, task });
    }
    let last = *door.borrow();
    last.apply(&mut listener, &stopping);
    drop(listener);
    stopping.send_replace(true);
    let finish = async { while tasks.join_next().await.is_some() {} };
    // What is not done by then is dropped with the set.
    let _ = tokio::time::timeout(ADMIN_STOP_TIMEOUT, finish).await;
}

enum Accepted {
    Tcp(TcpStream, Origin),
    Unix(UnixStream),
}

/// The next connection whose peer may ask. Errors are waited out.
async fn accept(listener: &Option<AdminListener>, events: &Events) -> Accepted {
    let Some(listener) = listener else { return std::future::pending().await };
    let mut backoff = BACKOFF_MIN;
    loop {
        match accept_once(listener, events).await {
            Ok(Some(accepted)) => return accepted,
            Ok(None) => {}
            // The peer's doing, not a shortage of ours.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                let event = Event::new(Level::Warn, "admin_accept_failed");
                events.limited(
                    "admin_accept_failed",
                    WARN_EVERY,
                    event.with("message", e.to_string()),
                );
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

async fn accept_once(listener: &AdminListener, events: &Events) -> io::Result<Option<Accepted>> {
    match &listener.kind {
        Kind::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            let Ok(local) = stream.local_addr() else {
                return Ok(None);
            };
            Ok(Some(Accepted::Tcp(stream, Origin::Tcp(local.ip()))))
        }
        Kind::Unix { listener, .. } => {
            let (stream, _) = listener.accept().await?;
            let Ok(peer) = stream.peer_cred() else {
                return Ok(None);
            };
            if may_ask(peer.uid()) {
                return Ok(Some(Accepted::Unix(stream)));
            }
            let event = Event::new(Level::Warn, "admin_peer_refused").with("uid", peer.uid());
            events.limited("admin_peer_refused", WARN_EVERY, event);
            Ok(None)
        }
    }
}

/// What a connection waits for, and since when. It waits for us only where it has asked
/// to be told what happens: other answers are made at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Activity {
    /// The rest of a request.
    Head(Instant),
    /// The next request, or that the last answer is taken.
    Idle(Instant),
    /// What happens next.
    Told,
}

impl Activity {
    fn since(self) -> Option<Instant> {
        match self {
            Self::Head(since) | Self::Idle(since) => Some(since),
            Self::Told => None,
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Head(since) => Some(since + ADMIN_HEAD_TIMEOUT),
            Self::Idle(since) => Some(since + ADMIN_IDLE_TIMEOUT),
            Self::Told => None,
        }
    }
}

struct Place {
    activity: Rc<Cell<Activity>>,
    task: AbortHandle,
}

/// The open connections.
#[derive(Default)]
struct Places {
    taken: Vec<Place>,
}

impl Places {
    /// Gives a place, the one of the longest waiting connection if need be.
    fn take(&mut self, place: Place) {
        self.taken.retain(|place| !place.task.is_finished());
        if self.taken.len() >= ADMIN_CONNECTIONS_MAX {
            let since = |i: &usize| self.taken[*i].activity.get().since();
            // Who is told what happens goes last.
            let oldest = (0..self.taken.len()).min_by_key(|i| (since(i).is_none(), since(i)));
            if let Some(oldest) = oldest {
                self.taken.swap_remove(oldest).task.abort();
            }
        }
        self.taken.push(place);
    }
}

pub(super) struct Connection {
    activity: Rc<Cell<Activity>>,
    service: Rc<Service>,
    stopped: watch::Receiver<bool>,
    asking: watch::Receiver<()>,
}

impl Connection {
    /// It is asking from now on.
    pub(super) fn new(
        activity: Rc<Cell<Activity>>,
        service: Rc<Service>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let asking = service.asking.subscribe();
        Connection { activity, service, stopped, asking }
    }

    /// Ends with the peer's close, an error, a timeout, or after the answer under
    /// way when serving stops.
    pub(super) async fn run<S>(self, stream: S, origin: Origin)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Self { activity, service, mut stopped, asking } = self;
        let asking = Rc::new(Cell::new(Some(asking)));
        let answered = Rc::clone(&activity);
        let service = service_fn(|request: Request<Incoming>| {
            let (service, activity) = (Rc::clone(&service), Rc::clone(&answered));
            let asking = Rc::clone(&asking);
            async move {
                let response = answer(request, origin, &service, &activity).await;
                if matches!(activity.get(), Activity::Told) {
                    drop(asking.take());
                } else {
                    activity.set(Activity::Idle(Instant::now()));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let begun = Rc::clone(&activity);
        let stream = Watched { stream, activity: Rc::clone(&activity) };
        // Our own timeouts tell a slow head from an idle connection; hyper's does not.
        let served = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(ADMIN_BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = std::pin::pin!(served);
        let mut timer = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
        // Polled after `served`, so that it sees what that has just read or answered.
        let mut expired = std::future::poll_fn(move |cx| {
            let Some(deadline) = activity.get().deadline() else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(cx)
        });
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut served => return,
                () = is_over(&mut stopped, &begun), if !told => {
                    told = true;
                    served.as_mut().graceful_shutdown();
                }
                () = &mut expired => return,
            }
        }
    }
}

/// Waits until the listener is shut. Whoever has just come, or is asking, has a moment
/// to be answered.
async fn is_over(stopped: &mut watch::Receiver<bool>, activity: &Cell<Activity>) {
    let _ended = stopped.wait_for(|stopped| *stopped).await;
    if let Activity::Head(since) = activity.get() {
        tokio::time::sleep_until(since + ADMIN_LAST_WORD).await;
    }
}

/// Notes when the octets of a request begin to arrive.
struct Watched<S> {
    stream: S,
    activity: Rc<Cell<Activity>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && matches!(self.activity.get(), Activity::Idle(_)) {
            self.activity.set(Activity::Head(Instant::now()));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
