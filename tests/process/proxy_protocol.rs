//! Connections that a proxy before us passes on, and whose they are (PROXY protocol).
//!
//! 127.0.0.1 is trusted; whoever is not comes from 127.0.0.2.

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::client::{Client, End, get};
use crate::support::h2::{H2, link};
use crate::support::origin::{Origin, Request};
use crate::support::process::{Launch, Proxy};
use crate::support::tls::Manner;
use crate::support::wire::{Place, Wire};
use crate::support::{PATIENCE, admin, ms, pause, within};

mod haproxy;
mod stop;

/// The address that [`ANNOUNCED`] names.
const CLIENT: &str = "192.0.2.7";

/// A header that names [`CLIENT`], port 56324, and port 8443 of ours.
const ANNOUNCED: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 8443\r\n";

fn launch(origin: &Origin) -> Launch {
    Launch::before(origin).admin().set("trusted_proxies", "127.0.0.1")
}

/// A client whose socket has this address.
fn client_from(source: &str, place: &Place) -> Client {
    let sock = place.socket();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    sock.bind(&source.into()).unwrap();
    sock.connect_timeout(&place.sock_addr(), PATIENCE).unwrap();
    sock.set_tcp_nodelay(true).unwrap();
    let wire = Wire::new(sock);
    wire.read_bound(PATIENCE);
    wire.write_bound(PATIENCE);
    Client { wire }
}

/// A header of version 2.
fn binary(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
    let size = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, kind][..], &size, block].concat()
}

/// Addresses and ports as version 2 has them.
fn block(source: &[u8], source_port: u16, destination: &[u8], port: u16) -> Vec<u8> {
    [source, destination, &source_port.to_be_bytes(), &port.to_be_bytes()].concat()
}

/// 2001:db8::7
const SIX: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// [`ANNOUNCED`] as version 2 says it, with fields behind the addresses.
fn announced_in_binary() -> Vec<u8> {
    let addresses = block(&[192, 0, 2, 7], 56324, &[198, 51, 100, 1], 8443);
    binary(0x21, 0x11, &[&addresses[..], &[0x04, 0, 2, 0, 0, 0xea, 0, 1, 9]].concat())
}

/// Asserts who the client of a request was, for the app server.
#[track_caller]
fn is_from(request: &Request, client: &str, port: u16) {
    assert_eq!(request.field("x-real-ip"), Some(client), "{:?}", request.head);
    assert_eq!(request.field("x-forwarded-for"), Some(client), "{:?}", request.head);
    assert_eq!(request.field("x-forwarded-port"), Some(&*port.to_string()), "{:?}", request.head);
}

/// The line of the access log about a target.
fn logged(proxy: &Proxy, target: &str) -> Value {
    let line = proxy.wait_access(target, |line| line.contains(target));
    serde_json::from_str(&line).unwrap()
}

/// Waits for the event that says why a header was refused.
#[track_caller]
fn is_refused_because(proxy: &Proxy, cause: &str) {
    let event = proxy.wait_event("proxy_header_refused");
    assert_eq!(event.text("cause"), cause);
    assert_eq!(event.text("level"), "info");
    assert!(event.text("peer").starts_with("127.0.0.1:"), "{}", event.fields);
}

fn wait_closed(proxy: &Proxy, reason: &str, n: f64) {
    let name = format!("ebbtide_connections_closed_total{{reason=\"{reason}\"}}");
    within(PATIENCE, &name, || (admin::metric(&proxy.admin(), &name) == n).then_some(()));
}

#[test]
fn who_is_announced_is_the_client_of_every_request_of_the_connection() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let six = block(&SIX, 258, &SIX, 443);
    let line_of_six = b"PROXY TCP6 2001:db8::7 2001:db8::1 258 443\r\n".to_vec();
    for (n, (header, client, port)) in [
        (ANNOUNCED.as_bytes().to_vec(), CLIENT, 8443),
        (line_of_six, "2001:db8::7", 443),
        (announced_in_binary(), CLIENT, 8443),
        (binary(0x21, 0x21, &six), "2001:db8::7", 443),
        (binary(0x21, 0x21, &[&six[..], &[4; 100]].concat()), "2001:db8::7", 443),
        (binary(0x21, 0x12, &block(&[192, 0, 2, 7], 1, &[0; 4], 443)), CLIENT, 443),
    ]
    .into_iter()
    .enumerate()
    {
        let mut connection = proxy.client();
        connection.send(header);
        for turn in ["first", "second"] {
            let target = format!("/{turn}/{n}");
            connection.get(&target);
            assert_eq!(connection.response().status, 200);
            is_from(&origin.requests_for(&target)[0], client, port);
            assert_eq!(logged(&proxy, &target)["remote_ip"], client);
        }
    }
}

#[test]
fn who_is_announced_is_not_believed_like_the_one_who_announces() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut client = proxy.client();
    client.send(ANNOUNCED);
    client.send("GET /claims HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
    assert_eq!(client.response().status, 200);
    is_from(&origin.requests_for("/claims")[0], CLIENT, 8443);
}

#[test]
fn header_that_names_nobody_leaves_the_peer_who_it_is() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let port = proxy.place().port();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 56324 8443\r\n".to_vec(),
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &block(&[192, 0, 2, 7], 1, &[0; 4], 2)),
        binary(0x21, 0x00, &[1; 12]),
        binary(0x21, 0x31, &[b'/'; 216]),
    ] {
        let mut client = proxy.client();
        client.send(header).get("/nobody");
        assert_eq!(client.response().status, 200);
        is_from(&origin.requests().pop().unwrap(), "127.0.0.1", port);
    }
}

#[test]
fn who_has_no_name_is_not_believed_like_the_one_who_passes_it_on() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let claims = "GET /claims HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    for (header, told) in [
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x00, &[]), "127.0.0.1"),
        (binary(0x21, 0x31, &[b'/'; 216]), "127.0.0.1"),
        (binary(0x20, 0x00, &[]), "6.6.6.6, 127.0.0.1"),
    ] {
        let mut client = proxy.client();
        // Silent for a moment, so that it is parked and has to be remembered.
        client.send(&header).hears_nothing_for(ms(300));
        client.send(claims);
        assert_eq!(client.response().status, 200);
        let request = origin.requests_for("/claims").pop().unwrap();
        assert_eq!(request.field("x-forwarded-for"), Some(told), "{}", header.escape_ascii());
    }
}

#[test]
fn header_may_be_cut_at_every_octet() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    for header in [ANNOUNCED.as_bytes().to_vec(), announced_in_binary()] {
        let all = [&header[..], get("/cut").as_bytes()].concat();
        for cut in 1..header.len() + 2 {
            let mut client = proxy.client();
            client.send(&all[..cut]);
            pause(ms(2));
            client.send(&all[cut..]);
            assert_eq!(client.response().status, 200, "cut at {cut}");
            is_from(&origin.requests().pop().unwrap(), CLIENT, 8443);
        }
        let mut client = proxy.client();
        for octet in all {
            client.send([octet]);
            pause(ms(1));
        }
        assert_eq!(client.response().status, 200, "octet by octet");
        is_from(&origin.requests().pop().unwrap(), CLIENT, 8443);
    }
}

#[test]
fn trusted_peer_need_not_announce_anybody() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let port = proxy.place().port();
    for (method, before) in [
        ("GET", ""),
        ("PROPFIND", ""),
        ("PRO", ""),
        ("P", ""),
        ("GET", "\r\n\r\n"),
        ("GET", "\r\n"),
    ] {
        let request = format!("{before}{method} /plain HTTP/1.1\r\nHost: app.test\r\n\r\n");
        for cut in [0, 1, 4, 5] {
            let mut client = proxy.client();
            let (first, rest) = request.split_at(cut);
            if cut > 0 {
                client.send(first);
                pause(ms(2));
            }
            client.send(rest);
            assert_eq!(client.response().status, 200, "{method} after {before:?}, cut at {cut}");
            let request = origin.requests().pop().unwrap();
            assert_eq!(request.method, method);
            is_from(&request, "127.0.0.1", port);
        }
    }
    let mut h2 = H2::connect(&proxy.place());
    let stream = h2.get("/prior");
    assert_eq!(h2.response(stream).status, 200);
    is_from(&origin.requests_for("/prior")[0], "127.0.0.1", port);
}

#[test]
fn nobody_listens_to_a_peer_that_is_not_trusted() {
    let origin = Origin::new();
    let proxy = launch(&origin).tls().set("forwarding.proxy_protocol", "require").start();
    for header in [ANNOUNCED.as_bytes().to_vec(), announced_in_binary(), binary(0x20, 0, &[])] {
        let mut client = client_from("127.0.0.2", &proxy.place());
        client.send([&header[..], get("/no").as_bytes()].concat());
        let response = client.response();
        assert_eq!(response.status, 400);
        assert!(response.says_close());
        assert_eq!(client.end(), End::Eof);

        let mut client = client_from("127.0.0.2", &proxy.tls_place());
        client.send(&header);
        assert!(matches!(client.rest().0, End::Eof), "TLS does not begin like this");
    }
    let mut client = client_from("127.0.0.2", &proxy.place());
    client.get("/plain");
    assert_eq!(client.response().status, 200, "nothing is required of it");
    is_from(&origin.requests_for("/plain")[0], "127.0.0.2", proxy.place().port());
    assert_eq!(origin.requests().len(), 1);
    assert!(proxy.events("proxy_header_refused").is_empty());
}

#[test]
fn header_that_breaks_its_grammar_ends_the_connection() {
    let origin = Origin::new();
    for (header, cause) in [
        (&b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n"[..], "its line ends with LF alone"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r2\n", "its line ends with CR alone"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n", "its line names no addresses and ports"),
        (&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(), "its line is too long"),
        (&binary(0x11, 0x11, &[0; 12]), "its version is unknown"),
        (&binary(0x22, 0x11, &[0; 12]), "its command is unknown"),
        (&binary(0x21, 0x41, &[0; 12]), "its address family or protocol is unknown"),
        (&binary(0x21, 0x11, &[0; 11]), "it is shorter than its addresses"),
        (&binary(0x21, 0x11, &[0; 5000]), "it is too long"),
    ] {
        let proxy = launch(&origin).start();
        let mut client = proxy.client();
        client.send([header, get("/no").as_bytes()].concat());
        assert_eq!(client.end(), End::Eof, "{}", header.escape_ascii());
        is_refused_because(&proxy, cause);
        wait_closed(&proxy, "bad_request", 1.0);
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn header_can_be_required() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("forwarding.proxy_protocol", "require").start();
    let mut client = proxy.client();
    client.send(ANNOUNCED).get("/with");
    assert_eq!(client.response().status, 200);
    is_from(&origin.requests_for("/with")[0], CLIENT, 8443);

    let mut client = proxy.client();
    client.get("/without");
    assert_eq!(client.end(), End::Eof);
    is_refused_because(&proxy, "there is none");
    assert!(origin.requests_for("/without").is_empty());
}

#[test]
fn header_is_taken_once() {
    let origin = Origin::new();
    for silence in [0, 700] {
        for first in ["", "GET /first HTTP/1.1\r\nHost: app.test\r\n\r\n"] {
            let proxy = launch(&origin).set("forwarding.proxy_protocol", "require").start();
            let mut client = proxy.client();
            client.send(ANNOUNCED).send(first);
            if !first.is_empty() {
                assert_eq!(client.response().status, 200);
            }
            // Long enough to be parked meanwhile, or not.
            pause(ms(silence));
            client.get("/without");
            assert_eq!(client.response().status, 200, "none is required again");
            is_from(&origin.requests().pop().unwrap(), CLIENT, 8443);
            pause(ms(silence));
            client.send(ANNOUNCED);
            assert_eq!(client.response().status, 400, "{first:?} and {silence} ms");
            assert_eq!(client.end(), End::Eof);
        }
    }
}

#[test]
fn header_is_a_malformed_request_where_none_is_taken() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("forwarding.proxy_protocol", "off").start();
    for header in [ANNOUNCED.as_bytes().to_vec(), announced_in_binary()] {
        let mut client = proxy.client();
        client.send([&header[..], get("/no").as_bytes()].concat());
        assert_eq!(client.response().status, 400);
        assert_eq!(client.end(), End::Eof);
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn header_comes_before_tls() {
    let origin = Origin::new();
    let proxy = launch(&origin).tls().start();
    for header in [ANNOUNCED.as_bytes().to_vec(), announced_in_binary()] {
        // With the ClientHello, before it, and in the middle of either.
        for cut in [0, 1, 20, header.len(), header.len() + 3, header.len() + 100] {
            let mut client = Manner::new().connect(&proxy.tls_place());
            let all = [&header[..], &client.take_flight()].concat();
            if cut > 0 {
                client.send_raw(&all[..cut]);
                pause(ms(2));
            }
            client.send_raw(&all[cut..]);
            let mut client = client.shaken();
            for target in ["/tls/first", "/tls/second"] {
                assert_eq!(client.get(target).response().status, 200);
                let request = origin.requests().pop().unwrap();
                is_from(&request, CLIENT, 8443);
                assert_eq!(request.field("x-forwarded-proto"), Some("https"));
            }
        }
    }
    let mut plain = proxy.tls_client();
    assert_eq!(plain.get("/tls/plain").response().status, 200);
    is_from(&origin.requests_for("/tls/plain")[0], "127.0.0.1", proxy.tls_place().port());
    let mut clear = Client::connect(&proxy.tls_place());
    clear.send(ANNOUNCED).get("/clear");
    assert_eq!(clear.response().status, 400, "a request in clear text");
    let failed = proxy.wait_event("tls_handshake_failed");
    assert_eq!(failed.text("client"), "192.0.2.7:56324");
}

#[test]
fn header_comes_before_the_preface_of_http_2() {
    let origin = Origin::new();
    let proxy = launch(&origin).tls().start();
    for (n, header) in [ANNOUNCED.as_bytes().to_vec(), announced_in_binary()].iter().enumerate() {
        let mut clear = link::clear(&proxy.place());
        clear.write_all(header).unwrap();
        let mut h2 = H2::over(Box::new(clear));
        h2.handshake(&[]);
        let mut below = link::clear(&proxy.tls_place());
        below.write_all(header).unwrap();
        let session = Manner::new().alpn(&["h2"]).session();
        let mut tls = H2::over(Box::new(link::encrypted_by(below, session)));
        tls.handshake(&[]);
        for turn in ["first", "second"] {
            for (h2, scheme) in [(&mut h2, "http"), (&mut tls, "https")] {
                let target = format!("/{scheme}/{turn}/{n}");
                let stream = h2.get(&target);
                assert_eq!(h2.response(stream).status, 200);
                is_from(&origin.requests_for(&target)[0], CLIENT, 8443);
                assert_eq!(logged(&proxy, &target)["remote_ip"], CLIENT);
            }
        }
    }
}

#[test]
fn connection_that_has_announced_itself_is_parked_and_remembers_for_whom() {
    let origin = Origin::new();
    let proxy = launch(&origin).tls().start();
    let mut clear = proxy.client();
    clear.send(ANNOUNCED);
    let mut encrypted = Manner::new().connect(&proxy.tls_place());
    encrypted.send_raw(ANNOUNCED.as_bytes());
    let mut silent = proxy.client();
    proxy.wait_connections("fresh", 3);
    // Longer than it takes to be parked.
    pause(ms(700));
    proxy.wait_connections("fresh", 3);
    clear.get("/clear");
    assert_eq!(clear.response().status, 200);
    is_from(&origin.requests_for("/clear")[0], CLIENT, 8443);
    assert_eq!(encrypted.get("/tls").response().status, 200);
    is_from(&origin.requests_for("/tls")[0], CLIENT, 8443);
    silent.send(ANNOUNCED).get("/late");
    assert_eq!(silent.response().status, 200);
    is_from(&origin.requests_for("/late")[0], CLIENT, 8443);
    pause(ms(700));
    clear.get("/again");
    assert_eq!(clear.response().status, 200);
    is_from(&origin.requests_for("/again")[0], CLIENT, 8443);
}

#[test]
fn connection_that_may_announce_itself_makes_room_before_and_after_it_does() {
    let origin = Origin::new();
    for header in ["", ANNOUNCED] {
        let proxy = launch(&origin)
            .arg("--workers")
            .arg("1")
            .set("limits.connections", "1")
            .stop("first_request_grace", "100ms")
            .start();
        let mut fresh = proxy.client();
        fresh.send(header);
        proxy.wait_connections("fresh", 1);
        // Only who is parked can be asked to go.
        let mut newcomer = proxy.client();
        newcomer.get("/room");
        assert_eq!(newcomer.response().status, 200);
        assert_eq!(fresh.end(), End::Eof, "after {header:?}");
    }
}

#[test]
fn socket_of_a_trusted_neighbour_may_be_a_unix_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .listen(&format!("unix:{}", path.display()))
        .set("trusted_proxies", "unix")
        .start();
    let mut client = proxy.client();
    client.send(announced_in_binary()).get("/first");
    assert_eq!(client.response().status, 200);
    // Parked, and taken up again.
    pause(ms(700));
    client.get("/second");
    assert_eq!(client.response().status, 200);
    for target in ["/first", "/second"] {
        is_from(&origin.requests_for(target)[0], CLIENT, 8443);
    }
    assert_eq!(logged(&proxy, "/second")["remote_ip"], CLIENT);
}

#[test]
fn header_that_has_begun_has_the_time_of_a_head() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.head", "400ms").start();
    for half in
        [&b"PRO"[..], b"\r\n\r\n\0", &ANNOUNCED.as_bytes()[..30], &announced_in_binary()[..30]]
    {
        let mut client = proxy.client();
        pause(ms(300));
        let begun = std::time::Instant::now();
        client.send(half);
        assert_eq!(client.end(), End::Eof);
        assert!(begun.elapsed() >= ms(400), "early: {:?}", begun.elapsed());
    }
    is_refused_because(&proxy, "it took too long");
    wait_closed(&proxy, "timeout", 4.0);
    let mut client = proxy.client();
    client.send("P");
    assert_eq!(client.response().status, 408, "it may as well have been a request");
    drop(proxy);

    let proxy = launch(&origin).start();
    let mut client = proxy.client();
    client.send(&ANNOUNCED[..30]).half_close();
    assert_eq!(client.end(), End::Eof, "nothing more can come");
    wait_closed(&proxy, "client", 1.0);
}

#[test]
fn limit_for_an_address_is_that_of_the_announced_one() {
    let origin = Origin::new();
    let proxy = launch(&origin).tls().set("limits.connections_per_address", "1").start();
    let announce = |header: &str, target: &str| {
        let mut client = proxy.client();
        client.send([header, &get(target)].concat());
        client
    };
    let mut first = announce(ANNOUNCED, "/in");
    assert_eq!(first.response().status, 200);
    let mut second = announce("PROXY TCP4 192.0.2.7 198.51.100.1 56325 8443\r\n", "/out");
    let told = second.response();
    assert_eq!(told.status, 503);
    assert!(told.says_close());
    assert_eq!(second.end(), End::Eof);
    let mut third = Manner::new().connect(&proxy.tls_place());
    let hello = third.take_flight();
    third.send_raw(&[ANNOUNCED.as_bytes(), &hello].concat());
    third.wait_end();
    wait_closed(&proxy, "limit", 2.0);
    let other = "PROXY TCP4 192.0.2.8 198.51.100.1 56324 8443\r\n";
    assert_eq!(announce(other, "/other").response().status, 200);

    drop(first);
    within(PATIENCE, "the place to be free again", || {
        let response = announce(ANNOUNCED, "/again").try_response();
        response.ok().filter(|response| response.status == 200)
    });
    assert!(origin.requests_for("/out").is_empty());
}

#[test]
fn limit_for_an_address_is_never_that_of_a_trusted_peer() {
    let origin = Origin::new();
    for proxy_protocol in ["auto", "off"] {
        let proxy = launch(&origin)
            .set("limits.connections_per_address", "1")
            .set("forwarding.proxy_protocol", proxy_protocol)
            .start();
        let _trusted = [0; 5].map(|_| proxy.idle_client());
        let mut first = client_from("127.0.0.2", &proxy.place());
        first.get("/one");
        assert_eq!(first.response().status, 200);
        let mut second = client_from("127.0.0.2", &proxy.place());
        assert_eq!(second.response().status, 503, "of others it is");
    }
}
