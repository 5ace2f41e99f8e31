//! TLS as clients meet it: versions, names, tickets, ends, and what is no TLS.

use std::io::Write as _;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};

use crate::support::client::{Client, End, get, post_head};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::tls::{Files, Manner, TlsClient, TlsEnd, certificate, certificate_with};
use crate::support::{PATIENCE, admin, ms, pattern, pause, within};

const VERSIONS: [(&SupportedProtocolVersion, ProtocolVersion); 2] =
    [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)];

fn start(origin: &Origin) -> Proxy {
    Launch::before(origin).tls().admin().start()
}

#[track_caller]
fn wait_closed(proxy: &Proxy, reason: &str) {
    let name = format!("ebbtide_connections_closed_total{{reason=\"{reason}\"}}");
    within(PATIENCE, &format!("a close by {reason} to be counted"), || {
        (admin::metric(&proxy.admin(), &name) == 1.0).then_some(())
    });
}

#[test]
fn both_versions_are_served_and_the_app_is_told_the_scheme() {
    let origin = Origin::new();
    let proxy = start(&origin);
    for (version, name) in VERSIONS {
        let mut client = Manner::with_versions(&[version])
            .alpn(&["http/1.1"])
            .connect(&proxy.tls_place())
            .shaken();
        assert_eq!(client.version(), Some(name));
        assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        for n in 0..3 {
            let response = client.get(&format!("/{n}")).response();
            assert_eq!(response.text(), format!("GET /{n} 0"));
        }
        let request = origin.wait_started("/2");
        assert_eq!(request.head.field("x-forwarded-proto"), Some("https"));
        let port = proxy.tls_place().port().to_string();
        assert_eq!(request.head.field("x-forwarded-port"), Some(port.as_str()));
    }
}

#[test]
fn a_client_gets_the_certificate_for_the_name_and_the_signatures_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let make = |stem: &str, names: &[&str]| certificate(dir.path(), stem, names);
    let first = make("first", &["first.test"]);
    let second = make("second", &["second.test", "*.wild.test"]);
    let ed = certificate_with(dir.path(), "ed", &["second.test"], &rcgen::PKCS_ED25519, |_| {});
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .arg("--tls-listen")
        .arg("127.0.0.1:0")
        .identity(&first)
        .identity(&second)
        .identity(&ed)
        .start();
    let shown = |manner: Manner| manner.connect(&proxy.tls_place()).shaken().shown();
    let der = |files: &Files| CertificateDer::from_pem_file(&files.cert).unwrap();
    for (name, files) in
        [("first.test", &first), ("second.test", &second), ("A.WILD.test", &second)]
    {
        assert_eq!(shown(Manner::new().name(name)), der(files), "{name}");
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let ed_only = rustls::SignatureScheme::ED25519;
    let algorithms: Vec<_> = provider
        .signature_verification_algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == ed_only)
        .copied()
        .collect();
    provider.signature_verification_algorithms.mapping = algorithms.leak();
    let manner = Manner::with(provider, &[&TLS13]).name("second.test");
    assert_eq!(shown(manner), der(&ed));
}

#[test]
fn tickets_resume_a_session_on_whatever_worker_it_comes_to() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().arg("--workers").arg("4").start();
    for (version, _) in VERSIONS {
        let manner = Manner::with_versions(&[version]).resuming();
        for n in 0..20 {
            let mut client = manner.connect(&proxy.tls_place()).shaken();
            assert_eq!(client.get("/r").response().status, 200);
            assert_eq!(client.is_resumed(), n > 0, "{version:?}, connection {n}");
        }
    }
}

#[test]
fn the_last_response_is_followed_by_close_notify_and_then_fin() {
    let origin = Origin::new();
    let proxy = start(&origin);
    for (version, _) in VERSIONS {
        let mut client = Manner::with_versions(&[version]).connect(&proxy.tls_place()).shaken();
        client.send("GET /last HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response().text(), "GET /last 0");
        assert_eq!(client.end(), TlsEnd::Clean);
    }
}

#[test]
fn an_idle_connection_ends_with_close_notify_and_fin() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().admin().set("timeouts.idle", "400ms").start();
    let mut client = proxy.idle_tls_client();
    assert_eq!(client.end(), TlsEnd::Clean);
    wait_closed(&proxy, "idle");
}

#[test]
fn a_client_that_says_that_it_ends_is_answered_in_kind() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut idle = proxy.idle_tls_client();
    proxy.wait_connections("idle", 1);
    idle.half_close();
    assert_eq!(idle.end(), TlsEnd::Clean);
    let mut asking = proxy.tls_client();
    asking.get("/hold");
    origin.wait_started("/hold");
    asking.half_close();
    origin.release("/hold");
    assert_eq!(asking.response().text(), "held");
    assert_eq!(asking.end(), TlsEnd::Clean);
}

#[test]
fn a_response_that_its_app_does_not_finish_has_no_close_notify() {
    for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        let close_delimited = head.is_empty();
        let origin = Origin::scripted(move |conn, _| {
            conn.send(&text)?;
            conn.send(if text.contains("chunked") { "5\r\nhello\r\n" } else { "hello" })?;
            Ok(if close_delimited { Next::Reset } else { Next::Close })
        });
        let proxy = start(&origin);
        let mut client = proxy.tls_client();
        client.get("/broken");
        client.head();
        let (end, _) = client.rest();
        assert!(matches!(end, TlsEnd::Truncated | TlsEnd::Reset), "{head:?}: {end:?}");
    }
}

#[test]
fn large_bodies_pass_unchanged_both_ways() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let body = pattern(10_000_000);
    for (version, _) in VERSIONS {
        let mut client = Manner::with_versions(&[version]).connect(&proxy.tls_place()).shaken();
        let response = client.get("/bytes/10000000").response();
        assert!(response.body == body, "{version:?}: octets were changed");
        let mut sender = client;
        sender.send(post_head("/up", body.len()));
        for piece in body.chunks(100_003) {
            sender.send(piece);
        }
        assert_eq!(sender.response().text(), format!("POST /up {}", body.len()));
    }
}

#[test]
fn a_body_that_is_echoed_comes_back_unchanged() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let body = pattern(700_000);
    let mut client = proxy.tls_client();
    client.send(post_head("/echo", body.len())).send(&body);
    assert!(client.response().body == body, "octets were changed");
}

#[test]
fn pipelined_requests_in_one_record_and_cut_across_records_are_answered_in_order() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let requests: String = (0..20).map(|n| get(&format!("/{n}"))).collect();
    for piece in [requests.len(), 7, 50] {
        let mut client = proxy.tls_client();
        for piece in requests.as_bytes().chunks(piece) {
            client.send(piece);
        }
        for n in 0..20 {
            assert_eq!(client.response().text(), format!("GET /{n} 0"));
        }
    }
}

#[test]
fn a_record_that_comes_octet_by_octet_is_a_request() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.idle_tls_client();
    proxy.wait_connections("idle", 1);
    client.conn.writer().write_all(get("/slow").as_bytes()).unwrap();
    let record = client.take_flight();
    client.send_raw(&record[..3]);
    proxy.wait_connections("reading", 1);
    for octet in &record[3..] {
        client.send_raw(&[*octet]);
    }
    assert_eq!(client.response().text(), "GET /slow 0");
}

#[test]
fn a_slow_reader_gets_all_of_its_response() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().set("timeouts.send", "2s").start();
    let mut client = Manner::new().connect_narrow(&proxy.tls_place(), 4096).shaken();
    let len = 6_000_000;
    client.get(&format!("/bytes/{len}"));
    client.head();
    let mut got = Vec::new();
    while got.len() < len {
        got.extend(client.octets((len - got.len()).min(300_000)));
        pause(ms(40));
    }
    assert!(got == pattern(len), "octets were changed");
}

#[test]
fn a_request_in_clear_text_is_told_what_it_is() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = Client::connect(&proxy.tls_place());
    client.get("/clear");
    let response = client.response();
    assert_eq!(response.status, 400);
    assert!(response.says_close() && response.text().contains("TLS"), "{}", response.text());
    assert_eq!(client.end(), End::Eof);
    wait_closed(&proxy, "bad_request");
}

#[test]
fn what_is_no_tls_gets_an_alert_and_is_counted() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = Client::connect(&proxy.tls_place());
    client.send([22, 3, 1, 0, 5, 99, 0, 0, 1, 0]);
    let (end, got) = client.rest();
    assert_eq!((end, got[0]), (End::Eof, 21), "an alert, then FIN: {got:?}");
    wait_closed(&proxy, "tls");
    let failed = proxy.wait_event("tls_handshake_failed");
    assert!(failed.text("client").starts_with("127.0.0.1"), "{}", failed.fields);
    assert!(!failed.text("cause").is_empty());
}

#[test]
fn a_record_that_was_touched_ends_the_connection_with_an_alert() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.idle_tls_client();
    client.conn.writer().write_all(get("/touched").as_bytes()).unwrap();
    let mut record = client.take_flight();
    *record.last_mut().unwrap() ^= 1;
    client.send_raw(&record);
    let mut chunk = [0; 10];
    let error = std::io::Read::read(&mut client, &mut chunk).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    wait_closed(&proxy, "tls");
    assert!(origin.requests_for("/touched").is_empty());
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_no_error_of_ours() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = Manner::new().name("other.test").connect(&proxy.tls_place());
    assert!(client.shake().is_err());
    client.flush().unwrap();
    let failed = proxy.wait_event("tls_handshake_failed");
    assert!(failed.text("cause").contains("alert"), "{}", failed.fields);
}

/// The ClientHello and the flight after it.
fn hello(proxy: &Proxy) -> (TlsClient, Vec<u8>) {
    let mut client = Manner::new().connect(&proxy.tls_place());
    let hello = client.take_flight();
    (client, hello)
}

#[test]
fn a_client_hello_in_pieces_is_understood() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let (mut client, hello) = hello(&proxy);
    for octet in hello {
        client.send_raw(&[octet]);
    }
    assert_eq!(client.get("/pieces").response().text(), "GET /pieces 0");
}

#[test]
fn octets_alone_do_not_keep_a_handshake_open() {
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).tls().admin().set("timeouts.tls_handshake", "500ms").start();
    let (mut client, hello) = hello(&proxy);
    let before = std::time::Instant::now();
    let mut octets = hello.iter();
    while client.sock.write_all(&[*octets.next().unwrap()]).is_ok() && !client.has_news() {
        pause(ms(20));
    }
    assert!(before.elapsed() >= ms(500), "never early: {:?}", before.elapsed());
    assert!(octets.len() > 0, "it was ended before the ClientHello was whole");
    wait_closed(&proxy, "timeout");
    let failed = proxy.wait_event("tls_handshake_failed");
    assert!(failed.text("cause").contains("too long"), "{}", failed.fields);
}

#[test]
fn a_client_that_stops_after_its_client_hello_is_ended_and_one_that_goes_on_is_not() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).tls().admin().set("timeouts.tls_handshake", "1s").start();
    let (mut client, first) = hello(&proxy);
    let (mut slow, slow_first) = hello(&proxy);
    slow.send_raw(&slow_first[..10]);
    pause(ms(600));
    slow.send_raw(&slow_first[10..]);
    client.send_raw(&first);
    let before = std::time::Instant::now();
    pause(ms(600));
    assert_eq!(slow.get("/slow").response().status, 200, "each half has the time anew");
    client.wait_end();
    assert!(before.elapsed() >= ms(990), "never early: {:?}", before.elapsed());
    wait_closed(&proxy, "timeout");
}

#[test]
fn a_silent_connection_may_begin_its_handshake_late() {
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).tls().admin().set("timeouts.tls_handshake", "300ms").start();
    let mut client = Manner::new().connect(&proxy.tls_place());
    proxy.wait_connections("fresh", 1);
    pause(ms(700));
    assert_eq!(client.get("/late").response().text(), "GET /late 0");
}

#[test]
fn a_key_update_leaves_an_idle_connection_idle() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.idle_tls_client();
    proxy.wait_connections("idle", 1);
    for _ in 0..3 {
        client.conn.refresh_traffic_keys().unwrap();
        client.flush().unwrap();
        pause(ms(300));
        proxy.wait_connections("idle", 1);
    }
    assert_eq!(client.get("/after").response().text(), "GET /after 0");
}

#[test]
fn a_clear_text_listener_beside_it_serves_clear_text() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.get("/clear");
    assert_eq!(client.response().text(), "GET /clear 0");
    let request = origin.wait_started("/clear");
    assert_eq!(request.head.field("x-forwarded-proto"), Some("http"));
}

#[test]
fn too_many_from_one_address_are_ended_without_a_handshake() {
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).tls().admin().set("limits.connections_per_address", "1").start();
    let _first = proxy.idle_tls_client();
    let mut second = Manner::new().connect(&proxy.tls_place());
    assert!(second.shake().is_err());
    wait_closed(&proxy, "limit");
}
