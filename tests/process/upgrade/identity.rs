//! Who a client is, and where an app server is, goes with the connection.

use super::{app, start, upgrade_whole};
use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::origin::{Origin, Request, standard};
use crate::support::process::Launch;
use crate::support::wire::Place;
use crate::support::ws::{self, Socket};

/// A header that names another client than the one who connects.
const ANNOUNCED: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 8443\r\n";

#[track_caller]
fn is_from(request: &Request, client: &str, port: &str) {
    assert_eq!(request.field("x-forwarded-for"), Some(client), "{:?}", request.head);
    assert_eq!(request.field("x-forwarded-port"), Some(port), "{:?}", request.head);
}

#[test]
fn client_that_was_announced_stays_who_it_is() {
    let (origin, line) = start(|launch| launch.set("trusted_proxies", "127.0.0.1"));
    let port = line.place().port().to_string();
    let mut announced = line.client();
    announced.send(ANNOUNCED).get("/announced/0");
    assert_eq!(announced.response().status, 200);
    // Nothing of it has been said, only a part, and all of it but no request.
    let mut whole = line.client();
    whole.send(ANNOUNCED);
    let mut part = line.client();
    part.send(&ANNOUNCED[..20]);
    let mut nothing = line.client();
    let mut plain = line.client();
    plain.get("/plain/0");
    assert_eq!(plain.response().status, 200);

    line.upgrade();
    part.send(&ANNOUNCED[20..]);
    nothing.send(ANNOUNCED);
    for (client, name) in [
        (&mut announced, "announced"),
        (&mut whole, "whole"),
        (&mut part, "partly"),
        (&mut nothing, "nothing"),
    ] {
        let target = format!("/{name}/1");
        client.get(&target);
        let response = client.response();
        assert!(response.status == 200 && !response.says_close(), "{name}");
        is_from(&origin.requests_for(&target)[0], "192.0.2.7", "8443");
    }
    plain.get("/plain/1");
    assert_eq!(plain.response().status, 200);
    is_from(&origin.requests_for("/plain/1")[0], "127.0.0.1", &port);
    // It has been used, and may not announce anybody any more.
    plain.send(ANNOUNCED);
    assert_eq!(plain.response().status, 400);
}

/// Who is trusted may name others in a field of its request, also on a connection that
/// has moved; who is not, may not.
#[test]
fn trust_goes_with_the_connection() {
    for (trusted, told) in [("127.0.0.1", "192.0.2.9, 127.0.0.1"), ("192.0.2.1", "127.0.0.1")] {
        let (origin, line) = start(|launch| launch.set("trusted_proxies", trusted));
        let mut client = line.idle_client();
        upgrade_whole(&line);
        client.send("GET /moved HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n");
        assert_eq!(client.response().status, 200);
        let request = &origin.requests_for("/moved")[0];
        assert_eq!(request.field("x-forwarded-for"), Some(told), "trusted: {trusted}");
    }
}

#[test]
fn tunnel_to_a_unix_socket_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::Unix(directory.path().join("app.sock"));
    let origin = Origin::scripted_at(place, |conn, request| {
        if request.target == "/ws" { ws::echo(conn, request) } else { standard(conn, request) }
    });
    let listen = format!("unix:{}", directory.path().join("proxy.sock").display());
    let line = Generations::start(Launch::before(&origin).listen(&listen));
    let mut socket = Socket::open(Client::connect(&line.place()), "/ws");
    socket.echo("before");
    upgrade_whole(&line);
    socket.echo("after");
    upgrade_whole(&line);
    socket.echo("after");
    assert_eq!(origin.connections(), 1);
}

/// The app server sees one connection for as long as the tunnel lives.
#[test]
fn app_server_of_a_tunnel_notices_nothing() {
    let origin = app();
    let line = Generations::start(Launch::before(&origin));
    let mut socket = Socket::open(line.client(), "/ws");
    for round in 0..4 {
        socket.echo(format!("{round}"));
        upgrade_whole(&line);
    }
    socket.echo("last");
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.requests().len(), 1);
}
