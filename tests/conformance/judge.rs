//! What came of a case, held against what was promised.

use crate::corpus::{Expect, Promise, Sight, Trait};
use crate::octets::show;
use crate::strict::{self, Request};

/// What the client was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// The final statuses, in order.
    pub(crate) statuses: Vec<u16>,
    /// Whether a refusal has to have a status: it is HTTP/1, and the client waits for it.
    pub(crate) owed: bool,
    /// Whether the connection, or every stream of the case, has ended.
    pub(crate) ended: bool,
    /// How it was told, for a message.
    pub(crate) story: String,
}

/// What reached the origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrived {
    /// The requests of the case.
    requests: Vec<Request>,
    /// How often the request behind the case came.
    fences: usize,
    /// Why some of it has more than one reading.
    broken: Option<String>,
    /// A request that is not whole.
    partial: bool,
    octets: Vec<u8>,
}

impl Arrived {
    /// Reads the connections that the origin had; `fence` is the target of the request
    /// that the runner itself sends behind the case.
    pub(crate) fn of(connections: &[Vec<u8>], fence: &str) -> Arrived {
        let mut arrived = Arrived { octets: connections.concat(), ..Arrived::default() };
        for connection in connections {
            let reading = strict::read(connection);
            arrived.partial |= reading.partial;
            arrived.broken = arrived.broken.or(reading.broken);
            for request in reading.requests {
                if request.target == fence.as_bytes() {
                    arrived.fences += 1;
                } else {
                    arrived.requests.push(request);
                }
            }
        }
        arrived
    }
}

/// What a case has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was promised.
    Ok,
    /// What has two readings, or what must not arrive, arrived.
    Unsafe(String),
    /// What is right was refused, or not passed on as it was.
    Strict(String),
    /// The client waited in vain.
    Hang(String),
}

/// Judges a case.
pub(crate) fn judge(promise: &Promise, ours: bool, heard: &Heard, arrived: &Arrived) -> Verdict {
    let verdict = decide(promise, promise.expect(ours), ours, heard, arrived);
    let tell = |why: String| {
        format!(
            "{why}\n      client: {:?}{}{}\n      origin: {}",
            heard.statuses,
            if heard.ended { ", ended " } else { ", open " },
            heard.story,
            show(&arrived.octets)
        )
    };
    match verdict {
        Verdict::Ok => Verdict::Ok,
        Verdict::Unsafe(why) => Verdict::Unsafe(tell(why)),
        Verdict::Strict(why) => Verdict::Strict(tell(why)),
        Verdict::Hang(why) => Verdict::Hang(tell(why)),
    }
}

fn decide(
    promise: &Promise,
    expect: Expect,
    ours: bool,
    heard: &Heard,
    arrived: &Arrived,
) -> Verdict {
    if let Some(why) = &arrived.broken {
        return Verdict::Unsafe(why.clone());
    }
    if arrived.fences > 1 {
        return Verdict::Unsafe("the request behind the case arrived twice".to_owned());
    }
    match (expect, arrived.requests.is_empty()) {
        (Expect::Reject | Expect::Safe, true) => refused(promise, ours, heard, arrived),
        (Expect::Reject, false) => Verdict::Unsafe("it arrived as a request".to_owned()),
        (Expect::Accept, true) if heard.ended || !heard.statuses.is_empty() => {
            Verdict::Strict("it was refused".to_owned())
        }
        (Expect::Accept, true) => Verdict::Hang("neither answer nor end".to_owned()),
        (Expect::Safe | Expect::Accept, false) => {
            as_promised(promise, expect, ours, heard, arrived)
        }
    }
}

/// Nothing arrived: the client has to know that, and nothing behind it may count.
fn refused(promise: &Promise, ours: bool, heard: &Heard, arrived: &Arrived) -> Verdict {
    if heard.statuses.first().is_some_and(|status| *status < 400) && arrived.fences == 0 {
        return Verdict::Unsafe("it was answered as if it were right".to_owned());
    }
    if arrived.fences > 0 && !promise.stays {
        return Verdict::Unsafe("what stood behind it was taken for a request".to_owned());
    }
    if ours && heard.owed && heard.statuses.is_empty() && !promise.mute {
        return Verdict::Strict("it was refused without a word".to_owned());
    }
    if heard.ended || promise.unfinished || promise.stays && !heard.statuses.is_empty() {
        return Verdict::Ok;
    }
    if heard.statuses.is_empty() {
        return Verdict::Hang("neither answer nor end".to_owned());
    }
    Verdict::Unsafe("the connection stays open behind it".to_owned())
}

fn as_promised(
    promise: &Promise,
    expect: Expect,
    ours: bool,
    heard: &Heard,
    arrived: &Arrived,
) -> Verdict {
    let mut left: Vec<&Sight> = promise.sees.iter().collect();
    for request in &arrived.requests {
        match left.iter().position(|sight| is(request, sight)) {
            Some(nth) => left.remove(nth),
            None => return Verdict::Unsafe(format!("none was to be {}", told(request))),
        };
    }
    if let (Expect::Accept, [missing, ..]) = (expect, &left[..]) {
        return Verdict::Strict(format!("none was {}", show(&missing.method)));
    }
    let own = promise.ours_lacks.iter().filter(|_| ours);
    for lacks in promise.lacks.iter().chain(own) {
        if arrived.requests.iter().any(|request| shows(request, lacks)) {
            return Verdict::Unsafe(format!("it still has {}", lacks.name.escape_ascii()));
        }
    }
    for has in &promise.has {
        if !arrived.requests.iter().any(|request| shows(request, has)) {
            return Verdict::Strict(format!("it lost {}", has.name.escape_ascii()));
        }
    }
    if expect == Expect::Accept && heard.statuses.is_empty() {
        return Verdict::Hang("no answer".to_owned());
    }
    let refused = heard.statuses.iter().take(promise.sees.len()).any(|status| *status >= 400);
    if expect == Expect::Accept && refused {
        return Verdict::Strict("it arrived, and was refused".to_owned());
    }
    Verdict::Ok
}

fn is(request: &Request, sight: &Sight) -> bool {
    request.method == sight.method
        && sight.target.as_ref().is_none_or(|target| request.path() == *target)
        && sight.body.as_ref().is_none_or(|body| request.body == *body)
}

fn told(request: &Request) -> String {
    let [method, target, body] = [&request.method, &request.target, &request.body].map(|p| show(p));
    format!("{method} {target} with body `{body}`")
}

fn shows(request: &Request, field: &Trait) -> bool {
    request.fields.iter().chain(&request.trailers).any(|(name, value)| {
        name.eq_ignore_ascii_case(&field.name)
            && field.value.as_ref().is_none_or(|wanted| wanted == value)
    })
}
