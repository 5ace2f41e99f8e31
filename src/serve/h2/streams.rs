//! The streams of one connection: those under way, and those that are over but
//! for their last octets.

use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::SendResponse;

use super::super::worker::{Seat, Worker};
use crate::proxy::Failure;
use crate::proxy::h2::{Client, Served, serve};
use crate::proxy::request::Arrival;

/// A connection's streams.
pub(super) struct Streams<'a> {
    worker: &'a Worker,
    client: &'a Client,
    open: FuturesUnordered<LocalBoxFuture<'a, Served<'a>>>,
    /// Over, as far as h2 goes; the kernel may not have all of it.
    served: Vec<Served<'a>>,
    cancelled: u32,
}

impl<'a> Streams<'a> {
    pub(super) fn new(worker: &'a Worker, client: &'a Client) -> Self {
        let open = FuturesUnordered::new();
        Streams { worker, client, open, served: Vec::new(), cancelled: 0 }
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
        self.open.push(Box::pin(async move {
            serve(&worker.proxy, &seat.alarm, client, request, respond, arrival).await
        }));
    }

    /// Lets every stream go on that can.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(served)) = self.open.poll_next_unpin(cx) {
            self.cancelled += u32::from(served.was_cancelled());
            self.served.push(served);
        }
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
        for served in self.served.drain(..) {
            served.finish(lost.map(|lost| lost()));
        }
    }
}
