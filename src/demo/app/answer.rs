//! One request of the app, from its head to the last piece of its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::work::{Checksum, ID, PIECE, Work};
use crate::demo::ledger::Ledger;

type Answer = Response<Either<Full<Bytes>, Pieces>>;

/// Reads the whole request, does its work, and answers.
pub(super) async fn answer(mut request: Request<Incoming>, ledger: &Ledger) -> Answer {
    let number = |value: &HeaderValue| value.to_str().ok()?.parse::<u64>().ok();
    let id = request.headers().get(ID).and_then(number);
    let (Some(id), Some(work)) = (id, Work::of_target(request.uri().path())) else {
        return failure(StatusCode::BAD_REQUEST);
    };
    ledger.reached(id);
    let mut received = Checksum::default();
    while let Some(frame) = request.body_mut().frame().await {
        match frame {
            Ok(frame) => received.add(frame.data_ref().map_or(&[], |data| data)),
            // Nothing is done by halves; whoever sent it has gone.
            Err(_) => return failure(StatusCode::BAD_REQUEST),
        }
    }
    ledger.executed(id);
    if let Work::Slow(time) = work {
        sleep(time).await;
    }
    let body = match work {
        Work::Stream(_) => Either::Right(Pieces::new(work, id)),
        _ => Either::Left(Full::new(work.body(id, received))),
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert(ID, HeaderValue::from(id));
    answer
}

fn failure(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}

/// The body of a stream: a piece each [`PIECE`], and its end.
pub(super) struct Pieces {
    work: Work,
    id: u64,
    sent: u64,
    began: Instant,
    due: Pin<Box<Sleep>>,
}

impl Pieces {
    fn new(work: Work, id: u64) -> Pieces {
        let began = Instant::now();
        Pieces { work, id, sent: 0, began, due: Box::pin(sleep_until(began)) }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent > self.work.pieces() {
            return Poll::Ready(None);
        }
        ready!(self.due.as_mut().poll(cx));
        let piece = self.work.piece(self.id, self.sent);
        self.sent += 1;
        // By the clock of the whole stream: a busy machine does not make it longer.
        let next = self.began + PIECE * u32::try_from(self.sent).unwrap_or(u32::MAX);
        self.due.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
