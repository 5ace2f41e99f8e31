//! The admin interface as a plain HTTP client sees it.

use serde_json::Value;

use super::client::{Client, Response};
use super::wire::Place;

/// GET on a connection of its own.
pub(crate) fn get(place: &Place, path: &str) -> Response {
    ask(place, "GET", path, &host(place))
}

/// One request with the method and Host given.
pub(crate) fn ask(place: &Place, method: &str, path: &str, host: &str) -> Response {
    let mut client = Client::connect(place);
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    client.response()
}

/// `/status` as JSON.
pub(crate) fn status(place: &Place) -> Value {
    let response = get(place, "/status");
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_slice(&response.body).expect("/status is JSON")
}

/// The value of one metric, named with its labels as Prometheus writes them; 0 where it
/// has not been counted yet.
pub(crate) fn metric(place: &Place, name: &str) -> f64 {
    let text = get(place, "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

/// A count of `/status`, by its path: `["connections", "h1", "idle"]`.
pub(crate) fn count(place: &Place, path: &[&str]) -> u64 {
    let status = status(place);
    let found = path.iter().try_fold(&status, |value, key| value.get(key));
    found.and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path:?} in {status}"))
}

fn host(place: &Place) -> String {
    match place {
        Place::Tcp(addr) => addr.to_string(),
        Place::Unix(_) => "localhost".to_owned(),
    }
}
