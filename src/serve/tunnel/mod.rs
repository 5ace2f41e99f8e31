//! Tunnels: connections that have become another protocol's.

mod farewell;
mod relay;
mod way;

use std::future::poll_fn;

use self::relay::{Over, Relay};
use super::kept::Kept;
use super::session::End;
use super::worker::Worker;
use crate::net::Alarm;
use crate::proxy::h1::Client;
use crate::proxy::{Failure, Tunnel};
use crate::telemetry::{CloseReason, ConnectionState};

/// Relays a tunnel to its end; says how the client's connection is closed.
pub(super) async fn serve(
    worker: &Worker,
    alarm: &Alarm,
    (client, kept): (&mut Client, &Kept),
    mut tunnel: Box<Tunnel>,
) -> End {
    let is_websocket = tunnel.is_websocket();
    kept.guard.shift(if is_websocket {
        ConnectionState::TunnelWebSocket
    } else {
        ConnectionState::TunnelOpaque
    });
    let caller = (client.peer, client.address.clone());
    let entry = worker.tunnels.enter(tunnel.about(&worker.proxy, (caller.0, &caller.1)));
    let mut relay = Relay::new(worker, alarm, client, &mut tunnel);
    let over = poll_fn(|cx| {
        let polled = relay.poll(cx);
        entry.note(relay.up.octets, relay.down.octets);
        polled
    });
    let over = over.await;
    let passed = (relay.up.octets, relay.down.octets);
    let leaves_part = relay.leaves_part;
    drop(relay);
    let (end, failure) = outcome(over);
    // Nobody may take for an end that somebody meant what is none.
    let whole = is_websocket && over == Over::ClientGone;
    let is_drop = matches!(end, End::Drop(_));
    client.socket.reset_on_close(is_drop);
    tunnel.upstream.socket.reset_on_close(leaves_part || (is_drop && !whole));
    tunnel.finish(&worker.proxy, (caller.0, &caller.1), passed, failure.as_ref());
    end
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
