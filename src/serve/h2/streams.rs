//! The streams of one connection: those under way, and those that are over but
//! for their last octets.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use slab::Slab;

use super::super::seat::Seat;
use super::super::tunnel::serve_stream;
use super::super::worker::Worker;
use super::turn::{Bell, Turns};
use crate::limits::H2_SEND_BUFFER;
use crate::proxy::Failure;
use crate::proxy::h2::{Client, Outcome, Served, Switched, serve};
use crate::proxy::request::Arrival;

/// A connection's streams.
pub(super) struct Streams<'a> {
    worker: &'a Worker,
    client: &'a Client,
    turns: Arc<Turns>,
    open: Slab<Open<'a>>,
    /// Over, as far as h2 goes; the kernel may not have all of it.
    served: Vec<Past<'a>>,
    cancelled: u32,
}

struct Open<'a> {
    bell: Arc<Bell>,
    waker: Waker,
    future: Pin<Box<dyn Future<Output = Outcome<'a>> + 'a>>,
    /// Of a tunnel: until when the GOAWAY of a drain waits for it.
    goaway: Option<Rc<Cell<u64>>>,
}

struct Past<'a> {
    served: Served<'a>,
    /// When the kernel has taken so many octets of the connection, it has taken
    /// all of this.
    out: u64,
}

impl<'a> Open<'a> {
    /// Goes on as a tunnel, without what the request has needed.
    fn become_tunnel(&mut self, worker: &'a Worker, client: &'a Client, switched: Box<Switched>) {
        let goaway = Rc::new(Cell::new(u64::MAX));
        self.goaway = Some(Rc::clone(&goaway));
        let seat = Seat::take(worker);
        self.future = Box::pin(async move {
            Outcome::Over(serve_stream(worker, &seat.alarm, client, switched, &goaway).await)
        });
        self.bell.ring();
    }
}

impl<'a> Streams<'a> {
    pub(super) fn new(worker: &'a Worker, client: &'a Client, turns: &Arc<Turns>) -> Self {
        let turns = Arc::clone(turns);
        Streams { worker, client, turns, open: Slab::new(), served: Vec::new(), cancelled: 0 }
    }

    /// Begins to serve a stream.
    pub(super) fn open(
        &mut self,
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) {
        let (worker, client) = (self.worker, self.client);
        let began = worker.proxy.clock.refresh();
        let arrival = Arrival { began, wall: SystemTime::now() };
        let seat = Seat::take(worker);
        let future = Box::pin(async move {
            serve(&worker.proxy, &seat.alarm, client, request, respond, arrival).await
        });
        let bell = Bell::new(&self.turns);
        let waker = Waker::from(Arc::clone(&bell));
        self.open.insert(Open { bell, waker, future, goaway: None });
    }

    /// Lets every stream go on that has rung. `taken` is what the kernel has
    /// taken of the connection so far.
    pub(super) fn poll(&mut self, taken: u64) {
        // h2 sends its streams' frames in turn: however many there are, each of
        // them holds this much at most, and so it is out when all may be.
        let most = H2_SEND_BUFFER as u64 * (1 + self.worker.proxy.config.limits.streams as u64);
        let (served, cancelled) = (&mut self.served, &mut self.cancelled);
        let (worker, client) = (self.worker, self.client);
        self.open.retain(|_, open| {
            if !open.bell.answer() {
                return true;
            }
            match open.future.as_mut().poll(&mut Context::from_waker(&open.waker)) {
                Poll::Pending => true,
                Poll::Ready(Outcome::Tunnel(switched)) => {
                    open.become_tunnel(worker, client, switched);
                    true
                }
                Poll::Ready(Outcome::Over(over)) => {
                    open.bell.take_down();
                    *cancelled += u32::from(over.was_cancelled());
                    served.push(Past { served: over, out: taken.saturating_add(most) });
                    false
                }
            }
        });
    }

    /// Until when the GOAWAY of a drain waits for tunnels; 0 if there are none.
    pub(super) fn goaway_waits(&self) -> u64 {
        let tunnels = self.open.iter().filter_map(|(_, open)| open.goaway.as_ref());
        tunnels.map(|goaway| goaway.get()).max().unwrap_or(0)
    }

    /// How many the client has given up since this was last asked.
    pub(super) fn take_cancelled(&mut self) -> u32 {
        std::mem::take(&mut self.cancelled)
    }

    /// Whether nothing is under way.
    pub(super) fn are_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether nothing is under way and everything is written down.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.served.is_empty()
    }

    /// Writes down what is over. `lost` is why its last octets did not get out.
    pub(super) fn write_down(&mut self, lost: Option<fn() -> Failure>) {
        for past in self.served.drain(..) {
            past.served.finish(lost.map(|lost| lost()));
        }
    }

    /// Writes down what is certainly out, although the kernel takes no more at
    /// the moment.
    pub(super) fn write_down_until(&mut self, taken: u64) {
        for past in self.served.extract_if(.., |past| past.out <= taken) {
            past.served.finish(None);
        }
    }
}
