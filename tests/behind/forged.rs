//! What a client says of itself, the app server does not hear from somebody it believes.

use crate::fronts::{self, haproxy, nginx};
use crate::ground::{Ground, Role};
use crate::pair::Pair;
use crate::support::client::Client;
use crate::support::origin::Origin;

const FORGED: [&str; 9] = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.test",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded-Scheme: evil",
    "X-Forwarded-Server: evil",
    "X-Forwarded-Ssl: on",
    "Forwarded: for=192.0.2.1;host=evil.test",
];

fn asked_by_a_liar_behind(front: fronts::Kind) {
    let ground = Ground::new();
    let origin = Origin::on(ground.place(Role::App));
    let _pair = Pair::start(&ground);
    let _front = front(&ground);
    let mut client = Client::connect(&ground.place(Role::Front));
    let forged = FORGED.join("\r\n");
    client.send(format!("GET /liar HTTP/1.1\r\nHost: shop.test\r\n{forged}\r\n\r\n"));
    assert_eq!(client.response().status, 200);
    let request = origin.wait_whole("/liar");
    let said = |name| request.field(name).unwrap_or_default().to_owned();
    // The client as the front saw it, and the front as ebbtide did.
    assert_eq!(said("x-forwarded-for"), "127.0.0.1, 127.0.0.1");
    assert_eq!(said("x-real-ip"), "127.0.0.1");
    assert_eq!(said("x-forwarded-proto"), "http");
    assert_eq!(said("x-forwarded-host"), "shop.test");
    assert_eq!(said("x-forwarded-port"), ground.place(Role::Front).port().to_string());
    for name in ["prefix", "scheme", "server", "ssl"] {
        assert_eq!(request.field(&format!("x-forwarded-{name}")), None);
    }
    assert_eq!(request.field("forwarded"), None);
}

#[test]
fn nginx_as_recommended_drops_what_a_client_says_of_itself() {
    asked_by_a_liar_behind(nginx);
}

#[test]
fn haproxy_as_recommended_drops_what_a_client_says_of_itself() {
    asked_by_a_liar_behind(haproxy);
}
