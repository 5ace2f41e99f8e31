//! The forms a value can have, and where a value of that form goes.
//!
//! Owns the step from texts to a place in the draft: how many texts a key
//! takes, their bounds, and the words that say what would have been allowed.
//! The syntax of one text is in `value`, the keys themselves are in `keys`.

use std::path::PathBuf;
use std::time::Duration;

use super::draft::Draft;
use super::model::{Endpoint, INFINITY, Listen, RouteDrain, Trusted};
use super::route;
use super::show::Span;
use super::trust;
use super::value::{self, Parsed, Refused};

/// Puts a parsed value into its place.
type Set<T> = fn(&mut Draft, T);

/// A word and what it means.
type Meaning = (&'static str, fn(&mut Draft));

/// The form of a key's value and its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// One or more listeners.
    Listeners(Set<Vec<Listen>>),
    /// One listener.
    Listener(Set<Listen>),
    /// One or more upstream addresses.
    Endpoints(Set<Vec<Endpoint>>),
    /// One host name.
    Name(Set<String>),
    /// Any number of host names.
    Names(Set<Vec<String>>),
    /// Any number of networks.
    Networks(Set<Trusted>),
    /// Any number of names of protocols.
    Tokens(Set<Vec<String>>),
    /// The path of a file.
    File(Set<PathBuf>),
    /// The path of a unix socket.
    SocketFile(Set<PathBuf>),
    /// The paths of one or more files.
    Files(Set<Vec<PathBuf>>),
    /// A duration; `infinity` only where it makes sense.
    Time {
        /// The shortest.
        least: Duration,
        /// Whether it may never end.
        infinity: bool,
        /// Its place.
        set: Set<Duration>,
    },
    /// A duration or `off`.
    TimeOrOff {
        /// The shortest.
        least: Duration,
        /// Its place.
        set: Set<Option<Duration>>,
    },
    /// A size in bytes.
    Size {
        /// The smallest.
        least: usize,
        /// The largest.
        most: usize,
        /// Its place.
        set: Set<usize>,
    },
    /// A number.
    Count {
        /// The smallest.
        least: usize,
        /// The largest.
        most: usize,
        /// Its place.
        set: Set<usize>,
    },
    /// A number of connections, at least one.
    Connections(Set<usize>),
    /// A number of connections, at least one, or `off`.
    CountOrOff(Set<Option<usize>>),
    /// A number of bytes, or `off`.
    SizeOrOff(Set<Option<u64>>),
    /// Bytes per second.
    Rate(Set<u64>),
    /// `true` or `false`.
    Flag(Set<bool>),
    /// The code of a WebSocket's Close.
    CloseCode(Set<u16>),
    /// Its reason.
    Reason(Set<String>),
    /// The path of a route.
    Path(Set<String>),
    /// What a drain does on a route.
    RouteDrain(Set<RouteDrain>),
    /// One of a few words.
    Word(&'static [Meaning]),
}

/// A text that was refused, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The text.
    pub(super) found: String,
    /// A reason worth telling, if there is one.
    pub(super) why: Option<&'static str>,
}

/// The texts of a list in one line: `a,b`. Nothing at all is the empty list.
/// A piece `mode=…` belongs to the listener before it.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for piece in text.split(',').map(str::trim) {
        match pieces.last_mut() {
            Some(before) if piece.starts_with("mode=") => {
                before.push(',');
                before.push_str(piece);
            }
            _ => pieces.push(piece.to_owned()),
        }
    }
    if pieces.iter().all(String::is_empty) {
        pieces.clear();
    }
    pieces
}

impl Form {
    /// Whether the key takes several values.
    pub(super) fn is_list(&self) -> bool {
        matches!(
            self,
            Self::Listeners(_)
                | Self::Endpoints(_)
                | Self::Names(_)
                | Self::Networks(_)
                | Self::Tokens(_)
                | Self::Files(_)
        )
    }

    /// Whether a value is text, so that a bare number or boolean in a file
    /// would be a mistake.
    pub(super) fn is_text(&self) -> bool {
        self.is_list()
            || matches!(
                self,
                Self::Listener(_) | Self::Name(_) | Self::File(_) | Self::SocketFile(_)
            )
            || matches!(self, Self::Word(_) | Self::Reason(_) | Self::Path(_) | Self::RouteDrain(_))
    }

    /// The texts in which one line, from the environment or `--set`, is taken.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        if self.is_list() { pieces(text) } else { vec![text.trim().to_owned()] }
    }

    /// Parses `texts` and puts the value into its place; says for each text
    /// that was refused why. Nothing is put anywhere if any was.
    pub(super) fn set(&self, draft: &mut Draft, texts: &[String]) -> Result<(), Vec<Wrong>> {
        match self {
            Self::Listeners(set) => set(draft, all(texts, value::listen)?),
            Self::Endpoints(set) => set(draft, all(texts, value::endpoint)?),
            Self::Names(set) => set(draft, all(texts, value::name)?),
            Self::Networks(set) => set(draft, Trusted::new(all(texts, trust::network)?)),
            Self::Tokens(set) => set(draft, all(texts, value::upgrade_token)?),
            Self::Files(set) => set(draft, all(texts, value::path)?),
            scalar => {
                let (text, more) = match texts {
                    [one] => (one.as_str(), false),
                    [first, ..] => (first.as_str(), true),
                    [] => ("", false),
                };
                let set = if more { Err(Refused::FORM) } else { scalar.set_one(draft, text) };
                return set.map_err(|refused| vec![wrong(text, refused)]);
            }
        }
        Ok(())
    }

    /// Parses the one value of a key that is no list.
    fn set_one(&self, draft: &mut Draft, text: &str) -> Parsed<()> {
        match *self {
            Self::Listeners(_)
            | Self::Endpoints(_)
            | Self::Names(_)
            | Self::Networks(_)
            | Self::Tokens(_)
            | Self::Files(_) => return Err(Refused::FORM),
            Self::Listener(set) => set(draft, value::listen(text)?),
            Self::Name(set) => set(draft, value::name(text)?),
            Self::File(set) => set(draft, value::path(text)?),
            Self::SocketFile(set) => set(draft, value::socket_path(text)?),
            Self::Time { least, infinity, set } => set(draft, time(text, least, infinity)?),
            Self::TimeOrOff { set, .. } if text == "off" => set(draft, None),
            Self::TimeOrOff { least, set } => set(draft, Some(time(text, least, false)?)),
            Self::Size { least, most, set } => set(draft, within(value::size(text)?, least, most)?),
            Self::Count { least, most, set } => {
                set(draft, within(value::number(text)?, least, most)?);
            }
            Self::Connections(set) => set(draft, within(value::number(text)?, 1, usize::MAX)?),
            Self::SizeOrOff(set) if text == "off" => set(draft, None),
            Self::SizeOrOff(set) => set(draft, Some(value::size(text)?)),
            Self::CountOrOff(set) if text == "off" => set(draft, None),
            Self::CountOrOff(set) => set(draft, Some(within(value::number(text)?, 1, usize::MAX)?)),
            Self::Rate(set) => set(draft, value::number(text)?),
            Self::Flag(set) => set(draft, value::flag(text)?),
            Self::CloseCode(set) => set(draft, value::close_code(text)?),
            Self::Reason(set) => set(draft, value::close_reason(text)?),
            Self::Path(set) => set(draft, route::path(text)?),
            Self::RouteDrain(set) => set(draft, route::on_drain(text)?),
            Self::Word(words) => {
                let meaning = words.iter().find(|(word, _)| *word == text).ok_or(Refused::FORM)?;
                (meaning.1)(draft);
            }
        }
        Ok(())
    }

    /// What would have been allowed, to end a sentence with.
    pub(super) fn allowed(&self) -> String {
        const SUCH: &str = "such as 500ms, 30s, 1m30s, or a number of seconds";
        const LISTEN: &str =
            "HOST:PORT, :PORT, [::1]:PORT, unix:PATH, unix:PATH,mode=0660 or fd:NAME";
        match *self {
            Self::Listeners(_) => format!("addresses to listen on: {LISTEN}"),
            Self::Listener(_) => format!("an address to listen on: {LISTEN}"),
            Self::Endpoints(_) => {
                "addresses of app servers: HOST:PORT, [::1]:PORT, unix:PATH, http://HOST:PORT, \
                 https://HOST:PORT, h2c://HOST:PORT, h2c:unix:PATH or h2://HOST:PORT"
                    .to_owned()
            }
            Self::Name(_) => "a host name, without a port".to_owned(),
            Self::Names(_) => "host names, without ports".to_owned(),
            Self::Networks(_) => {
                "addresses, networks such as 10.0.0.0/8 or fd00::/8, or unix".to_owned()
            }
            Self::File(_) => "the path of a file".to_owned(),
            Self::SocketFile(_) => "the path of a unix socket".to_owned(),
            Self::Files(_) => "paths of files".to_owned(),
            Self::Time { infinity: false, .. } => format!("a duration {SUCH}"),
            Self::Time { infinity: true, .. } => format!("a duration {SUCH}, or infinity"),
            Self::TimeOrOff { least, .. } => {
                format!("off, or a duration of at least {}, {SUCH}", Span(least))
            }
            Self::Size { least, most, .. } => format!(
                "a size in bytes such as 64k or 1m, from {}k to {}k",
                least / 1024,
                most / 1024
            ),
            Self::Count { least, most, .. } => format!("a number from {least} to {most}"),
            Self::Connections(_) => "a number of connections, at least 1".to_owned(),
            Self::SizeOrOff(_) => {
                "off, or a size such as 64k, 10m, or a number of bytes".to_owned()
            }
            Self::CountOrOff(_) => "off, or a number of connections, at least 1".to_owned(),
            Self::Rate(_) => "a number of bytes per second, or 0".to_owned(),
            Self::Flag(_) => "true or false".to_owned(),
            Self::Tokens(_) => "names of protocols other than websocket and h2c".to_owned(),
            Self::CloseCode(_) => {
                "1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 section 7.4)".to_owned()
            }
            Self::Reason(_) => "a text of at most 123 bytes".to_owned(),
            Self::Path(_) => "a path such as /events".to_owned(),
            Self::RouteDrain(_) => "finish, close-after 5s or another time, cancel".to_owned(),
            Self::Word(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                words.join(", ")
            }
        }
    }
}

/// Parses every text, so that each wrong one is told.
fn all<T>(texts: &[String], parse: fn(&str) -> Parsed<T>) -> Result<Vec<T>, Vec<Wrong>> {
    let mut values = Vec::with_capacity(texts.len());
    let mut wrongs = Vec::new();
    for text in texts {
        match parse(text) {
            Ok(value) => values.push(value),
            Err(refused) => wrongs.push(wrong(text, refused)),
        }
    }
    if wrongs.is_empty() { Ok(values) } else { Err(wrongs) }
}

fn wrong(text: &str, refused: Refused) -> Wrong {
    Wrong { found: format!("{text:?}"), why: refused.why }
}

fn time(text: &str, least: Duration, infinity: bool) -> Parsed<Duration> {
    let time = value::duration(text)?;
    if time == INFINITY && !infinity {
        return Err(Refused::because("this one has to end"));
    }
    if time < least { Err(Refused::because("it is too short")) } else { Ok(time) }
}

fn within(number: u64, least: usize, most: usize) -> Parsed<usize> {
    match usize::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Refused::FORM),
    }
}
