//! The admin interface as a plain HTTP client sees it.

use serde_json::Value;

use super::PATIENCE;
use super::client::{Client, Response};
use super::wire::Place;

/// GET on a connection of its own.
pub(crate) fn get(place: &Place, path: &str) -> Response {
    ask(place, "GET", path, &host(place))
}

/// What it answers to GET, or what came instead.
pub(crate) fn try_get(place: &Place, path: &str) -> Result<String, String> {
    let connected = Client::try_connect(place, PATIENCE);
    let mut client = connected.map_err(|end| format!("connect: {end:?}"))?;
    let sent = client.try_send(request("GET", path, &host(place)));
    let response = client.try_response();
    let response = response.map_err(|broken| format!("{broken:?}, sent {sent:?}"))?;
    if response.status == 200 { Ok(response.text()) } else { Err(format!("{response:?}")) }
}

/// One request with the method and Host given.
pub(crate) fn ask(place: &Place, method: &str, path: &str, host: &str) -> Response {
    let mut client = Client::connect(place);
    client.send(request(method, path, host));
    client.response()
}

fn request(method: &str, path: &str, host: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// `/status` as JSON.
#[track_caller]
pub(crate) fn status(place: &Place) -> Value {
    let text = try_get(place, "/status").unwrap_or_else(|why| panic!("no status: {why}"));
    serde_json::from_str(&text).expect("/status is JSON")
}

/// The same, if somebody answers.
pub(crate) fn try_status(place: &Place) -> Option<Value> {
    serde_json::from_str(&try_get(place, "/status").ok()?).ok()
}

/// The value of one metric, named with its labels as Prometheus writes them; 0 where it
/// has not been counted yet.
#[track_caller]
pub(crate) fn metric(place: &Place, name: &str) -> f64 {
    let text = try_get(place, "/metrics").unwrap_or_else(|why| panic!("no metrics: {why}"));
    metric_in(&text, name)
}

/// The same in a page of them.
pub(crate) fn metric_in(text: &str, name: &str) -> f64 {
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
