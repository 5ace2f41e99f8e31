//! Tunnels: connections, and streams of HTTP/2, that have become another protocol's.

mod farewell;
mod leg;
mod relay;
mod way;

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::OwnedPermit;

use self::leg::{Leg, Stream};
use self::relay::{Over, Relay};
use self::way::Way;
use super::delivery::Departure;
use super::departure::{Room, told};
use super::kept::Kept;
use super::session::End;
use super::worker::Worker;
use crate::drain::Stage;
use crate::handoff::MovedTunnel;
use crate::http1::Buffer;
use crate::net::{Alarm, Peer, Socket};
use crate::proxy::h1::Client;
use crate::proxy::h2::{self, Served, Switched};
use crate::proxy::{Failure, Passed, Tunnel};
use crate::telemetry::{CloseReason, ConnectionState, MovedKind, TunnelEntry};

/// What became of a tunnel.
pub(super) enum Left {
    /// It is over; the client's connection is closed like this.
    Ended(End),
    /// It goes to a successor.
    Leaves(Box<Leaving>),
}

/// A tunnel that goes to a successor, without the client's socket.
pub(super) struct Leaving {
    pub(super) room: OwnedPermit<Departure>,
    pub(super) kind: MovedKind,
    pub(super) upstream: Socket,
    pub(super) moved: MovedTunnel,
    pub(super) octets: Vec<u8>,
}

/// A tunnel that comes from an elder: what is told of it, and what was held of it, upwards
/// and downwards.
pub(super) struct Resumed {
    pub(super) moved: Box<MovedTunnel>,
    pub(super) held: (Vec<u8>, Vec<u8>),
}

/// Relays a tunnel until it is over, or until it leaves.
pub(super) async fn serve(
    worker: &Worker,
    alarm: &Alarm,
    (client, kept): (&mut Client, &Kept),
    mut tunnel: Box<Tunnel>,
    resumed: Option<Resumed>,
) -> Left {
    kept.guard.shift(state(&tunnel));
    let ahead = std::mem::take(&mut client.buffer);
    let caller = (client.peer, &*client.address);
    let age = resumed.as_ref().map_or(0, |resumed| resumed.moved.began);
    let entry = enter(worker, &tunnel, caller, age);
    let can_move = kept.can_move() && !tunnel.upstream.is_tls();
    let mut relay = match resumed {
        None => Relay::new(worker, alarm, (&mut client.socket, ahead), &mut tunnel),
        Some(Resumed { moved, held: (up, down) }) => {
            let ways = (Way::resume(&moved.up, &up), Way::resume(&moved.down, &down));
            let mut relay = Relay::of(worker, alarm, &mut client.socket, &mut tunnel, ways);
            relay.set_ages(&moved);
            relay
        }
    };
    relay.can_move = can_move;
    let mut room = Room::default();
    let fate = poll_fn(|cx| {
        if !relay.may_leave() {
            room.forget();
        } else if let Poll::Ready(Some(room)) = room.poll(worker, cx) {
            return Poll::Ready(Err(room));
        }
        // Nobody who can be served waits for room.
        let polled = relay.poll(cx);
        entry.note(relay.up.octets, relay.down.octets);
        polled.map(Ok)
    });
    match fate.await {
        Ok(over) => {
            let sum = Sum::of(&relay);
            drop(relay);
            let (end, passed) = conclude(over, sum, *tunnel);
            client.socket.reset_on_close(matches!(end, End::Drop(_)));
            passed.record(&worker.proxy, caller, None);
            Left::Ended(end)
        }
        Err(room) => {
            let (began, passed, pinged, half) = relay.ages();
            let (up, down) = (relay.up.moved(), relay.down.moved());
            let mut octets = [relay.up.held(), relay.down.held()].concat();
            drop(relay);
            let is_websocket = tunnel.is_websocket();
            let kind = if is_websocket { MovedKind::WebSocket } else { MovedKind::Tunnel };
            let (socket, upstream, request, texts) = tunnel.depart();
            octets.extend_from_slice(&texts);
            let transport = told(socket.transport());
            let moved =
                MovedTunnel { transport, upstream, up, down, began, passed, pinged, half, request };
            Left::Leaves(Box::new(Leaving { room, kind, upstream: socket, moved, octets }))
        }
    }
}

/// Relays a tunnel on a stream to its end, and ends the stream. `goaway` is the time until
/// which the GOAWAY of a drain waits for it.
pub(super) async fn serve_stream<'a>(
    worker: &'a Worker,
    alarm: &Alarm,
    client: &'a h2::Client,
    switched: Box<Switched>,
    goaway: &Cell<u64>,
) -> Served<'a> {
    let Switched { mut tunnel, to, from } = *switched;
    let guard = worker.shard.guard(state(&tunnel));
    let mut stream = Stream::new(to, from);
    let caller = (client.peer, &*client.address);
    let entry = enter(worker, &tunnel, caller, 0);
    let parts = (&mut stream, Buffer::default());
    let mut relay = Relay::new(worker, alarm, parts, &mut tunnel);
    let over = poll_fn(|cx| {
        let polled = relay.poll(cx);
        entry.note(relay.up.octets, relay.down.octets);
        goaway.set(relay.goaway_waits());
        polled
    });
    let over = over.await;
    let sum = Sum::of(&relay);
    drop((relay, entry));
    let (end, passed) = conclude(over, sum, tunnel);
    drop(guard);
    match end {
        End::Linger(_) => linger(worker, alarm, &mut stream).await,
        _ => stream.reset(),
    }
    Served::tunnel(&worker.proxy, client, passed)
}

/// Lists a tunnel that began so many milliseconds ago.
fn enter(worker: &Worker, tunnel: &Tunnel, caller: (Peer, &str), age: u64) -> TunnelEntry {
    let now = Instant::now();
    let began = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
    worker.tunnels.enter(tunnel.about(&worker.proxy, caller), began)
}

fn state(tunnel: &Tunnel) -> ConnectionState {
    if tunnel.is_websocket() {
        ConnectionState::TunnelWebSocket
    } else {
        ConnectionState::TunnelOpaque
    }
}

/// What a relay has come to.
struct Sum {
    octets: (u64, u64),
    leaves_part: bool,
    answered: bool,
}

impl Sum {
    fn of<C>(relay: &Relay<'_, C>) -> Self {
        Sum {
            octets: (relay.up.octets, relay.down.octets),
            leaves_part: relay.leaves_part,
            answered: relay.up.has_closed_whole(),
        }
    }
}

/// Closes the app server's side of a tunnel that is over.
fn conclude(over: Over, sum: Sum, tunnel: Tunnel) -> (End, Passed) {
    let (end, failure) = outcome(over);
    // Nobody may take for an end that somebody meant what is none.
    let whole = tunnel.is_websocket() && over == Over::ClientGone;
    let is_drop = matches!(end, End::Drop(_));
    tunnel.upstream.reset_on_close(sum.leaves_part || (is_drop && !whole));
    (end, tunnel.close(sum.octets, failure, sum.answered))
}

/// Says the end of a stream, and waits a moment for that of the client, who may have to
/// read what came before: a stream that is dropped is taken from it.
async fn linger(worker: &Worker, alarm: &Alarm, stream: &mut Stream) {
    alarm.set(worker.proxy.plan().linger);
    poll_fn(|cx| {
        alarm.attach(cx);
        let gone = stream.poll_end(cx).map(|ended| ended.is_err());
        let over = alarm.is_due() || worker.proxy.stage() == Stage::Cut;
        if over || gone == Poll::Ready(true) { Poll::Ready(()) } else { stream.poll_discard(cx) }
    })
    .await;
}

/// How a connection ends whose tunnel is over, and what went wrong with it.
fn outcome(over: Over) -> (End, Option<Failure>) {
    let lost = || Failure::Truncated("the app server ended a tunnel without a Close");
    match over {
        Over::Ended => (End::Linger(CloseReason::Response), None),
        Over::Told(reason) => (End::Linger(reason), None),
        Over::ClientGone => (End::Drop(CloseReason::Client), Some(Failure::ClientGone)),
        Over::Lost(true) => (End::Linger(CloseReason::Upstream), Some(lost())),
        Over::Lost(false) => (End::Drop(CloseReason::Upstream), Some(lost())),
        Over::Cut => (End::Drop(CloseReason::Cut), Some(Failure::Cut)),
        Over::Untold(reason) => (End::Drop(reason), None),
    }
}
