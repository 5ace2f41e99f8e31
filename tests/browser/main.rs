//! A real browser through TLS and HAProxy in TCP mode: it holds a WebSocket and an event
//! stream to one of two ebbtides, is told when that one stops, and comes back to the
//! other, and then the same back again, without a word of complaint in its console.

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

/// What the first ebbtide says to WebSockets when it stops, which is the default, and what
/// the second one says.
const GOING_AWAY: u16 = 1001;
const SERVICE_RESTART: u16 = 1012;

fn launch(ground: &Ground, role: Role, identity: &Identity, code: u16) -> Proxy {
    Launch::before_addr(&ground.place(Role::App).to_string())
        .arg("--tls-listen")
        .arg(ground.place(role).to_string())
        .identity(&identity.files)
        .arg("--admin")
        .arg(ground.admin(role).to_string())
        .set("websocket.close_code", &code.to_string())
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

/// Waits until the browser holds both, and to whom.
fn settled(browser: &Browser, mark: usize, at: &Proxy) {
    let is_echo = |said: &Value| said["socket"] == "echo" && said["text"] == "hello";
    browser.wait(mark, "an echo", is_echo);
    browser.wait(mark, "events", |said| said["source"] == "events");
    at.wait_count(&["connections", "tunnel", "websocket"], 1);
}

/// Stops one, and follows the browser to the other one.
fn stop(browser: &Browser, one: &Proxy, code: u16, other: &Proxy) {
    let mark = browser.mark();
    one.terminate();
    let close = browser.wait(mark, "a close", |said| said["socket"] == "close");
    let (said, is_clean) = (close["code"].as_u64(), close["clean"].as_bool());
    assert_eq!((said, is_clean), (Some(u64::from(code)), Some(true)));
    let end = browser.wait(mark, "an end of the events", |said| said["source"] == "end");
    assert_eq!(end["again"], true, "it comes back by itself");
    settled(browser, mark, other);
    one.wait_clean_exit();
    assert_eq!(one.reported("cut_total"), 0);
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn a_browser_is_told_and_comes_back_to_the_other_one() {
    let ground = Ground::new();
    let identity = Identity::new();
    let _app = app::start(&ground);
    let a = launch(&ground, Role::A, &identity, GOING_AWAY);
    let b = launch(&ground, Role::B, &identity, SERVICE_RESTART);
    let front = front::start(&ground);
    let browser = Browser::open(&format!("https://{}/", ground.place(Role::Front)));
    settled(&browser, 0, &a);

    stop(&browser, &a, GOING_AWAY, &b);
    front::wait_found(&front, "DOWN");
    let again = launch(&ground, Role::A, &identity, GOING_AWAY);
    front::wait_found(&front, "UP");
    stop(&browser, &b, SERVICE_RESTART, &again);
    drop(browser);
    again.terminate();
    again.wait_clean_exit();

    // Where it has no HTTP/2 connection yet, it opens one of HTTP/1.1 for a WebSocket.
    assert_eq!(over(&a, "/chat"), ["HTTP/2.0"], "it used the connection that it had");
    assert!(!over(&b, "/chat").is_empty(), "it came to the second one");
    for proxy in [&a, &b, &again] {
        assert_eq!(over(proxy, "/events"), ["HTTP/2.0"]);
    }
}
