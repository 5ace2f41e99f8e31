//! The sources of a configuration, laid over each other.
//!
//! Owns the precedence, lowest first: defaults, file, environment, `--set`,
//! flags. Promises that every error of every source is found in one go: a value
//! that a later source overrides is still checked. Reads the file, and the
//! certificates it ends up with; the environment is handed in.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::draft::Draft;
use super::error::{Error, Errors, Origin, Problem, Warning};
use super::keys::{self, KEYS, Key, VARIABLE_PREFIX};
use super::model::{Config, Listen};
use super::show::Span;
use super::{check, file, route, suggest, value};

/// Where values may come from, lowest precedence first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file; without one, none is read.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `EBBTIDE_` are ignored.
    pub environment: Vec<(String, String)>,
    /// The arguments of `--set`, `key=value`.
    pub set: Vec<String>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
}

/// A flag that stands for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it is written, `--listen`.
    pub name: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// Its values; more than one only for a list.
    pub values: Vec<String>,
}

/// A checked configuration and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Legal, but perhaps not meant.
    pub warnings: Vec<Warning>,
}

/// A value of a known key, not parsed yet.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: &'static Key,
    /// Who says so.
    pub(super) origin: Origin,
    /// The value, or the values of a list.
    pub(super) texts: Vec<String>,
}

/// Loads and checks what `sources` say.
///
/// # Errors
///
/// Everything that is wrong in any source: the file's lines first, in their order,
/// then the other sources.
pub fn load(sources: &Sources) -> Result<Loaded, Errors> {
    let mut builder = Builder::new();
    if let Some(path) = &sources.file {
        let contents = file::read(path);
        builder.errors.extend(contents.errors);
        builder.apply(contents.entries);
        route::apply(&mut builder, contents.routes);
    }
    builder.environment(&sources.environment);
    builder.set(&sources.set);
    builder.flags(&sources.flags);
    builder.finish()
}

/// The address of a running process's admin listener, for commands that ask
/// it: the flag `--admin`, else the variable `EBBTIDE_ADMIN`.
///
/// # Errors
///
/// If neither is given, or the one that is given is no address.
pub fn admin_address(
    flag: Option<&str>,
    environment: &[(String, String)],
) -> Result<Listen, Errors> {
    let mut builder = Builder::new();
    let variable = environment.iter().filter(|(name, _)| name == "EBBTIDE_ADMIN").cloned();
    builder.environment(&variable.collect::<Vec<_>>());
    if let Some(value) = flag {
        let values = vec![value.to_owned()];
        builder.flags(&[Flag { name: "--admin", key: "admin", values }]);
    }
    if builder.errors.is_empty() && builder.draft.config.admin.is_none() {
        let text = "none given; use --admin ADDRESS or EBBTIDE_ADMIN".to_owned();
        builder.error(Origin::Whole, "admin", Problem::Conflict(text));
    }
    match builder.draft.config.admin {
        Some(admin) if builder.errors.is_empty() => Ok(admin),
        _ => Err(Errors(builder.errors)),
    }
}

/// A duration within these bounds, for a flag that stands for no key.
///
/// # Errors
///
/// If the text is no duration, or it is out of bounds.
pub fn duration(
    flag: &'static str,
    text: &str,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, Errors> {
    let why = match value::duration(text) {
        Ok(time) if bounds.contains(&time) => return Ok(time),
        Ok(_) => None,
        Err(refused) => refused.why,
    };
    let (least, most) = (Span(*bounds.start()), Span(*bounds.end()));
    let allowed = format!("a duration from {least} to {most}");
    let problem = Problem::Value { found: format!("{text:?}"), why, allowed };
    Err(Errors(vec![Error { origin: Origin::Flag(flag), key: None, problem }]))
}

/// A configuration in the making.
pub(super) struct Builder {
    /// What holds so far.
    pub(super) draft: Draft,
    /// Who said so last, by key; also for values that were refused.
    pub(super) origins: HashMap<&'static str, Origin>,
    /// What was wrong so far.
    pub(super) errors: Vec<Error>,
    /// What was odd so far.
    pub(super) warnings: Vec<Warning>,
}

impl Builder {
    fn new() -> Self {
        Self {
            draft: Draft::with_defaults(),
            origins: HashMap::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn apply(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for Entry { key, origin, texts } in entries {
            if let Err(wrongs) = key.form.set(&mut self.draft, &texts) {
                for wrong in wrongs {
                    let allowed = key.form.allowed();
                    let problem = Problem::Value { found: wrong.found, why: wrong.why, allowed };
                    self.error(origin.clone(), key.name, problem);
                }
            }
            self.origins.insert(key.name, origin);
        }
    }

    fn environment(&mut self, variables: &[(String, String)]) {
        let mut ours: Vec<_> =
            variables.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
        // The environment has no order of its own; errors should have one.
        ours.sort();
        for (name, value) in ours {
            let origin = Origin::Environment(name.clone());
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => {
                    self.apply([Entry { key, origin, texts: key.form.split(value) }]);
                }
                None => {
                    let suggestion = variable_hint(name, value);
                    let problem = Problem::Unknown { what: "variable", suggestion };
                    self.errors.push(Error { origin, key: None, problem });
                }
            }
        }
    }

    fn set(&mut self, arguments: &[String]) {
        for argument in arguments {
            let Some((name, value)) = argument.split_once('=') else {
                let problem = Problem::Value {
                    found: format!("{argument:?}"),
                    why: None,
                    allowed: "KEY=VALUE, such as timeouts.head=10s".to_owned(),
                };
                self.errors.push(Error { origin: Origin::Set, key: None, problem });
                continue;
            };
            let name = name.trim();
            match keys::find(name) {
                Some(key) => {
                    let texts = key.form.split(value);
                    self.apply([Entry { key, origin: Origin::Set, texts }]);
                }
                None => self.unknown_key(Origin::Set, name),
            }
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            let origin = Origin::Flag(flag.name);
            match keys::find(flag.key) {
                Some(key) => self.apply([Entry { key, origin, texts: flag.values.clone() }]),
                None => self.unknown_key(origin, flag.key),
            }
        }
    }

    fn unknown_key(&mut self, origin: Origin, name: &str) {
        let suggestion = match name.split_once('.') {
            Some((route::ROUTE, _)) => Some("routes can only be given in a file".to_owned()),
            _ => suggest::key(name).map(|meant| format!("did you mean {meant}?")),
        };
        self.error(origin, name, Problem::Unknown { what: "key", suggestion });
    }

    /// Adds an error about a key.
    pub(super) fn error(&mut self, origin: Origin, key: &str, problem: Problem) {
        self.errors.push(Error { origin, key: Some(key.to_owned()), problem });
    }

    fn finish(mut self) -> Result<Loaded, Errors> {
        check::errors(&mut self);
        if !self.errors.is_empty() {
            self.errors.sort_by_key(|error| error.origin.rank());
            return Err(Errors(self.errors));
        }
        let config = self.draft.finish();
        self.warnings.extend(check::warnings(&config));
        Ok(Loaded { config, warnings: self.warnings })
    }
}

/// What to do about an unknown variable.
fn variable_hint(name: &str, value: &str) -> Option<String> {
    // Kubernetes puts the addresses of every service into the environment; one
    // that is called ebbtide takes our prefix.
    let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
    if rest.starts_with("SERVICE_")
        || rest.starts_with("PORT_")
        || (rest == "PORT" && value.contains("://"))
    {
        return Some(
            "it looks like a service link of Kubernetes: set enableServiceLinks: false in the \
             pod, or give the service another name"
                .to_owned(),
        );
    }
    suggest::variable(name).map(|meant| format!("did you mean {meant}?"))
}
