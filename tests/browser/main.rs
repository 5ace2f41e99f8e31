//! A real browser through TLS and HAProxy in TCP mode: it holds a WebSocket and an event
//! stream to one of two ebbtides, is told when that one stops, and comes back to the
//! other, without a word of complaint in its console.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod app;
mod browser;
#[path = "../behind/foreign.rs"]
#[allow(dead_code, reason = "that of other tests, of which not everything is needed")]
mod foreign;
mod front;
#[path = "../behind/ground.rs"]
#[allow(dead_code, reason = "that of other tests, of which not everything is needed")]
mod ground;

use serde_json::Value;

use crate::browser::Browser;
use crate::ground::{Ground, Role};
use crate::support::identity::Identity;
use crate::support::process::{Launch, Proxy};

/// What a browser is told that has to come back.
const GOING_AWAY: u64 = 1001;

fn launch(ground: &Ground, role: Role, identity: &Identity) -> Proxy {
    Launch::before_addr(&ground.place(Role::App).to_string())
        .arg("--tls-listen")
        .arg(ground.place(role).to_string())
        .identity(&identity.files)
        .arg("--admin")
        .arg(ground.admin(role).to_string())
        .start()
}

/// The protocols over which a target was asked for.
fn over(proxy: &Proxy, target: &str) -> Vec<String> {
    let lines = proxy.access_log();
    let asked = lines.iter().filter(|line| line["target"] == target);
    let mut over: Vec<String> =
        asked.map(|line| line["protocol"].as_str().expect("a protocol").to_owned()).collect();
    over.dedup();
    over
}

#[test]
fn a_browser_is_told_and_comes_back_to_the_other_one() {
    let ground = Ground::new();
    let identity = Identity::new();
    let _app = app::start(&ground);
    let [a, b] = [Role::A, Role::B].map(|role| launch(&ground, role, &identity));
    let _front = front::start(&ground);
    let browser = Browser::open(&format!("https://{}/", ground.place(Role::Front)));

    browser.wait("an echo", |said| said["socket"] == "echo" && said["text"] == "hello");
    browser.wait("events", |said| said["source"] == "events");
    a.wait_count(&["connections", "tunnel", "websocket"], 1);

    let mark = browser.mark();
    a.terminate();
    let close = browser.wait_after(mark, "a close", |said| said["socket"] == "close");
    assert_eq!((close["code"].as_u64(), &close["clean"]), (Some(GOING_AWAY), &Value::Bool(true)));
    let end = browser.wait_after(mark, "an end of the events", |said| said["source"] == "end");
    assert_eq!(end["again"], true, "it comes back by itself");
    browser.wait_after(mark, "another echo", |said| said["socket"] == "echo");
    browser.wait_after(mark, "events again", |said| said["source"] == "events");
    b.wait_count(&["connections", "tunnel", "websocket"], 1);
    a.wait_clean_exit();
    assert_eq!(a.reported("cut_total"), 0);
    assert_eq!(browser.errors(), Vec::<String>::new());
    drop(browser);

    b.terminate();
    b.wait_clean_exit();
    // Where it has no HTTP/2 connection yet, it opens one of HTTP/1.1 for a WebSocket.
    assert_eq!(over(&a, "/chat"), ["HTTP/2.0"], "it used the connection that it had");
    assert_eq!([over(&a, "/events"), over(&b, "/events")], [["HTTP/2.0"], ["HTTP/2.0"]]);
    assert!(!over(&b, "/chat").is_empty(), "it came back to the second one");
}
