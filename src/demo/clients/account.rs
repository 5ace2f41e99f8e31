//! Where the clients of one thread write down what became of their requests.
//!
//! Without an octet of an answer a client cannot know more than that. So such requests
//! stay open in the ledger, and are judged by what the app has seen of them: at once,
//! as far as it is known then, and finally when all clients are done.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::kind::Kind;
use super::tally::{Counters, Way, count};
use crate::demo::ledger::Ledger;
use crate::limits::{DEMO_CONNECT, DEMO_DOUBT, DEMO_DOUBTS_MAX, DEMO_RECONNECT};

/// What all clients of one thread share.
pub(super) struct Account {
    pub(super) target: SocketAddr,
    pub(super) ledger: Arc<Ledger>,
    pub(super) counters: Arc<Counters>,
    pub(super) finish: watch::Receiver<bool>,
    pub(super) doubts: RefCell<Vec<Doubt>>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// Nothing has been served on its connection yet.
    pub(super) is_first: bool,
    /// It is sent as a whole, so that the proxy either has it or has not.
    pub(super) at_once: bool,
}

/// A request without a whole answer, and what it counts as so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    asked: Asked,
    claim: Claim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Raced,
    Refused,
    Lost(Way),
}

impl Account {
    /// Whether the clients are to begin nothing more.
    pub(super) fn is_finished(&self) -> bool {
        *self.finish.borrow()
    }

    /// Waits, unless the clients are to finish.
    pub(super) async fn rest(&self, time: Duration) {
        self.rest_until(Instant::now() + time).await;
    }

    /// Waits until then, unless the clients are to finish.
    pub(super) async fn rest_until(&self, until: Instant) {
        let mut finish = self.finish.clone();
        tokio::select! {
            () = sleep_until(until) => {}
            _ = finish.wait_for(|finish| *finish) => {}
        }
    }

    /// Connects, however often it takes; `None` when the clients are to finish. A row of
    /// refusals counts as one.
    pub(super) async fn connect(&self, kind: Kind) -> Option<TcpStream> {
        let mut was_refused = false;
        while !self.is_finished() {
            let tried = timeout(DEMO_CONNECT, TcpStream::connect(self.target)).await;
            match tried.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    // A small request must not wait for the ACK of the one before.
                    let _slower = stream.set_nodelay(true);
                    return Some(stream);
                }
                Err(error) => match error.kind() {
                    // The kernel had connected it, and the reset came before we looked.
                    ErrorKind::ConnectionReset => {
                        let asked = self.ask(kind, true, true);
                        self.lost(asked, Way::Fresh);
                    }
                    // Who is not answered at all never believed that it was connected.
                    ErrorKind::ConnectionRefused | ErrorKind::TimedOut if !was_refused => {
                        was_refused = true;
                        let row = self.counters.row(kind);
                        count(&row.asked);
                        count(&row.refused);
                    }
                    // Refused again; or no descriptor, no port: nobody's doing but ours.
                    _ => {}
                },
            }
            self.rest(DEMO_RECONNECT).await;
        }
        None
    }

    /// Begins a request.
    pub(super) fn ask(&self, kind: Kind, is_first: bool, at_once: bool) -> Asked {
        count(&self.counters.row(kind).asked);
        Asked { id: self.ledger.issue(), kind, is_first, at_once }
    }

    /// The whole, right answer came.
    pub(super) fn served(&self, asked: Asked) {
        self.ledger.close(asked.id);
        count(&self.counters.row(asked.kind).served);
    }

    /// The end of a connection was known before it cost a request.
    pub(super) fn told(&self, kind: Kind) {
        count(&self.counters.row(kind).told);
    }

    /// The proxy said that it has not taken the request.
    pub(super) fn refused(&self, asked: Asked) {
        self.claim(asked, Claim::Refused);
    }

    /// The request was lost in this way, in the middle of an answer or with a wrong one.
    pub(super) fn lost(&self, asked: Asked, way: Way) {
        self.claim(asked, Claim::Lost(way));
    }

    /// The connection ended without an octet of an answer, by a reset or in order.
    /// Whether the request only raced with that, and may be sent again.
    pub(super) async fn unanswered(&self, asked: Asked, by_reset: bool) -> bool {
        // It may be in the app's socket, and the app busy with another.
        sleep(DEMO_DOUBT).await;
        let untouched = asked.at_once && !self.ledger.look(asked.id).reached;
        let claim = match (untouched, asked.is_first, by_reset) {
            (true, false, _) => Claim::Raced,
            (true, true, true) => Claim::Lost(Way::Fresh),
            (_, _, true) => Claim::Lost(Way::Reset),
            (_, _, false) => Claim::Lost(Way::Closed),
        };
        self.claim(asked, claim);
        claim == Claim::Raced
    }

    fn claim(&self, asked: Asked, claim: Claim) {
        self.add(asked.kind, claim);
        let mut doubts = self.doubts.borrow_mut();
        if doubts.len() < DEMO_DOUBTS_MAX {
            doubts.push(Doubt { asked, claim });
        } else {
            self.ledger.close(asked.id);
        }
    }

    fn add(&self, kind: Kind, claim: Claim) {
        let row = self.counters.row(kind);
        match claim {
            Claim::Raced => count(&row.raced),
            Claim::Refused => count(&row.refused),
            Claim::Lost(way) => count(&row.lost[way as usize]),
        }
    }

    /// Looks once more at every request without an answer, now that the app has seen
    /// what it will ever see.
    pub(super) fn settle(&self) {
        for Doubt { asked, claim } in self.doubts.take() {
            let record = self.ledger.close(asked.id);
            let finally = finally(claim, record.reached);
            let row = self.counters.row(asked.kind);
            if finally != claim {
                self.add(asked.kind, finally);
                self.take_back(asked.kind, claim);
            }
            if matches!(finally, Claim::Lost(_)) && record.executed > 0 {
                count(&row.executed);
            }
        }
    }

    fn take_back(&self, kind: Kind, claim: Claim) {
        let row = self.counters.row(kind);
        let counter = match claim {
            Claim::Raced => &row.raced,
            Claim::Refused => &row.refused,
            Claim::Lost(way) => &row.lost[way as usize],
        };
        counter.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// What a request counts as that has come through to the app or not: then the proxy
/// had taken it, whatever it looked like.
const fn finally(claim: Claim, reached: bool) -> Claim {
    match claim {
        Claim::Raced if reached => Claim::Lost(Way::Closed),
        Claim::Refused | Claim::Lost(Way::Fresh) if reached => Claim::Lost(Way::Reset),
        _ => claim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::clients::tally::Counts;

    fn account() -> (Account, watch::Sender<bool>) {
        let (sender, finish) = watch::channel(false);
        let account = Account {
            target: ([127, 0, 0, 1], 1).into(),
            ledger: Arc::new(Ledger::default()),
            counters: Arc::new(Counters::default()),
            finish,
            doubts: RefCell::default(),
        };
        (account, sender)
    }

    /// What a request counts as that ended without an answer, and after the app has
    /// heard of it late.
    fn counted(is_first: bool, at_once: bool, by_reset: bool, late: bool) -> Counts {
        let (account, _finish) = account();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        let asked = account.ask(Kind::Get, is_first, at_once);
        runtime.block_on(account.unanswered(asked, by_reset));
        if late {
            account.ledger.reached(asked.id);
            account.ledger.executed(asked.id);
        }
        account.settle();
        account.counters.read().of(Kind::Get)
    }

    fn lost(way: Way, executed: u64) -> Counts {
        let mut counts = Counts { asked: 1, executed, ..Counts::default() };
        counts.lost[way as usize] = 1;
        counts
    }

    #[test]
    fn a_used_connection_that_ends_before_the_request_reached_anybody_raced() {
        let raced = Counts { asked: 1, raced: 1, ..Counts::default() };
        assert_eq!(counted(false, true, false, false), raced);
        assert_eq!(counted(false, true, true, false), raced);
        assert_eq!(counted(false, false, false, false), lost(Way::Closed, 0));
    }

    #[test]
    fn a_new_connection_owes_an_answer() {
        assert_eq!(counted(true, true, true, false), lost(Way::Fresh, 0));
        assert_eq!(counted(true, true, false, false), lost(Way::Closed, 0));
        assert_eq!(counted(true, false, true, false), lost(Way::Reset, 0));
    }

    #[test]
    fn what_the_app_executed_is_lost_whatever_it_looked_like() {
        assert_eq!(counted(false, true, false, true), lost(Way::Closed, 1));
        assert_eq!(counted(true, true, true, true), lost(Way::Reset, 1));
    }

    #[test]
    fn a_refusal_is_not_believed_when_the_app_has_the_request() {
        let (account, _finish) = account();
        let [honest, lied] = [(); 2].map(|()| account.ask(Kind::H2, false, true));
        account.refused(honest);
        account.refused(lied);
        account.ledger.reached(lied.id);
        account.settle();
        let counts = account.counters.read().of(Kind::H2);
        assert_eq!((counts.refused, counts.lost[Way::Reset as usize]), (1, 1));
        assert_eq!(counts.under_way(), 0);
    }
}
