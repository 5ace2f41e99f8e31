//! Tunnels: connections, and streams of HTTP/2, that have become another protocol's.

mod farewell;
mod leg;
mod relay;
mod way;

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use self::leg::{Leg, Stream};
use self::relay::{Over, Relay};
use super::kept::Kept;
use super::session::End;
use super::worker::Worker;
use crate::drain::Stage;
use crate::http1::Buffer;
use crate::net::{Alarm, Peer};
use crate::proxy::h1::Client;
use crate::proxy::h2::{self, Served, Switched};
use crate::proxy::{Failure, Passed, Tunnel};
use crate::telemetry::{CloseReason, ConnectionState};

/// Relays a tunnel to its end; says how the client's connection is closed.
pub(super) async fn serve(
    worker: &Worker,
    alarm: &Alarm,
    (client, kept): (&mut Client, &Kept),
    tunnel: Box<Tunnel>,
) -> End {
    kept.guard.shift(state(&tunnel));
    let ahead = std::mem::take(&mut client.buffer);
    let caller = (client.peer, &*client.address);
    let parts = (&mut client.socket, ahead);
    let (end, passed) = relay(worker, alarm, parts, caller, *tunnel, |_| {}).await;
    client.socket.reset_on_close(matches!(end, End::Drop(_)));
    passed.record(&worker.proxy, caller, None);
    end
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
    let Switched { tunnel, to, from } = *switched;
    let guard = worker.shard.guard(state(&tunnel));
    let mut stream = Stream::new(to, from);
    let caller = (client.peer, &*client.address);
    let parts = (&mut stream, Buffer::default());
    let wait = |relay: &Relay<'_, Stream>| goaway.set(relay.goaway_waits());
    let (end, passed) = relay(worker, alarm, parts, caller, tunnel, wait).await;
    drop(guard);
    match end {
        End::Linger(_) => linger(worker, alarm, &mut stream).await,
        _ => stream.reset(),
    }
    Served::tunnel(&worker.proxy, client, passed)
}

fn state(tunnel: &Tunnel) -> ConnectionState {
    if tunnel.is_websocket() {
        ConnectionState::TunnelWebSocket
    } else {
        ConnectionState::TunnelOpaque
    }
}

/// Relays until it is over, and closes the app server's side. `look` sees the relay
/// whenever something has happened.
async fn relay<C: Leg>(
    worker: &Worker,
    alarm: &Alarm,
    client: (&mut C, Buffer),
    caller: (Peer, &str),
    mut tunnel: Tunnel,
    look: impl Fn(&Relay<'_, C>),
) -> (End, Passed) {
    let entry = worker.tunnels.enter(tunnel.about(&worker.proxy, caller));
    let mut relay = Relay::new(worker, alarm, client, &mut tunnel);
    let over = poll_fn(|cx| {
        let polled = relay.poll(cx);
        entry.note(relay.up.octets, relay.down.octets);
        look(&relay);
        polled
    });
    let over = over.await;
    let octets = (relay.up.octets, relay.down.octets);
    let leaves_part = relay.leaves_part;
    let answered = relay.up.has_closed_whole();
    drop(relay);
    let (end, failure) = outcome(over);
    // Nobody may take for an end that somebody meant what is none.
    let whole = tunnel.is_websocket() && over == Over::ClientGone;
    let is_drop = matches!(end, End::Drop(_));
    tunnel.upstream.socket.reset_on_close(leaves_part || (is_drop && !whole));
    (end, tunnel.close(&worker.proxy, octets, failure, answered))
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
