//! What a head becomes, as text.

use super::*;
use crate::config::{Network, ProxyProtocol};
use crate::http1::head::{parse_request, storage};

/// How the requests of one test are planned.
struct Plan {
    forwarding: Forwarding,
    trusted: Trusted,
    from_trusted: bool,
}

/// Without `Via`, so that heads stay short.
const PLAIN: Plan = Plan {
    forwarding: Forwarding {
        via: false,
        forwarded: false,
        underscores: Underscores::Drop,
        proxy_protocol: ProxyProtocol::Off,
    },
    trusted: Trusted::nobody(),
    from_trusted: false,
};

impl Plan {
    fn run(&self, raw: &str) -> Result<Request, Failure> {
        let mut fields = storage();
        let head = parse_request(raw.as_bytes(), &mut fields).unwrap().unwrap();
        let arrival = Arrival { began: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        let (client, port, scheme) = ("192.0.2.7", 8080, "http");
        let origin = Origin { client, port, scheme, trusted: self.from_trusted };
        let (forwarding, trusted) = (&self.forwarding, &self.trusted);
        let rules = Rules { origin, forwarding, trusted, upgrades: &[], ids: &RequestIds::new() };
        plan(&head, &rules, "app:1", arrival, Vec::new())
    }

    fn head(&self, raw: &str) -> String {
        String::from_utf8(self.run(raw).unwrap().head).unwrap()
    }
}

fn planned(raw: &str) -> Result<String, Failure> {
    PLAIN.run(raw).map(|request| String::from_utf8(request.head).unwrap())
}

/// A plan for a peer that is trusted, as are 10.0.0.0/8.
fn trusting() -> Plan {
    let base = std::net::Ipv4Addr::new(10, 0, 0, 0).to_ipv6_mapped().to_bits();
    let trusted = Trusted::new(vec![Network::Addresses { base, bits: 96 + 8 }]);
    Plan { trusted, from_trusted: true, ..PLAIN }
}

fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

#[test]
fn the_app_server_sees_end_to_end_fields_and_what_the_proxy_knows() {
    let sent = planned(
        "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close, X-Hop, X-Fine\r\n\
         x-hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX-Forwarded-For: 1.2.3.4\r\n\
         X-Request-Id: abc\r\nTE: trailers, deflate\r\nForwarded: for=9\r\nProxy: evil\r\n\
         X-Forwarded-Ssl: on\r\nX_Real_IP: 9\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        sent,
        "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nTE: trailers\r\nConnection: TE\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: x\r\nX-Forwarded-Port: 8080\r\nX-Request-Start: t=0\r\n\
         X-Request-Id: abc\r\n\r\n"
    );
}

#[test]
fn a_request_without_one_good_host_is_refused() {
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\n\r\n",
    ] {
        assert!(planned(bad).is_err(), "{bad}");
    }
    assert!(planned("GET / HTTP/1.0\r\n\r\n").unwrap().contains("Host: app:1\r\n"));
    let absolute = planned("GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(absolute.starts_with("GET /p HTTP/1.1\r\nHost: b\r\n"));
    let bare = planned("GET http://b?q HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
    assert!(bare.starts_with("GET /?q HTTP/1.1\r\n"));
}

#[test]
fn connect_is_no_method_of_a_gateway() {
    for raw in ["CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT / HTTP/1.1\r\n\r\n"] {
        assert!(matches!(planned(raw), Err(Failure::Method)), "{raw}");
    }
}

#[test]
fn ids_are_kept_if_they_are_plain_and_made_if_not() {
    let id_of = |sent: &str| {
        let head = planned(&format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n"));
        values(&head.unwrap(), "X-Request-Id")[0].to_owned()
    };
    assert_eq!(id_of("X-Request-Id: a.B-9_\r\n"), "a.B-9_");
    let long = "x".repeat(129);
    for odd in ["", "a b", "a;b", "a\r\nX-Request-Id: b", &long] {
        let made = id_of(&format!("X-Request-Id: {odd}\r\n"));
        assert!(made.len() == 32 && made.bytes().all(|o| o.is_ascii_hexdigit()), "{odd}: {made}");
    }
}

#[test]
fn the_proxy_names_itself_after_those_before_it() {
    let via = Plan { forwarding: Forwarding { via: true, ..PLAIN.forwarding }, ..PLAIN };
    let head = via.head("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 b, 1.1 c\r\nVia: 2 d\r\n\r\n");
    assert_eq!(values(&head, "Via"), ["1.0 b, 1.1 c", "2 d", "1.1 ebbtide"]);
    let head = via.head("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(values(&head, "Via"), ["1.0 ebbtide"]);
}

#[test]
fn max_forwards_is_counted_where_it_counts() {
    let with = |method: &str, value: &str| {
        let raw = format!("{method} /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
        PLAIN.run(&raw).map(|request| {
            let head = String::from_utf8(request.head).unwrap();
            (values(&head, "Max-Forwards").concat(), request.ends_here)
        })
    };
    assert_eq!(with("OPTIONS", "5").unwrap(), ("4".into(), false));
    assert_eq!(with("TRACE", "1").unwrap(), ("0".into(), false));
    assert!(with("TRACE", "0").unwrap().1 && with("OPTIONS", "000").unwrap().1);
    let (most, less) = ("99999999999999999999", (u64::MAX - 1).to_string());
    assert_eq!(with("OPTIONS", most).unwrap(), (less, false));
    assert_eq!(with("GET", "0").unwrap(), ("0".into(), false));
    assert_eq!(with("PROPFIND", "x").unwrap(), ("x".into(), false));
    for bad in ["", "-1", "+1", "1, 1", "x", "1\r\nMax-Forwards: 1"] {
        assert!(with("OPTIONS", bad).is_err(), "{bad}");
    }
}

#[test]
fn a_name_with_an_underscore_never_becomes_one_of_ours() {
    let raw = "GET / HTTP/1.1\r\nHost: a\r\nmy_key: 1\r\nX_Forwarded-For: 2\r\n\
               content_length: 3\r\n\r\n";
    let under =
        |underscores| Plan { forwarding: Forwarding { underscores, ..PLAIN.forwarding }, ..PLAIN };
    assert!(!under(Underscores::Drop).head(raw).contains("my_key"));
    let passed = under(Underscores::Pass).head(raw);
    assert!(passed.contains("my_key: 1\r\n"));
    assert!(!passed.contains("X_Forwarded-For") && !passed.contains("content_length"), "{passed}");
    assert!(under(Underscores::Refuse).run(raw).is_err());
}

#[test]
fn a_trusted_peer_speaks_for_its_client() {
    let request = trusting()
        .run(
            "GET / HTTP/1.1\r\nHost: inner:1\r\nX-Forwarded-For: 6.6.6.6, 198.51.100.9\r\n\
             X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n\
             X-Forwarded-Ssl: on\r\nX-Request-Start: t=1.5\r\nForwarded: for=x\r\n\
             X-Real-IP: 6.6.6.6\r\n\r\n",
        )
        .unwrap();
    assert_eq!(request.client(), Some(&b"198.51.100.9"[..]));
    let head = String::from_utf8(request.head).unwrap();
    for (name, expected) in [
        ("X-Forwarded-For", &["6.6.6.6, 198.51.100.9, 10.1.1.1, 192.0.2.7"][..]),
        ("X-Real-IP", &["198.51.100.9"]),
        ("X-Forwarded-Proto", &["https"]),
        ("X-Forwarded-Host", &["shop"]),
        ("X-Forwarded-Port", &[]),
        ("X-Forwarded-Ssl", &["on"]),
        ("X-Request-Start", &["t=1.5"]),
        ("Forwarded", &[]),
    ] {
        assert_eq!(values(&head, name), expected, "{name}");
    }
}

#[test]
fn what_a_trusted_peer_says_badly_is_what_we_know() {
    let head = trusting().head(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: ftp\r\nX-Forwarded-Host: a b\r\n\
         X-Forwarded-Port: 65536\r\nX-Request-Start: t=..\r\n\r\n",
    );
    for (name, expected) in [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Real-IP", "192.0.2.7"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a"),
        ("X-Forwarded-Port", "8080"),
        ("X-Request-Start", "t=0"),
    ] {
        assert_eq!(values(&head, name), [expected], "{name}");
    }
}

#[test]
fn the_client_is_the_last_address_that_nobody_trusts() {
    for (told, client) in [
        ("10.0.0.1", "10.0.0.1"),
        ("1.1.1.1, , 10.0.0.1, ", "1.1.1.1"),
        ("1.1.1.1, 10.0.0.1, 10.0.0.2", "1.1.1.1"),
        ("1.1.1.1, rubbish, 10.0.0.2", "10.0.0.2"),
        ("rubbish", "192.0.2.7"),
        ("1.1.1.1:99", "1.1.1.1"),
        ("[2001:db8::1]:99, 10.0.0.1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:1.1.1.1", "1.1.1.1"),
    ] {
        let head = trusting()
            .head(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {told}\r\n\r\n"));
        assert_eq!(values(&head, "X-Real-IP"), [client], "{told}");
    }
}

#[test]
fn forwarded_is_written_where_it_is_wanted() {
    let forwarding = Forwarding { forwarded: true, ..PLAIN.forwarding };
    let raw = "GET / HTTP/1.1\r\nHost: a:1\r\nForwarded: for=1.1.1.1\r\n\r\n";
    let ours = "for=192.0.2.7;host=\"a:1\";proto=http";
    assert_eq!(values(&Plan { forwarding, ..PLAIN }.head(raw), "Forwarded"), [ours]);
    let trusted = Plan { forwarding, ..trusting() };
    assert_eq!(values(&trusted.head(raw), "Forwarded"), ["for=1.1.1.1", ours]);
}
