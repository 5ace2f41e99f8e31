//! The case files: what is sent, why, and what must come of it.
//!
//! ```text
//! # A remark.
//! case te-unknown-before-chunked
//! why RFC 9112 6.1: a coding that is not known here; TE.TE
//! expect reject
//! > POST /x HTTP/1.1\r\n
//! > ...
//! ```
//!
//! | line | meaning |
//! | --- | --- |
//! | `case NAME` | begins a case |
//! | `why TEXT` | the rule, or the attack it is taken from |
//! | `expect reject` | nothing of it may reach the origin as a request |
//! | `expect safe` | refused, or it arrives exactly as `sees` says |
//! | `expect accept` | arrives exactly as `sees` says, and is answered |
//! | `ours reject`, `ours accept` | ebbtide promises more than others must |
//! | `sees METHOD TARGET [BODY]` | a request that arrives; `?` is any target, no BODY any body, `-` an empty one |
//! | `has NAME: VALUE` | some field of the requests that arrive |
//! | `lacks NAME` or `lacks NAME: VALUE` | no field and no trailer field of any of them |
//! | `ours lacks ...` | the same, promised by ebbtide alone |
//! | `unfinished` | the message has no end: to wait for more is an answer too |
//! | `stays` | a refusal that leaves the message's end known may keep the connection |
//! | `mute` | a refusal needs no status: this client would not understand it |
//!
//! Any other line belongs to what is sent, see [`crate::raw`] and [`crate::frames`].

use std::path::Path;

use crate::octets;

/// What may come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Nothing reaches the origin as a request.
    Reject,
    /// It is refused or arrives as it should.
    Safe,
    /// It arrives as it should.
    Accept,
}

impl Expect {
    fn read(text: &str) -> Result<Expect, String> {
        match text {
            "reject" => Ok(Expect::Reject),
            "safe" => Ok(Expect::Safe),
            "accept" => Ok(Expect::Accept),
            _ => Err(format!("`{text}` is nothing to expect")),
        }
    }
}

/// A request that is to arrive.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// Its method.
    pub(crate) method: Vec<u8>,
    /// Its target, or any.
    pub(crate) target: Option<Vec<u8>>,
    /// Its body, or any.
    pub(crate) body: Option<Vec<u8>>,
}

impl Sight {
    fn read(text: &str) -> Result<Sight, String> {
        let mut words = text.splitn(3, ' ');
        let method = octets::read(words.next().unwrap_or_default())?;
        let target = words.next().ok_or("`sees` without a target")?;
        let target = if target == "?" { None } else { Some(octets::read(target)?) };
        let body = match words.next() {
            None => None,
            Some("-") => Some(Vec::new()),
            Some(body) => Some(octets::read(body)?),
        };
        Ok(Sight { method, target, body })
    }
}

/// A field by its name, and by its value if that matters.
#[derive(Clone, Debug)]
pub(crate) struct Trait {
    /// Its name, in any case.
    pub(crate) name: Vec<u8>,
    /// Its whole value.
    pub(crate) value: Option<Vec<u8>>,
}

impl Trait {
    fn read(text: &str) -> Result<Trait, String> {
        let (name, value) = match text.split_once(": ") {
            Some((name, value)) => (name, Some(octets::read(value)?)),
            None => (text, None),
        };
        Ok(Trait { name: octets::read(name)?, value })
    }
}

/// What must come of a case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    expect: Option<Expect>,
    ours: Option<Expect>,
    /// The requests that arrive.
    pub(crate) sees: Vec<Sight>,
    /// What some of their fields is.
    pub(crate) has: Vec<Trait>,
    /// What none of their fields is.
    pub(crate) lacks: Vec<Trait>,
    /// The same, for ebbtide alone.
    pub(crate) ours_lacks: Vec<Trait>,
    /// The message has no end.
    pub(crate) unfinished: bool,
    /// A refusal may keep the connection.
    pub(crate) stays: bool,
    /// A refusal needs no status.
    pub(crate) mute: bool,
}

impl Promise {
    /// What may come of it, with ours or with others.
    pub(crate) fn expect(&self, ours: bool) -> Expect {
        let own = self.ours.filter(|_| ours);
        own.or(self.expect).unwrap_or(Expect::Reject)
    }

    /// Takes a line; whether it was one for a promise.
    fn line(&mut self, line: &str) -> Result<bool, String> {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (key, rest) {
            ("expect", _) => once(&mut self.expect, Expect::read(rest)?)?,
            ("ours", _) => match rest.strip_prefix("lacks ") {
                Some(field) => self.ours_lacks.push(Trait::read(field)?),
                None => once(&mut self.ours, Expect::read(rest)?)?,
            },
            ("sees", _) => self.sees.push(Sight::read(rest)?),
            ("has", _) => self.has.push(Trait::read(rest)?),
            ("lacks", _) => self.lacks.push(Trait::read(rest)?),
            ("unfinished", "") => self.unfinished = true,
            ("stays", "") => self.stays = true,
            ("mute", "") => self.mute = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), String> {
        let expect = self.expect.ok_or("a case without `expect`")?;
        let arrives = expect != Expect::Reject || self.ours == Some(Expect::Accept);
        match (arrives, self.sees.is_empty()) {
            (true, true) => Err("a case that may arrive, without `sees`".to_owned()),
            (false, false) => Err("`sees` where nothing may arrive".to_owned()),
            _ => Ok(()),
        }
    }
}

fn once(slot: &mut Option<Expect>, value: Expect) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("expected twice".to_owned()),
    }
}

/// What a case sends, as its lines say it.
pub(crate) trait Script: Default + Send + Sync {
    /// Takes a line.
    fn line(&mut self, line: &str) -> Result<(), String>;

    /// Whether it sends nothing.
    fn is_empty(&self) -> bool;
}

/// A case.
#[derive(Debug)]
pub(crate) struct Case<S> {
    /// Its name, the only one of its kind.
    pub(crate) name: String,
    /// The name of its file.
    pub(crate) theme: String,
    /// Where it stands.
    pub(crate) at: String,
    /// The rule, or the attack it is taken from.
    pub(crate) why: String,
    /// What must come of it.
    pub(crate) promise: Promise,
    /// What is sent.
    pub(crate) script: S,
}

/// Reads every file of a directory below this one.
///
/// # Panics
/// With file and line, when one of them is wrong.
pub(crate) fn load<S: Script>(directory: &str) -> Vec<Case<S>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(directory);
    let entries = std::fs::read_dir(&root).expect("the directory of the cases");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let theme = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a file of cases");
        let read = read(&text, &theme, &format!("{directory}/{theme}.txt"));
        cases.extend(read.unwrap_or_else(|wrong| panic!("{wrong}")));
    }
    cases
}

/// Reads the cases of one file.
pub(crate) fn read<S: Script>(text: &str, theme: &str, file: &str) -> Result<Vec<Case<S>>, String> {
    let mut cases: Vec<Case<S>> = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let at = format!("{file}:{}", nth + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("case ") {
            cases.push(Case {
                name: name.to_owned(),
                theme: theme.to_owned(),
                at,
                why: String::new(),
                promise: Promise::default(),
                script: S::default(),
            });
            continue;
        }
        let case = cases.last_mut().ok_or(format!("{at}: a line before the first case"))?;
        take(case, line).map_err(|wrong| format!("{at}: {wrong}"))?;
    }
    for case in &cases {
        sound(case).map_err(|wrong| format!("{}: {}: {wrong}", case.at, case.name))?;
    }
    Ok(cases)
}

fn take<S: Script>(case: &mut Case<S>, line: &str) -> Result<(), String> {
    if let Some(why) = line.strip_prefix("why ") {
        why.clone_into(&mut case.why);
        return Ok(());
    }
    if case.promise.line(line)? { Ok(()) } else { case.script.line(line) }
}

fn sound<S: Script>(case: &Case<S>) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if case.name.is_empty() || !case.name.chars().all(plain) {
        return Err("a name is of small letters, digits and hyphens".to_owned());
    }
    if case.why.len() < 10 {
        return Err("a case without a why".to_owned());
    }
    if case.script.is_empty() {
        return Err("a case that sends nothing".to_owned());
    }
    case.promise.check()
}
