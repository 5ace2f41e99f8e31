//! A client over HTTP/1.1: takes a connection, asks, writes down what came, thinks.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::Mix;
use super::account::Account;
use super::h1::{Broken, Connection, Request};
use super::kind::{Job, Kind, Sends};
use super::pace::Rng;

/// Works until the clients are to finish.
pub(super) async fn run(account: Rc<Account>, kind: Kind, mix: Mix, mut rng: Rng) {
    account.rest(kind.begins(mix.long, &mut rng)).await;
    let mut caller = Caller { account, kind, job: kind.job(mix.long), kept: None };
    while let Some(connection) = caller.connection().await {
        caller.ask(connection).await;
        caller.think(kind.thinks(mix.think, &mut rng)).await;
    }
}

struct Caller {
    account: Rc<Account>,
    kind: Kind,
    job: Job,
    /// The connection that is kept for the next request.
    kept: Option<Connection>,
}

impl Caller {
    /// A connection to ask on; `None` when the clients are to finish.
    async fn connection(&mut self) -> Option<Connection> {
        if self.account.is_finished() {
            return None;
        }
        match self.kept.take() {
            Some(connection) if !connection.has_ended() => return Some(connection),
            Some(_) => self.account.told(self.kind),
            None => {}
        }
        Some(Connection::new(self.account.connect(self.kind).await?))
    }

    /// Asks, and once more in place of a request that raced.
    async fn ask(&mut self, connection: Connection) {
        if self.ask_once(connection).await
            && let Some(connection) = self.connection().await
        {
            self.ask_once(connection).await;
        }
    }

    /// Asks; whether the request raced with the end of the connection.
    async fn ask_once(&mut self, mut connection: Connection) -> bool {
        let Caller { account, kind, job, .. } = self;
        let at_once = !matches!(job.sends, Sends::Slowly(_));
        let closes = matches!(kind, Kind::OneEach | Kind::Download | Kind::Upload);
        let asked = account.ask(*kind, !connection.is_used, at_once);
        match connection.exchange(Request { id: asked.id, job: *job, closes }).await {
            Ok(stays) => {
                account.served(asked);
                if stays {
                    self.kept = Some(connection);
                } else if !closes {
                    account.told(*kind);
                }
                false
            }
            Err(Broken::Lost(way)) => {
                account.lost(asked, way);
                false
            }
            Err(Broken::Unanswered { by_reset }) => account.unanswered(asked, by_reset).await,
        }
    }

    /// Does nothing for a while, except to see that the kept connection ends.
    async fn think(&mut self, time: Duration) {
        let until = Instant::now() + time;
        if let Some(connection) = &self.kept {
            tokio::select! {
                () = self.account.rest_until(until) => return,
                () = connection.ended() => {}
            }
            self.account.told(self.kind);
            self.kept = None;
        }
        self.account.rest_until(until).await;
    }
}
