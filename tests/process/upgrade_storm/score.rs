//! What the clients of a storm counted, and what the app server saw of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::client::Broken;
use crate::support::timeline::Timeline;
use crate::support::wire::End;

/// What an upgrade must never do to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// A connect was refused.
    Refused,
    /// A connection was reset.
    Reset,
    /// A request has no whole answer.
    Lost,
    /// An answer, or what came through a tunnel, is not the right one.
    Wrong,
    /// The app server had a request twice.
    Duplicated,
    /// The app server had requests in another order than they were sent.
    Reordered,
    /// A plaintext HTTP/1.1 connection was ended, or was told so.
    ClosedH1,
    /// A plaintext tunnel was ended.
    ClosedTunnel,
    /// An HTTP/2 or TLS connection was ended otherwise than it has to be.
    Untold,
}

/// Most harms that are told in words.
const TOLD_MAX: usize = 40;

/// Shared by all clients of a storm.
#[derive(Debug)]
pub(crate) struct Score {
    served: AtomicU64,
    messages: AtomicU64,
    harms: Mutex<HashMap<Harm, u64>>,
    told: Timeline,
    over: AtomicBool,
    ledger: Arc<Ledger>,
}

impl Score {
    pub(crate) fn new() -> Arc<Score> {
        Arc::new(Score {
            served: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            harms: Mutex::default(),
            told: Timeline::new(),
            over: AtomicBool::new(false),
            ledger: Arc::default(),
        })
    }

    /// What the app server notes.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// A request was answered rightly.
    pub(crate) fn serve(&self) {
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    /// How many were.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// A message came through a tunnel.
    pub(crate) fn pass(&self) {
        self.messages.fetch_add(1, Ordering::SeqCst);
    }

    /// How many did.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::SeqCst)
    }

    /// Notes harm.
    pub(crate) fn harm(&self, harm: Harm, what: impl Into<String>) {
        let mut harms = self.harms.lock().unwrap_or_else(PoisonError::into_inner);
        *harms.entry(harm).or_default() += 1;
        if harms.values().sum::<u64>() <= TOLD_MAX as u64 {
            self.told.note(format!("{harm:?}: {}", what.into()));
        }
    }

    /// Notes that there was no whole answer.
    pub(crate) fn broken(&self, who: &str, broken: &Broken) {
        let harm = if broken.end == End::Reset { Harm::Reset } else { Harm::Lost };
        let Broken { end, head, got } = broken;
        let head = head.as_ref().map(|head| &head.start);
        self.harm(harm, format!("{who}: {end:?} after {head:?} and {} octets", got.len()));
    }

    /// Notes something that is no harm, to be read beside it.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.told.note(what);
    }

    /// How often harm of a kind was done.
    pub(crate) fn count(&self, harm: Harm) -> u64 {
        let harms = self.harms.lock().unwrap_or_else(PoisonError::into_inner);
        harms.get(&harm).copied().unwrap_or(0)
    }

    /// All harm that was done, in words; none if there is none.
    pub(crate) fn all_harm(&self) -> Option<String> {
        let harms = self.harms.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all: Vec<_> = harms.into_iter().collect();
        all.sort();
        (!all.is_empty()).then(|| format!("{all:?}\n{}", self.told.told()))
    }

    /// The clients end what is under way, and begin nothing more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether they are to.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Compares what a client asked with what the app server had of it.
    pub(crate) fn judge(&self, asked: &Asked) {
        let seen = self.ledger.seen(asked.client);
        let mut count = vec![0u32; asked.next as usize];
        for &n in &seen {
            match count.get_mut(n as usize) {
                Some(count) => *count += 1,
                None => self.harm(Harm::Wrong, format!("{asked:?}: {n} was never sent")),
            }
        }
        for (n, &count) in count.iter().enumerate() {
            if count > 1 {
                self.harm(Harm::Duplicated, format!("client {}, {n}: {count}", asked.client));
            }
            if count == 0 && !asked.lost.contains(&(n as u32)) {
                let what = format!("client {}, {n}: answered, but not by the app", asked.client);
                self.harm(Harm::Wrong, what);
            }
        }
        let falls = seen.windows(2).find(|pair| pair[0] > pair[1] && !asked.at_once);
        if let Some(pair) = falls {
            self.harm(Harm::Reordered, format!("client {}: {pair:?}", asked.client));
        }
    }
}

/// What a client has asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Its number.
    pub(crate) client: u32,
    /// The number of its next request.
    pub(crate) next: u32,
    /// The requests that have no answer.
    pub(crate) lost: Vec<u32>,
    /// It sends more than one at once, whose order nobody has to keep.
    pub(crate) at_once: bool,
}

impl Asked {
    pub(crate) fn by(client: u32) -> Asked {
        Asked { client, ..Asked::default() }
    }

    /// The target of the next request: a path, and an id that the app server notes.
    pub(crate) fn target(&mut self, path: &str) -> String {
        let target = format!("{path}?id={}.{}", self.client, self.next);
        self.next += 1;
        target
    }

    /// The last one has no answer.
    pub(crate) fn lose(&mut self) {
        self.lost.push(self.next - 1);
    }
}

/// The requests of each client, in the order in which they reached the app server.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<u32, Vec<u32>>>);

impl Ledger {
    /// Notes the id of a request, if it has one.
    pub(crate) fn note(&self, target: &str) {
        let id = target.split("?id=").nth(1).and_then(|id| id.split_once('.'));
        let Some((client, n)) = id else { return };
        let (Ok(client), Ok(n)) = (client.parse(), n.parse()) else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(client).or_default().push(n);
    }

    fn seen(&self, client: u32) -> Vec<u32> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&client).cloned().unwrap_or_default()
    }
}
