//! The configuration file: TOML to entries with the lines they stand on.
//!
//! Owns the walk through the tables. What it cannot place it reports as an
//! error and walks on; it does not judge a value beyond its TOML type.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin, Problem};
use super::keys::{self, Key};
use super::load::Entry;
use super::route::{ROUTE, ROUTE_KEYS, RouteEntry};
use super::suggest;

/// The most lines whose syntax is reported: behind an open bracket every line
/// looks wrong, and the first few tell.
const SYNTAX_ERRORS_MAX: usize = 5;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Values of known keys.
    pub(super) entries: Vec<Entry>,
    /// Its routes.
    pub(super) routes: Vec<RouteEntry>,
    /// What was wrong, in no order.
    pub(super) errors: Vec<Error>,
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Contents {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(source) => {
            let origin = Origin::File { path: path.to_owned(), line: None };
            let error = Error { origin, key: None, problem: Problem::Unreadable(source) };
            Contents { errors: vec![error], ..Contents::default() }
        }
    }
}

/// Parses the `text` of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Contents {
    let (table, syntax) = DeTable::parse_recoverable(text);
    let mut walk = Walk { path, text, found: Contents::default() };
    // Where the syntax is broken, what was recovered is a guess: nothing else is
    // said of such a line.
    let mut broken: Vec<Origin> = Vec::new();
    for error in syntax {
        let origin = walk.origin(error.span());
        if broken.contains(&origin) {
            continue;
        }
        if broken.len() < SYNTAX_ERRORS_MAX {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            walk.error(error.span(), None, Problem::Syntax(message));
        }
        broken.push(origin);
    }
    let told = walk.found.errors.len();
    walk.table("", table.get_ref());
    let mut found = walk.found;
    let mut later = found.errors.split_off(told);
    later.retain(|error| !broken.contains(&error.origin));
    found.entries.retain(|entry| !broken.contains(&entry.origin));
    found.routes.retain(|route| !broken.contains(&route.origin));
    found.errors.append(&mut later);
    found
}

/// A walk through the tables of a file.
struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    found: Contents,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            match (keys::find(&name), value.get_ref()) {
                (Some(key), _) => self.value(key, value),
                (None, _) if name == ROUTE => self.routes(value),
                (None, DeValue::Table(inner)) if suggest::is_table(&name) => {
                    self.table(&name, inner);
                }
                (None, DeValue::Table(_)) => {
                    let suggestion = suggest::table(&name);
                    self.unknown(key.span(), name, "table", suggestion);
                }
                (None, _) if suggest::is_table(&name) => {
                    let allowed = format!("a table: its keys stand below [{name}]");
                    let found = self.shown(value);
                    let problem = Problem::Value { found, why: None, allowed };
                    self.error(Some(value.span()), Some(name), problem);
                }
                (None, _) => {
                    let suggestion = suggest::key(&name)
                        .or_else(|| suggest::table(&name).filter(|table| *table == ROUTE));
                    self.unknown(key.span(), name, "key", suggestion);
                }
            }
        }
    }

    /// The tables of `[[route]]`.
    fn routes(&mut self, value: &Spanned<DeValue<'_>>) {
        let tables = value.get_ref().as_array().map_or(&[][..], |items| &items[..]);
        if tables.is_empty() || !tables.iter().all(|item| item.get_ref().is_table()) {
            let found = self.shown(value);
            let allowed = "one table for each route, below [[route]]".to_owned();
            let problem = Problem::Value { found, why: None, allowed };
            return self.error(Some(value.span()), Some(ROUTE.to_owned()), problem);
        }
        for table in tables {
            if let Some(keys) = table.get_ref().as_table() {
                self.route(table.span(), keys);
            }
        }
    }

    /// One of them: its entries are kept apart from those of the others.
    fn route(&mut self, span: Range<usize>, table: &DeTable<'_>) {
        let others = std::mem::take(&mut self.found.entries);
        let mut refused = false;
        for (key, value) in table {
            let name = format!("{ROUTE}.{}", key.get_ref());
            let Some(known) = ROUTE_KEYS.iter().find(|known| known.name == name) else {
                let suggestion = suggest::route_key(&name);
                self.unknown(key.span(), name, "key", suggestion);
                continue;
            };
            let before = self.found.errors.len();
            self.value(known, value);
            refused |= self.found.errors.len() > before && known.name == "route.path";
        }
        let entries = std::mem::replace(&mut self.found.entries, others);
        let origin = self.origin(Some(span));
        self.found.routes.push(RouteEntry { origin, entries, refused });
    }

    /// A value of a known key becomes an entry if its type could be right.
    fn value(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let texts = match value.get_ref() {
            DeValue::Array(items) if key.form.is_list() => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    match item.get_ref().as_str() {
                        Some(text) => texts.push(text.to_owned()),
                        None => self.mistyped(key, item),
                    }
                }
                // One error an element is enough.
                if texts.len() == items.len() {
                    Some(texts)
                } else {
                    return;
                }
            }
            DeValue::String(text) => Some(vec![text.to_string()]),
            _ if key.form.is_text() => None,
            DeValue::Integer(number) if number.radix() == 10 => {
                Some(vec![number.as_str().to_owned()])
            }
            DeValue::Float(number) => Some(vec![number.as_str().to_owned()]),
            DeValue::Boolean(flag) => Some(vec![flag.to_string()]),
            _ => None,
        };
        match texts {
            Some(texts) => {
                let origin = self.origin(Some(value.span()));
                self.found.entries.push(Entry { key, origin, texts });
            }
            None => self.mistyped(key, value),
        }
    }

    fn mistyped(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        let found = self.shown(value);
        let problem = Problem::Value { found, why: None, allowed: key.form.allowed() };
        self.error(Some(value.span()), Some(key.name.to_owned()), problem);
    }

    fn unknown(
        &mut self,
        span: Range<usize>,
        name: String,
        what: &'static str,
        suggestion: Option<&str>,
    ) {
        let suggestion = suggestion.map(|meant| format!("did you mean {meant}?"));
        self.error(Some(span), Some(name), Problem::Unknown { what, suggestion });
    }

    fn error(&mut self, span: Option<Range<usize>>, key: Option<String>, problem: Problem) {
        let origin = self.origin(span);
        self.found.errors.push(Error { origin, key, problem });
    }

    fn origin(&self, span: Option<Range<usize>>) -> Origin {
        let line = span.map(|span| {
            let before = self.text.bytes().take(span.start);
            before.filter(|byte| *byte == b'\n').count() + 1
        });
        Origin::File { path: self.path.to_owned(), line }
    }

    /// A value as it stands in the file, or its kind if it may be long.
    fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            _ => self.text.get(value.span()).unwrap_or("something else").to_owned(),
        }
    }
}
