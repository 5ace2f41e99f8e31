//! What an unknown name was probably meant to be.
//!
//! Owns the likeness of names: a slip of the finger, or a known last part in
//! the wrong place. It stays silent rather than guess wildly.

use super::keys::{KEYS, Key, VARIABLE_PREFIX};
use super::route::{ROUTE, ROUTE_KEYS};

/// The key that `name` was probably meant to be.
pub(super) fn key(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    among(KEYS, &name)
}

/// The key of a route that `name` was probably meant to be.
pub(super) fn route_key(name: &str) -> Option<&'static str> {
    among(&ROUTE_KEYS, name)
}

fn among(keys: &'static [Key], name: &str) -> Option<&'static str> {
    let last = last_part(name);
    closest(keys.iter().map(|key| {
        let whole = strsim::osa_distance(name, key.name);
        // A short last part says little: `query` may be anything's.
        let part = strsim::osa_distance(last, last_part(key.name)) + 1;
        let bound = |text: &str| text.len() / 4 + 1;
        let near_whole = (whole <= bound(name)).then_some(whole);
        let near_part = (part <= bound(last)).then_some(part);
        (key.name, near_whole.into_iter().chain(near_part).min())
    }))
}

/// The table that `name` was probably meant to be.
pub(super) fn table(name: &str) -> Option<&'static str> {
    closest(tables().chain([ROUTE]).map(|table| {
        let distance = strsim::osa_distance(name, table);
        (table, (distance <= name.len() / 4 + 1).then_some(distance))
    }))
}

/// The variable that `name` was probably meant to be.
pub(super) fn variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix(VARIABLE_PREFIX)?.to_ascii_lowercase();
    // With single underscores the parts cannot be told apart: compare the names
    // with all of them alike.
    let flat = |text: &str| text.replace("__", "_").replace('.', "_");
    let same = KEYS.iter().find(|key| flat(key.name) == flat(&rest));
    let key = same.or_else(|| super::keys::find(key(&rest.replace("__", "."))?))?;
    Some(key.variable())
}

/// Whether keys stand below this name.
pub(super) fn is_table(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// The names of all tables, some more than once.
fn tables() -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .flat_map(|key| key.name.match_indices('.').filter_map(|(dot, _)| key.name.get(..dot)))
}

fn last_part(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// The candidate with the least distance; the first of several.
fn closest(
    candidates: impl Iterator<Item = (&'static str, Option<usize>)>,
) -> Option<&'static str> {
    candidates
        .filter_map(|(name, distance)| Some((distance?, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_guess_is_not_made() {
        for (given, meant) in [
            ("timeouts.hed", Some("timeouts.head")),
            ("Timeouts.Head", Some("timeouts.head")),
            ("timeout.head", Some("timeouts.head")),
            ("listne", Some("listen")),
            ("drain_timeout", Some("drain.stop.drain_timeout")),
            ("drain.drain-timeout", Some("drain.stop.drain_timeout")),
            ("connect_timeout", Some("upstream.connect_timeout")),
            ("log.format", None),
            ("bananas", None),
            ("", None),
        ] {
            assert_eq!(key(given), meant, "{given}");
        }
        assert_eq!(table("timeout"), Some("timeouts"));
        assert_eq!(table("cache"), None);
    }

    #[test]
    fn a_variable_with_single_underscores_is_recognised() {
        for (given, meant) in [
            ("EBBTIDE_TIMEOUTS_HEAD", Some("EBBTIDE_TIMEOUTS__HEAD")),
            ("EBBTIDE_DRAIN_TIMEOUT", Some("EBBTIDE_DRAIN__STOP__DRAIN_TIMEOUT")),
            ("EBBTIDE_LISTN", Some("EBBTIDE_LISTEN")),
            ("EBBTIDE_BANANAS", None),
        ] {
            assert_eq!(variable(given).as_deref(), meant, "{given}");
        }
    }
}
