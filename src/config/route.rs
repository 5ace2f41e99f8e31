//! Routes: what holds for the requests of one part of an app.
//!
//! Owns what a `[[route]]` says and which one a request belongs to. A path is compared
//! as it was sent, octet by octet, without its query: nothing is decoded and no dot
//! segment is followed, since only the app server knows what it makes of them.

use std::fmt;
use std::time::Duration;

use super::error::{Origin, Problem};
use super::form::Form;
use super::keys::{Key, Preset};
use super::load::{Builder, Entry};
use super::show::Span;
use super::value::{self, Parsed, Refused};

/// One `[[route]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The path with all that lies below it (`path`).
    pub path: String,
    /// Its responses never end by themselves (`endless`).
    pub endless: bool,
    /// What a drain does with what is under way; `None`: what it does without a route.
    pub on_drain: Option<RouteDrain>,
}

/// `route.on_drain`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteDrain {
    /// It may go on until the hard deadline.
    Finish,
    /// It is ended this long after draining began.
    CloseAfter(Duration),
    /// It is ended at once, the app server's side too.
    Cancel,
}

/// All routes, the longest path first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    fn add(&mut self, route: Route) {
        let at = self.0.partition_point(|known| known.path.len() >= route.path.len());
        self.0.insert(at, route);
    }

    /// The route of a request target, if there is one: the longest path that is its own
    /// or stands above it.
    #[inline]
    pub fn of(&self, target: &[u8]) -> Option<&Route> {
        if self.0.is_empty() { None } else { self.longest(target) }
    }

    fn longest(&self, target: &[u8]) -> Option<&Route> {
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        let path = &target[..end];
        self.0.iter().find(|route| route.covers(path))
    }

    /// Each of them, the longest path first.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }
}

impl Route {
    /// `/a` stands for itself and for what is below `/a/`; `/a/` for what is below it.
    fn covers(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(self.path.as_bytes()) else { return false };
        rest.is_empty() || rest[0] == b'/' || self.path.ends_with('/')
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, endless, on_drain } = self;
        write!(f, "{path}")?;
        if *endless {
            f.write_str(", endless")?;
        }
        match on_drain {
            None => Ok(()),
            Some(RouteDrain::Finish) => f.write_str(", on_drain finish"),
            Some(RouteDrain::CloseAfter(time)) => {
                write!(f, ", on_drain close-after {}", Span(*time))
            }
            Some(RouteDrain::Cancel) => f.write_str(", on_drain cancel"),
        }
    }
}

/// The name of the array of tables.
pub(super) const ROUTE: &str = "route";

/// What a route may say. Only a file can: one value does not tell which route is meant.
pub(super) static ROUTE_KEYS: [Key; 3] = [
    Key {
        name: "route.path",
        default: Preset::Unset("/events"),
        form: Form::Path(|d, v| d.route.path = v),
        doc: "The path of the requests it is for, with all that lies below: /events is \
              /events and /events/7, not /eventsource; /events/ is only what lies below. \
              Compared as it is sent, without the query. The longest path wins.",
    },
    Key {
        name: "route.endless",
        default: Preset::Default("false"),
        form: Form::Flag(|d, v| d.route.endless = v),
        doc: "Whether its responses never end by themselves. A stop then ends each as it \
              ends the event stream of an EventSource: an event stream behind a whole \
              event, another body behind a whole chunk of the app's.",
    },
    Key {
        name: "route.on_drain",
        default: Preset::Unset("close-after 5s"),
        form: Form::RouteDrain(|d, v| d.route.on_drain = Some(v)),
        doc: "What a stop does with what is under way: finish lets it go on until the hard \
              deadline; close-after 5s ends it so long after listeners closed, cleanly if \
              it is a stream with a place to end, else like the hard deadline; cancel ends \
              it at once, the app's side too. If not set, requests finish, endless \
              responses end from drain.stop.stream_close_after on, and WebSockets do what \
              websocket.on_drain says.",
    },
];

/// A route as a file has it.
#[derive(Debug)]
pub(super) struct RouteEntry {
    /// Where it begins.
    pub(super) origin: Origin,
    /// What it says.
    pub(super) entries: Vec<Entry>,
    /// Its path was refused for its type.
    pub(super) refused: bool,
}

/// Adds the routes of a file.
pub(super) fn apply(builder: &mut Builder, routes: Vec<RouteEntry>) {
    for RouteEntry { origin, entries, refused } in routes {
        let path = |entry: &&Entry| entry.key.name == "route.path";
        let place = entries.iter().find(path).map(|entry| entry.origin.clone());
        builder.draft.route = Route::default();
        builder.apply(entries);
        let route = std::mem::take(&mut builder.draft.route);
        let routes = &mut builder.draft.config.routes;
        let Some(place) = place else {
            if !refused {
                let text = "none given; a route needs the path of its requests".to_owned();
                builder.error(origin, "route.path", Problem::Conflict(text));
            }
            continue;
        };
        if route.path.is_empty() {
            // It was refused.
            continue;
        }
        if routes.iter().any(|known| known.path == route.path) {
            let text = format!("{:?} is the path of another route already", route.path);
            builder.error(place, "route.path", Problem::Conflict(text));
        } else {
            routes.add(route);
        }
    }
}

/// The path of a route.
pub(super) fn path(text: &str) -> Parsed<String> {
    if !text.starts_with('/') {
        return Err(Refused::because("it does not begin with /"));
    }
    if text.contains(['?', '#']) {
        return Err(Refused::because("a query and a fragment are no part of a path"));
    }
    if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(Refused::because("such octets are sent as %20, and compared like that"));
    }
    if text.contains('*') {
        return Err(Refused::because(
            "there are no wildcards: a path stands for all that lies below",
        ));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Refused::because("clients send no dot segments: it would match nothing"));
    }
    let coded =
        |rest: &str| rest.get(..2).is_some_and(|it| it.bytes().all(|o| o.is_ascii_hexdigit()));
    if !text.split('%').skip(1).all(coded) {
        return Err(Refused::because("a % stands before two hexadecimal digits"));
    }
    Ok(text.to_owned())
}

/// What a drain does on a route.
pub(super) fn on_drain(text: &str) -> Parsed<RouteDrain> {
    match text.split_once(' ') {
        None if text == "finish" => Ok(RouteDrain::Finish),
        None if text == "cancel" => Ok(RouteDrain::Cancel),
        Some(("close-after", time)) => {
            let time = value::duration(time.trim())?;
            if time == super::INFINITY {
                return Err(Refused::because("what never closes is finish"));
            }
            Ok(RouteDrain::CloseAfter(time))
        }
        _ => Err(Refused::FORM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(paths: &[&str]) -> Routes {
        let mut routes = Routes::default();
        for path in paths {
            routes.add(Route { path: (*path).to_owned(), ..Route::default() });
        }
        routes
    }

    #[test]
    fn the_longest_path_that_is_the_targets_own_or_above_it_wins() {
        let routes = routes(&["/a", "/", "/a/b", "/a/b/", "/long"]);
        for (target, path) in [
            ("/a", "/a"),
            ("/a?/a/b", "/a"),
            ("/a/", "/a"),
            ("/a/c", "/a"),
            ("/a/b", "/a/b"),
            ("/a/b?x", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/b/c", "/a/b/"),
            ("/ab", "/"),
            ("/A", "/"),
            ("/%61", "/"),
            ("/?/a", "/"),
        ] {
            let found = routes.of(target.as_bytes()).map(|route| &*route.path);
            assert_eq!(found, Some(path), "{target}");
        }
        assert_eq!(routes.of(b"*"), None);
    }

    #[test]
    fn without_routes_no_target_has_one() {
        assert_eq!(Routes::default().of(b"/"), None);
        assert_eq!(routes(&["/a"]).of(b"/"), None);
    }

    #[test]
    fn what_is_shown_parses_back() {
        for text in ["finish", "close-after 1m30s", "close-after 0s", "cancel"] {
            let route = Route { on_drain: Some(on_drain(text).unwrap()), ..Route::default() };
            assert_eq!(route.to_string(), format!(", on_drain {text}"));
        }
        for text in ["", "close-after", "close-after infinity", "cancel 5s", "5s", "Finish"] {
            assert!(on_drain(text).is_err(), "{text}");
        }
    }
}
