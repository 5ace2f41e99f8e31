//! An app server that speaks HTTP/2: messages pass in both directions as they do with
//! one that speaks HTTP/1, for clients of both protocols.

mod away;
mod flow;
mod foreign;
mod strain;

use crate::support::client::{Framing, chunked_head, get, post_head};
use crate::support::h2::frame::setting;
use crate::support::h2::origin::{H2Origin, Peer};
use crate::support::h2::{Code, Frame, H2};
use crate::support::process::{Launch, Proxy};
use crate::support::{pattern, within};

/// A proxy with one worker, whose connections are therefore shared by all.
fn launch(origin: &H2Origin) -> Launch {
    Launch::before_addr(&origin.endpoint()).arg("--workers").arg("1")
}

fn pair() -> (H2Origin, Proxy) {
    let origin = H2Origin::new();
    let proxy = launch(&origin).start();
    (origin, proxy)
}

/// A pair with a connection between them that has served once.
fn warm() -> (H2Origin, Proxy, Peer) {
    let (origin, proxy) = pair();
    let peer = warmed(&origin, &proxy);
    (origin, proxy, peer)
}

fn warmed(origin: &H2Origin, proxy: &Proxy) -> Peer {
    let mut client = proxy.client();
    client.get("/warm");
    let mut peer = origin.accept();
    let stream = peer.request();
    peer.answer(stream, "warm");
    assert_eq!(client.response().text(), "warm");
    peer
}

#[test]
fn a_get_is_a_stream_with_the_fields_of_http2() {
    let (origin, proxy) = pair();
    let mut client = proxy.client();
    client.send(
        "GET /a?b=c HTTP/1.1\r\nHost: app.test:81\r\nX-Mixed: One\r\nCookie: a=b\r\nTE: trailers\r\n\
         Connection: keep-alive, TE, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nAuthorization: s\r\n\r\n",
    );
    let mut peer = origin.accept();
    let (stream, seen) = peer.whole_request();
    assert_eq!(peer.settings.get(&setting::ENABLE_PUSH), Some(&0));
    let has = |name: &str| seen.field(name).map(str::to_owned);
    for (name, value) in [
        (":method", "GET"),
        (":path", "/a?b=c"),
        (":scheme", "http"),
        (":authority", "app.test:81"),
        ("x-mixed", "One"),
        ("cookie", "a=b"),
        ("authorization", "s"),
        ("te", "trailers"),
        ("x-forwarded-proto", "http"),
        ("via", "1.1 ebbtide"),
    ] {
        assert_eq!(has(name).as_deref(), Some(value), "{name} in {:?}", seen.fields);
    }
    for name in ["host", "connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert_eq!(has(name), None, "{name} in {:?}", seen.fields);
    }
    let fields = [(":status", "200"), ("content-length", "2"), ("x-one", "1"), ("x-one", "2")];
    peer.headers(stream, &fields, false);
    peer.data(stream, b"hi", true);
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "hi"));
    assert_eq!(response.framing, Framing::Length);
    assert_eq!(response.head.all("x-one"), ["1", "2"]);
    assert_eq!(response.field("via"), Some("2.0 ebbtide"));
}

#[test]
fn bodies_go_up_whatever_their_framing_and_trailers_behind_them() {
    let (origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.post("/length", b"hello");
    let (stream, seen) = peer.whole_request();
    assert_eq!((seen.field(":method"), seen.field("content-length")), (Some("POST"), Some("5")));
    assert_eq!(seen.body, b"hello");
    peer.answer(stream, "");
    assert_eq!(client.response().field("content-length"), Some("0"));

    client.send(chunked_head("/chunks")).send("3\r\nabc\r\n");
    let stream = peer.request();
    client.send("2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 7\r\n\r\n");
    let seen = peer.whole(stream);
    assert_eq!((seen.body.as_slice(), seen.field("content-length")), (&b"abcde"[..], None));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "5".to_owned())]);
    peer.answer(stream, "");
    assert_eq!(client.response().status, 200);

    let mut h2 = H2::connect(&proxy.place());
    let above = h2.post_head("/h2");
    h2.data(above, b"part", false);
    h2.send_fields(above, &[("x-sum", "4")], true);
    let (stream, seen) = peer.whole_request();
    assert_eq!((seen.body.as_slice(), seen.field("content-length")), (&b"part"[..], None));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "4".to_owned())]);
    peer.answer(stream, "done");
    assert_eq!(h2.response(above).text(), "done");
    assert!(origin.accept_now().is_none(), "all over one connection");
}

#[test]
fn responses_without_length_are_chunks_with_their_trailers() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    let mut h2 = H2::connect(&proxy.place());
    client.get("/h1");
    let one = peer.request();
    let above = h2.get("/h2");
    let two = peer.request();
    for stream in [one, two] {
        peer.headers(stream, &[(":status", "203"), ("trailer", "x-sum")], false);
        peer.data(stream, b"first, ", false);
        peer.data(stream, b"second", false);
        peer.headers(stream, &[("x-sum", "13")], true);
    }
    let trailers = [("x-sum".to_owned(), "13".to_owned())];
    let response = client.response();
    assert_eq!((response.status, response.framing), (203, Framing::Chunked));
    assert_eq!(
        (response.text().as_str(), &response.trailers[..]),
        ("first, second", &trailers[..])
    );
    let response = h2.response(above);
    assert_eq!(
        (response.text().as_str(), &response.trailers[..]),
        ("first, second", &trailers[..])
    );
}

#[test]
fn grpc_keeps_its_trailers_whatever_length_it_says_it_has() {
    let (_origin, proxy, mut peer) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let kind = ("content-type", "application/grpc+proto");
    let above = h2.get("/status");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200"), kind, ("content-length", "3")], false);
    peer.data(stream, b"abc", false);
    peer.headers(stream, &[("grpc-status", "0")], true);
    let response = h2.response(above);
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);

    let above = h2.get("/only");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200"), kind, ("grpc-status", "12")], true);
    let response = h2.response(above);
    assert_eq!((response.field("grpc-status"), response.body.len()), (Some("12"), 0));
    assert_eq!((response.field("content-length"), &response.trailers[..]), (None, &[][..]));
}

#[test]
fn what_a_call_says_behind_its_messages_may_be_long() {
    let (_origin, proxy, mut peer) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let detail = "a".repeat(15_000);
    let long = vec![("grpc-status".to_owned(), "3".to_owned()), ("x-a".to_owned(), detail.clone())];
    let many = (0..99).map(|n| (format!("x-{n}"), "b".repeat(100)));
    let many = many.chain([("grpc-status".to_owned(), "3".to_owned())]).collect();
    for trailers in [long, many] {
        let above = h2.post("/call", b"x");
        let stream = peer.request();
        peer.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
        peer.data(stream, b"message", false);
        let fields: Vec<_> = trailers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        peer.headers(stream, &fields, true);
        let response = h2.response(above);
        assert!(response.whole && response.trailers == trailers, "{:?}", response.trailers.len());
    }
}

#[test]
fn trailers_of_a_request_that_are_too_long_are_refused_at_once() {
    let (_origin, proxy, mut peer) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let long = vec![("x-long".to_owned(), "a".repeat(9000))];
    let many = (0..101).map(|n| (format!("x-{n}"), "b".to_owned())).collect();
    for trailers in [long, many] {
        let above = h2.post_head("/upload");
        h2.data(above, b"part", false);
        let stream = peer.request();
        h2.send_fields(above, &trailers, true);
        assert_eq!(h2.response(above).status, 400);
        assert_eq!(peer.reset(stream), Code::CANCEL);
    }
}

#[test]
fn responses_without_a_body_end_where_they_have_to() {
    let (origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    for (status, end) in [("204", true), ("204", false), ("304", true), ("200", false)] {
        let method = if status == "200" { "HEAD" } else { "GET" };
        client.send(get("/none").replace("GET", method));
        let stream = peer.request();
        let length = if status == "204" { ("x-nothing", "") } else { ("content-length", "77") };
        peer.headers(stream, &[(":status", status), length], end);
        if !end {
            client.hears_nothing_for(crate::support::ms(20));
            peer.data(stream, b"", true);
        }
        let response = client.response_to_head();
        assert_eq!(response.status.to_string(), status);
        let told = response.field("content-length");
        assert_eq!(told, (status != "204").then_some("77"), "{status}");
        peer.fence();
        assert_eq!(peer.seen[&stream].reset, None, "nothing was left to be given up");
    }
    client.get("/empty");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200"), ("content-length", "0")], false);
    peer.data(stream, b"", true);
    assert_eq!(client.response().field("content-length"), Some("0"));
    peer.fence();
    assert_eq!(peer.seen[&stream].reset, None);
    assert!(origin.accept_now().is_none());
}

#[test]
fn the_end_of_a_stream_may_come_behind_the_last_octet() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    for last in [1, 5] {
        client.get("/late");
        let stream = peer.request();
        peer.headers(stream, &[(":status", "200"), ("content-length", "10")], false);
        peer.data(stream, &b"0123456789"[..10 - last], false);
        peer.data(stream, &b"0123456789"[10 - last..], false);
        client.head();
        assert_eq!(client.octets(9), b"012345678");
        peer.data(stream, b"", true);
        assert_eq!(client.octets(1), b"9");
        peer.fence();
        assert_eq!(peer.seen[&stream].reset, None, "it was whole");
    }
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.send(post_head("/upload", 4).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
    let stream = peer.request();
    assert_eq!(peer.seen[&stream].field("expect"), Some("100-continue"));
    peer.headers(stream, &[(":status", "103"), ("link", "</a>; rel=preload")], false);
    peer.headers(stream, &[(":status", "100")], false);
    assert!(client.head().start.starts_with("HTTP/1.1 103 "));
    assert!(client.head().start.starts_with("HTTP/1.1 100 "));
    client.send("body");
    assert_eq!(peer.whole(stream).body, b"body");
    peer.answer(stream, "thanks");
    assert_eq!(client.response().text(), "thanks");

    let mut h2 = H2::connect(&proxy.place());
    let above = h2.get("/hints");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "103"), ("link", "</b>; rel=preload")], false);
    peer.answer(stream, "page");
    let response = h2.response(above);
    assert_eq!((response.interims.len(), response.text().as_str()), (1, "page"));
}

#[test]
fn an_upgrade_is_an_ordinary_request() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.send(get("/chat").replace(
        "\r\n\r\n",
        "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ));
    let (stream, seen) = peer.whole_request();
    assert_eq!((seen.field("upgrade"), seen.field("connection")), (None, None));
    peer.headers(stream, &[(":status", "426")], true);
    assert_eq!(client.response().status, 426);
    client.get("/next");
    let stream = peer.request();
    peer.answer(stream, "still here");
    assert_eq!(client.response().text(), "still here");
}

#[test]
fn what_is_no_response_is_a_bad_gateway_and_no_more() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    let chunked = ("transfer-encoding", "chunked");
    let bad: [&[(&str, &str)]; 4] = [
        &[(":status", "200"), chunked],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("content-length", "5"), ("content-length", "6")],
        &[(":status", "101")],
    ];
    for fields in bad {
        client.get("/bad");
        let stream = peer.request();
        peer.headers(stream, fields, false);
        let response = client.response();
        assert_eq!(response.status, 502, "{fields:?}");
        let told = response.field("proxy-status").unwrap();
        assert!(told.contains("http_protocol_error"), "{fields:?}: {told}");
        peer.reset(stream);
    }
    client.get("/good");
    let stream = peer.request();
    peer.answer(stream, "good");
    assert_eq!(client.response().text(), "good", "the connection lives on");
}

#[test]
fn a_body_that_is_not_what_was_said_never_ends_well() {
    let (_origin, proxy, mut peer) = warm();
    for (said, sent) in [("5", 6), ("5", 4), ("5", 0)] {
        let mut client = proxy.client();
        client.get("/lie");
        let stream = peer.request();
        peer.headers(stream, &[(":status", "200"), ("content-length", said)], false);
        peer.data(stream, &b"0123456789"[..sent], true);
        match client.try_response() {
            Ok(response) => assert_eq!(response.status, 502, "{said} {sent}"),
            Err(broken) => assert!(broken.got.len() < 5, "{said} {sent}: {broken:?}"),
        }
    }
}

#[test]
fn a_host_that_is_no_authority_and_a_target_that_is_none() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a%41b\r\n\r\n");
    let (stream, seen) = peer.whole_request();
    assert_eq!((seen.field("host"), seen.field(":authority")), (Some("a%41b"), None));
    peer.answer(stream, "ok");
    assert_eq!(client.response().text(), "ok");
    client.send("GET /<x> HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 400, "{}", response.text());
    let mut client = proxy.client();
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let (stream, seen) = peer.whole_request();
    assert_eq!(seen.field(":path"), Some("*"));
    peer.answer(stream, "ok");
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn a_long_head_passes_and_one_that_is_too_long_does_not() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    let long = "x".repeat(15_000);
    client.get("/long");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200"), ("x-long", &long)], true);
    assert_eq!(client.response().field("x-long"), Some(long.as_str()));
    client.get("/longer");
    let stream = peer.request();
    for n in 0..6 {
        let block = crate::support::h2::hpack::plain(&[(format!("x-{n}"), long.clone())]);
        let first = crate::support::h2::hpack::plain(&[(":status", "200")]);
        peer.send(&match n {
            0 => Frame::headers_begun(stream, [first, block].concat()),
            5 => Frame::continuation(stream, block),
            _ => Frame::continuation_begun(stream, block),
        });
    }
    let response = client.response();
    assert_eq!(response.status, 502, "{:?}", response.head);
}

#[test]
fn fifty_requests_at_once_share_one_connection() {
    let (origin, proxy, mut peer) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let above: Vec<u32> = (0..50).map(|n| h2.post(&format!("/{n}"), &pattern(1000 + n))).collect();
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(peer.request());
    }
    for stream in streams.into_iter().rev() {
        let seen = peer.whole(stream);
        let n: usize = seen.field(":path").unwrap()[1..].parse().unwrap();
        assert_eq!(seen.body, pattern(1000 + n));
        peer.answer(stream, &format!("answer {n}"));
    }
    for (n, stream) in above.into_iter().enumerate() {
        assert_eq!(h2.response(stream).text(), format!("answer {n}"));
    }
    assert!(origin.accept_now().is_none());
}

#[test]
fn one_more_than_there_is_room_for_opens_a_connection() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).set("upstream.h2_streams", "2").start();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.get("/x");
    }
    let mut peers = [origin.accept(), origin.accept()];
    for peer in &mut peers {
        let streams = [peer.request(), peer.request()];
        streams.iter().for_each(|stream| peer.answer(*stream, "x"));
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "x"));

    let origin = H2Origin::new();
    let proxy = launch(&origin).start();
    let mut clients: Vec<_> = (0..2).map(|_| proxy.client()).collect();
    clients[0].get("/first");
    let mut first = origin.accept_with(&[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    let stream = first.request();
    clients[1].get("/second");
    let mut second = origin.accept();
    let other = second.request();
    second.answer(other, "second");
    first.answer(stream, "first");
    assert_eq!(clients[0].response().text(), "first");
    assert_eq!(clients[1].response().text(), "second");
}

#[test]
fn whoever_gives_up_gives_up_his_stream_alone() {
    let (origin, proxy, mut peer) = warm();
    let mut stays = proxy.client();
    stays.get("/stays");
    let kept = peer.request();
    let mut h2 = H2::connect(&proxy.place());
    let above = h2.get("/cancelled");
    let stream = peer.request();
    h2.send(&Frame::rst_stream(above, Code::CANCEL));
    assert_eq!(peer.reset(stream), Code::CANCEL);
    let mut goes = proxy.client();
    goes.get("/gone");
    let stream = peer.request();
    goes.reset();
    assert_eq!(peer.reset(stream), Code::CANCEL);
    peer.answer(kept, "stayed");
    assert_eq!(stays.response().text(), "stayed");
    assert!(origin.accept_now().is_none());
}

#[test]
fn a_unix_socket_will_do_and_the_log_names_the_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let origin = H2Origin::unix(&dir.path().join("app"));
    let proxy = launch(&origin).start();
    warmed(&origin, &proxy);
    let line = within(crate::support::PATIENCE, "a line", || proxy.access_log().pop());
    assert_eq!(line["upstream"], origin.endpoint());
}
