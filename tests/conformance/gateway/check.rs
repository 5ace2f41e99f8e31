//! One expectation, and whether a message meets it.

use super::heard::{Heard, Outcome};

use crate::octets::{self, show};
use crate::support::origin::Request;
use crate::support::wire::find;

/// Fields in order: names and values.
pub(crate) type Fields = Vec<(String, String)>;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The response that the client has read last.
    Client,
    /// The nth request of the case that reached the origin, from 0.
    Origin(usize),
}

/// A text that has to be met.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// Exactly this.
    Is(String),
    /// With `*` for anything.
    Like(String),
}

/// What is expected.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// One of these statuses.
    Status(Vec<u16>),
    /// How the response ended, one of these.
    Outcome(Vec<Outcome>),
    /// The start line.
    Start(Text),
    /// The field stands there once, with this value.
    Field(String, Text),
    /// The field does not stand there.
    No(String),
    /// The field stands there.
    Has(String),
    /// All lines of the field, in order.
    All(String, Vec<String>),
    /// All lines of the field put together as a list.
    Joined(String, String),
    /// A list field has this member.
    Lists(String, String),
    /// A list field does not have this member.
    Lacks(String, String),
    /// The body.
    Body(Text),
    /// A trailer with this value.
    Trailer(String, Text),
    /// No such trailer.
    NoTrailer(String),
    /// These octets stand somewhere in the head.
    Octets(Vec<u8>),
    /// They do not.
    NoOctets(Vec<u8>),
    /// The interim responses before.
    Interims(Vec<u16>),
    /// A field of an interim response.
    InterimField(u16, String, Text),
    /// How an HTTP/1 client knows the body's end.
    Framing(String),
    /// The connection ends behind the response.
    Closes,
    /// So many requests reached the origin.
    Requests(usize),
    /// They came over so many connections.
    Connections(usize),
}

/// An expectation with its conditions.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// The line in its file, for messages.
    pub(crate) text: String,
    /// Only when the client got one of these statuses.
    pub(crate) when: Vec<u16>,
    /// Only of our own proxy.
    pub(crate) ours: bool,
    /// What is looked at.
    pub(crate) side: Side,
    /// What is expected of it.
    pub(crate) what: What,
}

impl Check {
    /// Reads `[when STATUS] [ours] client|origin|origin#N VERB ...`.
    pub(crate) fn parse(line: &str) -> Result<Check, String> {
        let mut rest = line;
        let mut when = Vec::new();
        if let Some(more) = rest.strip_prefix("when ") {
            let (which, more) = word(more);
            (when, rest) = (statuses(which)?, more);
        }
        let ours = rest.strip_prefix("ours ");
        rest = ours.unwrap_or(rest);
        let (side, more) = word(rest);
        let side = match side.strip_prefix("origin") {
            None if side == "client" => Side::Client,
            Some("") => Side::Origin(0),
            Some(number) => {
                let number = number.strip_prefix('#').and_then(|n| n.parse::<usize>().ok());
                Side::Origin(number.filter(|n| *n > 0).ok_or("no request of that number")? - 1)
            }
            None => return Err(format!("neither client nor origin: {side}")),
        };
        let what = What::parse(more)?;
        Ok(Check { text: line.to_owned(), when, ours: ours.is_some(), side, what })
    }
}

impl What {
    fn parse(line: &str) -> Result<What, String> {
        let (verb, rest) = word(line);
        let (name, more) = word(rest);
        let name = name.to_owned();
        Ok(match verb {
            "status" => What::Status(statuses(rest)?),
            "outcome" => {
                What::Outcome(rest.split('|').map(Outcome::parse).collect::<Result<_, _>>()?)
            }
            "start" => What::Start(text(rest)?),
            "field" => What::Field(name, text(more)?),
            "no" => What::No(name),
            "has" => What::Has(name),
            "all" => {
                let values = more.strip_prefix("= ").ok_or("all NAME = A | B")?;
                What::All(name, values.split('|').map(|v| v.trim().to_owned()).collect())
            }
            "joined" => What::Joined(name, more.strip_prefix("= ").ok_or("= LIST")?.to_owned()),
            "lists" => What::Lists(name, more.to_owned()),
            "lacks" => What::Lacks(name, more.to_owned()),
            "body" => What::Body(text(rest)?),
            "trailer" => What::Trailer(name, text(more)?),
            "no-trailer" => What::NoTrailer(name),
            "octets" => What::Octets(octets::read(rest)?),
            "no-octets" => What::NoOctets(octets::read(rest)?),
            "interims" if rest == "none" => What::Interims(Vec::new()),
            "interims" => What::Interims(statuses(rest)?),
            "interim-field" => {
                let status = name.parse().map_err(|_| "no status")?;
                let (field, more) = word(more);
                What::InterimField(status, field.to_owned(), text(more)?)
            }
            "framing" => What::Framing(rest.to_owned()),
            "closes" => What::Closes,
            "requests" => What::Requests(rest.parse().map_err(|_| "no number")?),
            "connections" => What::Connections(rest.parse().map_err(|_| "no number")?),
            other => return Err(format!("no such expectation: {other}")),
        })
    }

    /// Whether only HTTP/1 has such a thing.
    pub(crate) fn is_of_http1(&self, side: Side) -> bool {
        let of_http1 = matches!(self, What::Framing(_) | What::Start(_) | What::Closes);
        side == Side::Client && (of_http1 || matches!(self, What::Octets(_) | What::NoOctets(_)))
    }
}

fn word(line: &str) -> (&str, &str) {
    let (word, rest) = line.trim_start().split_once(' ').unwrap_or((line.trim(), ""));
    (word, rest.trim())
}

fn statuses(list: &str) -> Result<Vec<u16>, String> {
    let number = |word: &str| word.parse().map_err(|_| format!("no status: {word}"));
    list.split(['|', ' ']).filter(|word| !word.is_empty()).map(number).collect()
}

fn text(rest: &str) -> Result<Text, String> {
    let whole = |text: &str| {
        let octets = octets::read(text.trim_start())?;
        Ok::<_, String>(String::from_utf8_lossy(&octets).into_owned())
    };
    match (rest.strip_prefix('='), rest.strip_prefix('~')) {
        (Some(exact), _) => Ok(Text::Is(whole(exact)?)),
        (_, Some(pattern)) => Ok(Text::Like(whole(pattern)?)),
        _ => Err(format!("neither = nor ~: {rest}")),
    }
}

impl Text {
    fn meets(&self, what: &str, found: &str) -> Result<(), String> {
        let good = match self {
            Text::Is(exact) => exact == found,
            Text::Like(pattern) => is_like(found, pattern),
        };
        if good { Ok(()) } else { Err(format!("{what} is {:?}", show(found.as_bytes()))) }
    }
}

fn is_like(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(first) else { return false };
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().any(|at| is_like(&text[at..], rest))
}

/// What both sides' messages have.
struct Message<'m> {
    start: &'m str,
    raw: &'m [u8],
    fields: &'m Fields,
    body: &'m [u8],
    trailers: &'m Fields,
}

/// Whether a response meets an expectation.
pub(crate) fn of_client(what: &What, heard: &Heard) -> Result<(), String> {
    match what {
        What::Status(any) if any.contains(&heard.status) => Ok(()),
        What::Status(_) => Err(heard.told()),
        What::Outcome(any) if any.iter().any(|outcome| outcome.fits(heard)) => Ok(()),
        What::Outcome(_) => Err(heard.told()),
        What::Interims(all) => {
            let found: Vec<u16> = heard.interims.iter().map(|(status, _)| *status).collect();
            if found == *all { Ok(()) } else { Err(format!("interim responses: {found:?}")) }
        }
        What::InterimField(status, name, text) => {
            let interim = heard.interims.iter().find(|(s, _)| s == status);
            let (_, fields) = interim.ok_or_else(|| format!("no {status}"))?;
            text.meets(name, only(fields, name)?)
        }
        What::Framing(how) => {
            let found = heard.framing.as_deref().unwrap_or("nothing");
            if found == how { Ok(()) } else { Err(format!("framed by {found}")) }
        }
        _ => of_message(
            what,
            &Message {
                start: &heard.start,
                raw: &heard.raw,
                fields: &heard.fields,
                body: &heard.body,
                trailers: &heard.trailers,
            },
        ),
    }
}

/// Whether the requests that reached the origin meet an expectation.
pub(crate) fn of_origin(what: &What, nth: usize, requests: &[Request]) -> Result<(), String> {
    let starts = || requests.iter().map(|r| r.head.start.as_str()).collect::<Vec<_>>();
    match what {
        What::Requests(n) if requests.len() == *n => return Ok(()),
        What::Requests(_) => return Err(format!("reached it: {:?}", starts())),
        What::Connections(n) => {
            let mut all: Vec<usize> = requests.iter().map(|request| request.connection).collect();
            all.sort_unstable();
            all.dedup();
            let right = all.len() == *n;
            return if right { Ok(()) } else { Err(format!("{} connections", all.len())) };
        }
        _ => {}
    }
    let Some(request) = requests.get(nth) else {
        return Err(format!("reached it: {:?}", starts()));
    };
    let message = Message {
        start: &request.head.start,
        raw: &request.head.raw,
        fields: &request.head.fields,
        body: &request.body,
        trailers: &request.trailers,
    };
    of_message(what, &message)
}

fn all<'f>(fields: &'f Fields, name: &str) -> Vec<&'f str> {
    let named = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

fn only<'f>(fields: &'f Fields, name: &str) -> Result<&'f str, String> {
    match all(fields, name)[..] {
        [one] => Ok(one),
        [] => Err(format!("no {name} in {:?}", brief(fields))),
        ref many => Err(format!("{name} {} times: {many:?}", many.len())),
    }
}

fn brief(fields: &Fields) -> String {
    let lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    show(lines.join(", ").as_bytes())
}

fn absent(fields: &Fields, name: &str) -> Result<(), String> {
    let found = all(fields, name);
    if found.is_empty() { Ok(()) } else { Err(format!("{name}: {found:?}")) }
}

fn members(fields: &Fields, name: &str) -> Vec<String> {
    let values = all(fields, name);
    values.iter().flat_map(|v| v.split(',')).map(|t| t.trim().to_ascii_lowercase()).collect()
}

fn of_message(what: &What, message: &Message<'_>) -> Result<(), String> {
    let Message { start, raw, fields, body, trailers } = message;
    match what {
        What::Start(text) => text.meets("the start line", start),
        What::Field(name, text) => text.meets(name, only(fields, name)?),
        What::No(name) => absent(fields, name),
        What::Has(name) if all(fields, name).is_empty() => {
            Err(format!("no {name} in {:?}", brief(fields)))
        }
        What::All(name, values) if all(fields, name) != *values => {
            Err(format!("{name}: {:?}", all(fields, name)))
        }
        What::Joined(name, list) if all(fields, name).join(", ") != *list => {
            Err(format!("{name}: {:?}", all(fields, name)))
        }
        What::Lists(name, token) if !members(fields, name).contains(token) => {
            Err(format!("{name}: {:?}", all(fields, name)))
        }
        What::Lacks(name, token) if members(fields, name).contains(token) => {
            Err(format!("{name}: {:?}", all(fields, name)))
        }
        What::Body(text) => text.meets("the body", &String::from_utf8_lossy(body)),
        What::Trailer(name, text) => text.meets(name, only(trailers, name)?),
        What::NoTrailer(name) => absent(trailers, name),
        What::Octets(octets) if find(raw, octets).is_none() => Err(show(raw)),
        What::NoOctets(octets) if find(raw, octets).is_some() => Err(show(raw)),
        What::Status(_) | What::Outcome(_) | What::Interims(_) | What::InterimField(..) => {
            Err("only a response has this".to_owned())
        }
        What::Framing(_) | What::Closes => Err("only the client's side has this".to_owned()),
        What::Requests(_) | What::Connections(_) => Err("only the origin's side has this".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard() -> Heard {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Heard {
            status: 200,
            fields: vec![field("A", "1"), field("B", "x, y"), field("a", "2")],
            body: b"body".to_vec(),
            ..Heard::default()
        }
    }

    fn meets(line: &str) -> bool {
        let check = Check::parse(line).unwrap();
        of_client(&check.what, &heard()).is_ok()
    }

    #[test]
    fn expectations_hold_or_fail() {
        for good in [
            "client status 200|404",
            "client all A = 1 | 2",
            "client joined A = 1, 2",
            "client field B ~ x,*y",
            "client lists b Y".to_lowercase().as_str(),
            "client lacks B z",
            "client no C",
            "client body = body",
            "client interims none",
        ] {
            assert!(meets(good), "{good}");
        }
        for bad in [
            "client status 404",
            "client all A = 1",
            "client joined A = 2, 1",
            "client field A = 1",
            "client field B ~ x*z",
            "client lists B z",
            "client lacks B y",
            "client no b",
            "client has C",
            "client body = bod",
            "client interims 100",
            "client trailer X = 1",
        ] {
            assert!(!meets(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_no_expectation_is_refused() {
        for bad in ["server no X", "client frob", "client field X", "origin#0 no X", "when x"] {
            assert!(Check::parse(bad).is_err(), "{bad}");
        }
    }
}
