//! A client over HTTP/2 with prior knowledge: several streams at once on a connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Mix;
use super::account::{Account, Asked};
use super::goaway::{Followed, Seen};
use super::kind::{Job, Kind};
use super::pace::Rng;
use super::tally::Way;
use crate::demo::app::ID;
use crate::limits::{DEMO_ANSWER_MAX, DEMO_PATIENCE};

/// Works until the clients are to finish.
pub(super) async fn run(account: Rc<Account>, mix: Mix, mut rng: Rng) {
    account.rest(Kind::H2.begins(mix.long, &mut rng)).await;
    while let Some(stream) = account.connect(Kind::H2).await {
        converse(&account, mix, &mut rng, stream).await;
    }
}

/// Uses one connection to its end.
async fn converse(account: &Rc<Account>, mix: Mix, rng: &mut Rng, stream: TcpStream) {
    let line = Rc::new(Line {
        account: Rc::clone(account),
        seen: Rc::default(),
        asked: Cell::new(false),
        served: Cell::new(false),
        cost: Cell::new(false),
    });
    let followed = Followed { stream, seen: Rc::clone(&line.seen) };
    let mut tasks = JoinSet::new();
    if let Ok((sender, connection)) = h2::client::handshake(followed).await {
        for job in Kind::streams(mix.long) {
            let stream = Rc::clone(&line).work(sender.clone(), job, mix, rng.fork());
            tasks.spawn_local(stream);
        }
        drop(sender);
        // Ends when nobody has anything to ask any more, or the other side ends it.
        let _ended = connection.await;
    }
    while tasks.join_next().await.is_some() {}
    line.end();
}

/// One connection, shared by its streams.
struct Line {
    account: Rc<Account>,
    seen: Rc<RefCell<Seen>>,
    /// Whether anything was asked, and served, on it.
    asked: Cell<bool>,
    served: Cell<bool>,
    /// Whether its end was the end of a request.
    cost: Cell<bool>,
}

/// Why there is no whole, right answer.
enum Broken {
    /// An error before the head of an answer.
    Unanswered(u32, h2::Error),
    Lost(Way),
}

impl Line {
    /// Asks again and again, on one stream after the other.
    async fn work(self: Rc<Self>, sender: SendRequest<Bytes>, job: Job, mix: Mix, mut rng: Rng) {
        let account = &self.account;
        // Like other clients: some of what takes long ends at any moment.
        if job == Kind::Long.job(mix.long) {
            account.rest(Kind::Long.begins(mix.long, &mut rng)).await;
        }
        while !account.is_finished() {
            // After a GOAWAY, or the end, nothing more is asked here.
            let Ok(sender) = sender.clone().ready().await else {
                return;
            };
            self.asked.set(true);
            let asked = account.ask(Kind::H2, !self.served.get(), true);
            let answer = timeout(DEMO_PATIENCE, exchange(sender, asked.id, job)).await;
            match answer.unwrap_or(Err(Broken::Lost(Way::Stalled))) {
                Ok(()) => {
                    self.served.set(true);
                    account.served(asked);
                }
                Err(Broken::Lost(way)) => account.lost(asked, way),
                Err(Broken::Unanswered(stream, error)) => {
                    self.unanswered(asked, stream, &error).await;
                }
            }
            account.rest(Kind::H2.thinks(mix.think, &mut rng)).await;
        }
    }

    async fn unanswered(&self, asked: Asked, stream: u32, error: &h2::Error) {
        let (last, is_reset) = {
            let seen = self.seen.borrow();
            (seen.last, seen.is_reset || error.is_reset())
        };
        let is_above = last.is_some_and(|last| stream > last);
        if is_above || error.reason() == Some(Reason::REFUSED_STREAM) {
            self.account.refused(asked);
            return;
        }
        self.cost.set(true);
        // GOAWAY tells which streams are not taken, so that none has to race with an end.
        let asked = Asked { is_first: true, ..asked };
        self.account.unanswered(asked, is_reset).await;
    }

    /// The connection is over.
    fn end(&self) {
        if self.account.is_finished() {
            return;
        }
        let was_told = self.seen.borrow().last.is_some();
        if was_told || (self.asked.get() && !self.cost.get()) {
            self.account.told(Kind::H2);
        } else if !self.asked.get() {
            // There was not even the time to ask: the request behind it is lost with it.
            let asked = self.account.ask(Kind::H2, true, true);
            self.account.lost(asked, Way::Fresh);
        }
    }
}

/// One stream, from the request to the end of the answer, which is checked.
async fn exchange(mut sender: SendRequest<Bytes>, id: u64, job: Job) -> Result<(), Broken> {
    let request = Request::builder()
        .method(job.method())
        .uri(format!("http://demo.test{}", job.work))
        .header(ID, id)
        .body(());
    let Ok(request) = request else {
        return Err(Broken::Lost(Way::Wrong));
    };
    let body = job.sends.piece(id, 0);
    let (answer, mut stream) = sender
        .send_request(request, body.is_empty())
        .map_err(|error| Broken::Unanswered(u32::MAX, error))?;
    let number = u32::from(answer.stream_id());
    drop(sender);
    if !body.is_empty() {
        // Why it cannot be sent is what the answer will say.
        let _told_below = stream.send_data(body, true);
    }
    let answer = answer.await.map_err(|error| Broken::Unanswered(number, error))?;
    if answer.status() != StatusCode::OK {
        return Err(Broken::Lost(Way::Status));
    }
    let says = answer.headers().get(ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = read(answer.into_body()).await.map_err(Broken::Lost)?;
    let right = says == Some(id) && body == job.work.body(id, job.sends.sum(id).1);
    if right { Ok(()) } else { Err(Broken::Lost(Way::Wrong)) }
}

async fn read(mut stream: RecvStream) -> Result<BytesMut, Way> {
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data.map_err(|_| Way::Truncated)?;
        // A window that cannot be given back is that of an ended stream.
        let _ended = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
        if body.len() > DEMO_ANSWER_MAX {
            return Err(Way::Wrong);
        }
    }
    match stream.trailers().await {
        Ok(_) => Ok(body),
        Err(_) => Err(Way::Truncated),
    }
}
