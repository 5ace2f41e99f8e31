//! Whether what a client got is the answer to its own request, and the book of all that
//! was found.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Late;
use super::tag::Tag;
use crate::support::client::{Broken, Response};
use crate::support::h2;
use crate::support::wire::Head;

/// What a client may get without being wronged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The right answer, whole.
    Right,
    /// An error of the proxy's own, whole.
    Refused,
    /// A part of either, and then visibly no more.
    Cut,
    /// Not an octet.
    Nothing,
}

/// A response of which nothing else is known than what came.
#[derive(Debug, Default)]
pub(super) struct Seen<'a> {
    /// The status, with a whole head.
    pub(super) status: Option<u16>,
    /// Every tag in heads and trailers.
    pub(super) tags: Vec<&'a str>,
    /// Whether the proxy says that it is its own.
    pub(super) is_own: bool,
    /// The body, or what came of a head.
    pub(super) octets: &'a [u8],
    /// Whether it looks whole.
    pub(super) whole: bool,
}

/// Something of another request, or of none.
#[derive(Clone, Debug)]
pub(super) struct Crossed {
    /// The request.
    pub(super) tag: Tag,
    /// What came in place of its answer.
    pub(super) what: String,
    /// The answer to no request that came instead.
    pub(super) forged: Option<Tag>,
}

impl fmt::Display for Crossed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}: {}", self.tag, self.what)
    }
}

impl<'a> Seen<'a> {
    /// A whole response of HTTP/1.
    pub(super) fn whole(response: &'a Response) -> Seen<'a> {
        let mut tags = tags(&response.head);
        tags.extend(response.interim.iter().flat_map(tags_or_none));
        tags.extend(trailing(&response.trailers));
        Seen {
            status: Some(response.status),
            tags,
            is_own: response.field("proxy-status").is_some(),
            octets: &response.body,
            whole: true,
        }
    }

    /// A part of one.
    pub(super) fn part(broken: &'a Broken) -> Seen<'a> {
        let Some(head) = &broken.head else {
            return Seen { octets: &broken.got, ..Seen::default() };
        };
        let status = head.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        Seen {
            status,
            tags: tags(head),
            is_own: head.field("proxy-status").is_some(),
            octets: &broken.got,
            whole: false,
        }
    }

    /// What came on a stream.
    pub(super) fn stream(response: &'a h2::Response) -> Seen<'a> {
        let named = |fields: &'a h2::frame::Fields| {
            let found = fields.iter().filter(|(name, _)| name == "x-tag" || name == "x-end");
            found.map(|(_, value)| value.as_str())
        };
        let mut tags: Vec<&str> = named(&response.headers).collect();
        tags.extend(named(&response.trailers));
        for (_, fields) in &response.interims {
            let before = tags.len();
            tags.extend(named(fields));
            if tags.len() == before {
                tags.push("an interim response without a tag");
            }
        }
        Seen {
            status: Some(response.status).filter(|status| *status != 0),
            tags,
            is_own: response.field("proxy-status").is_some(),
            octets: &response.body,
            whole: response.whole,
        }
    }

    /// Whether it may be the answer to the request of `tag`.
    pub(super) fn judge(&self, tag: Tag) -> Result<Outcome, Crossed> {
        let crossed = |what: String| Err(self.crossed(tag, what));
        let own = tag.to_string();
        if let Some(other) = self.tags.iter().find(|other| **other != own) {
            return crossed(format!("the tag {other}"));
        }
        let Some(status) = self.status else {
            let text = String::from_utf8_lossy(self.octets);
            let mut named = text.split("X-Tag: ").skip(1).filter_map(|rest| rest.get(..16));
            return match named.find(|other| *other != own) {
                Some(other) => crossed(format!("the tag {other} in a part of a head")),
                None if self.octets.is_empty() => Ok(Outcome::Nothing),
                None if text.starts_with("HTTP/1.1 ") || "HTTP/1.1 ".starts_with(&*text) => {
                    Ok(Outcome::Cut)
                }
                None => crossed(format!("no head: {}", shown(self.octets))),
            };
        };
        if self.is_own {
            return self.judge_own(tag, status);
        }
        if self.tags.is_empty() {
            return crossed(format!("{status} of nobody: {}", shown(self.octets)));
        }
        if status != tag.status() {
            return crossed(format!("status {status}, not {}", tag.status()));
        }
        let due = if tag.has_body() { tag.answer() } else { Vec::new() };
        match (due.strip_prefix(self.octets), self.whole) {
            (Some([]), true) => Ok(Outcome::Right),
            (Some(_), false) => Ok(Outcome::Cut),
            (Some(rest), true) => crossed(format!("{} octets less, as if whole", rest.len())),
            (None, _) => crossed(format!("other octets: {}", difference(&due, self.octets))),
        }
    }

    /// An answer of the proxy's own has nothing of an app server in it.
    fn judge_own(&self, tag: Tag, status: u16) -> Result<Outcome, Crossed> {
        let text = String::from_utf8_lossy(self.octets);
        let short = text.len() < 64 && text.starts_with(&status.to_string());
        match self.whole {
            true if status >= 400 && (short || text.is_empty()) => Ok(Outcome::Refused),
            false if status >= 400 && text.len() < 64 => Ok(Outcome::Cut),
            _ => Err(self.crossed(tag, format!("{status} of the proxy's own: {text}"))),
        }
    }

    fn crossed(&self, tag: Tag, what: String) -> Crossed {
        let forged = self.tags.iter().filter_map(|tag| Tag::parse(tag)).find(|tag| tag.is_forged());
        Crossed { tag, what, forged }
    }
}

/// What came after the answer to `tag`, where nothing may come.
pub(super) fn unasked(tag: Tag, octets: &[u8]) -> Crossed {
    Crossed { tag, what: format!("unasked behind it: {}", shown(octets)), forged: None }
}

fn tags(head: &Head) -> Vec<&str> {
    head.all("x-tag")
}

/// The tags of an interim response, which has to have one.
fn tags_or_none(head: &Head) -> Vec<&str> {
    let tags = tags(head);
    if tags.is_empty() { vec!["an interim response without a tag"] } else { tags }
}

fn trailing(trailers: &[(String, String)]) -> impl Iterator<Item = &str> {
    let ours = trailers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-end"));
    ours.map(|(_, value)| value.as_str())
}

fn shown(octets: &[u8]) -> String {
    let cut = &octets[..octets.len().min(80)];
    format!("{} octets: {:?}", octets.len(), String::from_utf8_lossy(cut))
}

/// Where two bodies begin to differ, and what stands there.
fn difference(due: &[u8], came: &[u8]) -> String {
    let at = due.iter().zip(came).take_while(|(a, b)| a == b).count();
    format!("from {at} of {} on: {}", due.len(), shown(&came[at..]))
}

/// An answer that the origin sent while it had not an octet of a request to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forgery {
    /// Its tag.
    pub(super) forged: Tag,
    /// What it was.
    pub(super) late: Late,
    /// When it was with the kernel.
    pub(super) at: Instant,
    /// Whether there was still no octet of a request then: it came before the request did.
    pub(super) first: bool,
}

/// A request that came on a connection after such an answer.
#[derive(Clone, Copy, Debug)]
struct Taken {
    victim: Tag,
    late: Late,
    first: bool,
    gap: Duration,
}

/// What all clients and the origin have found.
#[derive(Debug, Default)]
pub(super) struct Book {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: BTreeMap<&'static str, u64>,
    crossed: Vec<Crossed>,
    /// Requests whose clients the origin waits for.
    expected: HashMap<Tag, Sender<()>>,
    /// By the tag of the forged answer.
    taken: HashMap<Tag, Taken>,
}

/// What a run comes to.
#[derive(Debug)]
pub(super) struct Account {
    /// How often each thing happened.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// Crossings that nothing excuses.
    pub(super) crossed: Vec<Crossed>,
    /// Forged answers that no proxy can tell from true ones: told one by one.
    pub(super) raced: Vec<String>,
}

impl Account {
    /// How often something happened.
    pub(super) fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Fails with the first crossings, if there are any.
    pub(super) fn assert_nothing_crossed(&self) {
        let crossed = &self.crossed;
        let first: Vec<String> = crossed.iter().take(10).map(Crossed::to_string).collect();
        assert!(crossed.is_empty(), "{} crossed:\n{}", crossed.len(), first.join("\n"));
    }
}

impl Book {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts something.
    pub(super) fn count(&self, what: &'static str) {
        self.count_many(what, 1);
    }

    /// Counts `n` of something.
    pub(super) fn count_many(&self, what: &'static str, n: u64) {
        self.with(|inner| *inner.counts.entry(what).or_default() += n);
    }

    /// Tells when a client has got something for this request.
    pub(super) fn expect(&self, tag: Tag) -> Receiver<()> {
        let (heard, told) = channel();
        self.with(|inner| inner.expected.insert(tag, heard));
        told
    }

    /// Notes what a client got for a request.
    pub(super) fn note(&self, tag: Tag, seen: &Seen<'_>) {
        if let Some(heard) = self.with(|inner| inner.expected.remove(&tag)) {
            let _late = heard.send(());
        }
        match seen.judge(tag) {
            Ok(Outcome::Right) => self.count("outcome: right"),
            Ok(Outcome::Refused) => self.count("outcome: refused"),
            Ok(Outcome::Cut) => self.count("outcome: cut"),
            Ok(Outcome::Nothing) => self.count("outcome: nothing"),
            Err(crossed) => self.cross(crossed),
        }
    }

    /// Notes a crossing.
    pub(super) fn cross(&self, crossed: Crossed) {
        self.count("outcome: crossed");
        self.with(|inner| inner.crossed.push(crossed));
    }

    /// Notes that a request came where a forged answer had been sent before.
    pub(super) fn taken(&self, forgery: Forgery, victim: Tag) {
        let Forgery { forged, late, at, first } = forgery;
        let taken = Taken { victim, late, first, gap: at.elapsed() };
        self.count(late.taken());
        self.with(|inner| inner.taken.insert(forged, taken));
    }

    /// Draws the line.
    pub(super) fn account(&self) -> Account {
        let inner = self.with(std::mem::take);
        let mut account = Account { counts: inner.counts, crossed: Vec::new(), raced: Vec::new() };
        for crossed in inner.crossed {
            let taken = crossed.forged.and_then(|forged| inner.taken.get(&forged));
            match taken.filter(|taken| taken.victim == crossed.tag) {
                Some(Taken { late, first, gap, .. }) => account.raced.push(format!(
                    "{crossed}: {} {gap:.0?} before the request was read, {} it came",
                    late.name(),
                    if *first { "before" } else { "while" }
                )),
                None => account.crossed.push(crossed),
            }
        }
        account
    }
}
