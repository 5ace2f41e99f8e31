//! Whose connection it is, in the words of a proxy before us (PROXY protocol).
//!
//! Only a peer in `trusted_proxies` is listened to; of everybody else the octets
//! of a header are a request, and a malformed one. The specification says that a
//! receiver must not guess whether there is a header, because then whoever
//! connects could pass as somebody else. Here that is no danger: a trusted peer
//! may say who its client is anyway, in `X-Forwarded-For`. And little is guessed:
//! no request and no ClientHello begins with all that a header begins with, the
//! first octet that differs decides, and what was read until then is not lost.
//!
//! A connection that has announced itself and nothing more is fresh, and parked
//! like any other that is. Octets of a header give no time: a drain counts from
//! the accept, and a header that has begun has `timeouts.head`.

use std::future::poll_fn;
use std::task::Poll;

use super::admit::counted;
use super::kept::Kept;
use super::session::End;
use super::worker::{Worker, millis};
use crate::config::ProxyProtocol;
use crate::drain::Stage;
use crate::limits::{BUFFER, PARK_AFTER, PROXY_HEADER_EVENTS};
use crate::net::{Alarm, Announced, Found, Peer, find_proxy_header};
use crate::proxy::h1::Client;
use crate::telemetry::{CloseReason, Event, Level};

/// A connection that may begin with a header.
pub(super) struct Hearing<'a> {
    pub(super) worker: &'a Worker,
    pub(super) alarm: &'a Alarm,
    pub(super) client: &'a mut Client,
    pub(super) kept: &'a mut Kept,
}

impl Hearing<'_> {
    /// Reads the header if there is one, and takes it at its word; says how the
    /// connection ends if it does not go on. What follows is in the buffer.
    pub(super) async fn run(mut self, woken: bool) -> Option<End> {
        if let Err(end) = self.wait(woken).await {
            return Some(end);
        }
        let found = match self.read().await {
            Ok(found) => found,
            Err(end) => return Some(end),
        };
        self.kept.may_announce = false;
        let Found::Header { length, announced } = found else { return None };
        let (worker, client) = (self.worker, &mut *self.client);
        client.buffer.consume(length);
        if client.buffer.is_empty() {
            worker.proxy.spare.give(std::mem::take(&mut client.buffer));
        }
        if self.believe(announced) {
            None
        } else {
            Some(worker.turn_away(self.alarm, self.client, self.kept).await)
        }
    }

    /// Waits for the first octets, without a buffer as long as there are none.
    async fn wait(&mut self, woken: bool) -> Result<(), End> {
        let worker = self.worker;
        self.alarm.set(PARK_AFTER);
        poll_fn(|cx| {
            self.alarm.attach(cx);
            if worker.may_leave(self.kept.door.secure, 0) {
                return Poll::Ready(Err(End::Park));
            }
            let room = &mut worker.scratch.borrow_mut()[..BUFFER];
            match self.client.socket.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(End::Drop(CloseReason::Client))),
                Poll::Ready(Ok(n)) => {
                    self.client.buffer = worker.proxy.spare.small();
                    self.client.buffer.append(&room[..n]);
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(End::Drop(CloseReason::Error))),
                Poll::Pending if worker.may_park(self.alarm, woken) => Poll::Ready(Err(End::Park)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Reads on until it is known whether there is a header, and what it says.
    async fn read(&mut self) -> Result<Found, End> {
        let proxy = &self.worker.proxy;
        proxy.clock.refresh();
        // What the clock has noted is rounded down: a millisecond more is never less.
        let bound = millis(proxy.config.timeouts.head).saturating_add(1);
        let bound = proxy.clock.now().saturating_add(bound);
        poll_fn(|cx| {
            self.alarm.attach(cx);
            loop {
                match find_proxy_header(self.client.buffer.filled()) {
                    Ok(Found::Part) => {}
                    Ok(Found::Nothing) if self.is_required() => {
                        return Poll::Ready(Err(self.refuse("there is none")));
                    }
                    Ok(found) => return Poll::Ready(Ok(found)),
                    Err(malformed) => return Poll::Ready(Err(self.refuse(&malformed.to_string()))),
                }
                match self.client.poll_fill(cx) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Ready(Ok(_)) => return Poll::Ready(Err(End::Drop(CloseReason::Client))),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Drop(CloseReason::Error))),
                    Poll::Pending => return self.poll_late(bound),
                }
            }
        })
        .await
    }

    /// What becomes of a header whose rest does not come.
    fn poll_late(&self, bound: u64) -> Poll<Result<Found, End>> {
        let (worker, kept) = (self.worker, &*self.kept);
        let octets = self.client.buffer.filled();
        let stage = worker.proxy.stage();
        let mut due = bound;
        // A request that has begun has the time of a head in a drain too.
        if stage >= Stage::Draining && octets != b"P" && octets != b"PR" {
            due = due.min(worker.patience_of(kept));
        }
        if stage < Stage::Cut && worker.proxy.clock.now() < due {
            self.alarm.set_at(due);
            return Poll::Pending;
        }
        // It may as well be the beginning of a request, which is then answered like one.
        if self.may_be_request() {
            return Poll::Ready(Ok(Found::Nothing));
        }
        Poll::Ready(Err(if stage == Stage::Cut {
            End::Drop(CloseReason::Drain)
        } else if due < bound {
            worker.hung(kept.peer, "did not finish its PROXY protocol header");
            End::Linger(CloseReason::Drain)
        } else {
            self.tell("it took too long");
            End::Linger(CloseReason::Timeout)
        }))
    }

    /// Whether what has come may also be of a request: empty lines, or the first
    /// octets of a method.
    fn may_be_request(&self) -> bool {
        let octets = self.client.buffer.filled();
        !self.is_required() && (octets.len() < 3 || octets.len() < 5 && octets[0] == b'\r')
    }

    fn is_required(&self) -> bool {
        self.worker.proxy.config.forwarding.proxy_protocol == ProxyProtocol::Require
    }

    fn refuse(&self, cause: &str) -> End {
        self.tell(cause);
        End::Linger(CloseReason::BadRequest)
    }

    fn tell(&self, cause: &str) {
        let event = Event::new(Level::Info, "proxy_header_refused")
            .with("cause", cause)
            .with("peer", self.kept.peer.to_string());
        self.worker.proxy.events.limited("proxy_header_refused", PROXY_HEADER_EVENTS, event);
    }

    /// From here on the connection is that of the client it is announced for; whether
    /// that may have one more.
    fn believe(&mut self, announced: Announced) -> bool {
        let kept = &mut *self.kept;
        let (address, port) = match announced {
            Announced::Own => return true,
            Announced::Nameless => {
                // It is not the sender who speaks, so nothing it says of others counts.
                kept.trusted = false;
                self.client.trusted = false;
                return true;
            }
            Announced::Client { address, port } => (address, port),
        };
        kept.peer = Peer::Tcp(address);
        kept.door.port = port;
        kept.trusted = self.worker.is_trusted(kept.peer);
        self.client.peer = kept.peer;
        self.client.port = kept.door.port;
        self.client.address = kept.address();
        self.client.trusted = kept.trusted;
        kept.permit.count_for(counted(kept.peer, kept.trusted))
    }
}

impl Worker {
    /// Whether trusted peers may announce somebody else.
    pub(super) fn hears_announcements(&self) -> bool {
        self.proxy.config.forwarding.proxy_protocol != ProxyProtocol::Off
    }
}
