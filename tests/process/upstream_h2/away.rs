//! An app server on HTTP/2 that goes away, refuses, or says nothing any more.

use crate::support::client::{Client, chunked_head};
use crate::support::h2::origin::{H2Origin, Peer};
use crate::support::h2::{Code, Frame, H2};
use crate::support::process::Proxy;
use crate::support::{ms, pattern};

use super::{launch, warm, warmed};

#[track_caller]
fn is_answered(peer: &mut Peer, client: &mut Client, text: &str) {
    let stream = peer.request();
    peer.whole(stream);
    peer.answer(stream, text);
    assert_eq!(client.response().text(), text);
}

#[test]
fn after_a_goaway_what_is_in_flight_ends_and_what_is_new_goes_elsewhere() {
    let (origin, proxy, mut first) = warm();
    let mut old = proxy.client();
    old.get("/old");
    let stream = first.request();
    first.send(&Frame::goaway(stream, Code::NO_ERROR, b""));
    first.fence();
    let mut new = proxy.client();
    new.get("/new");
    let mut second = origin.accept();
    is_answered(&mut second, &mut new, "new");
    first.answer(stream, "old");
    assert_eq!(old.response().text(), "old");
    first.wait_end();
}

#[test]
fn streams_above_the_last_of_a_goaway_are_sent_again_whatever_their_method() {
    let (origin, proxy, mut first) = warm();
    let mut kept = proxy.client();
    kept.get("/kept");
    let stream = first.request();
    let mut get = proxy.client();
    get.get("/get");
    first.request();
    let mut post = proxy.client();
    post.post("/post", b"the whole of it");
    first.whole_request();
    let mut chunks = proxy.client();
    chunks.send(chunked_head("/chunks")).send("5\r\nfirst\r\n");
    let third = first.request();
    first.wait("a piece", |peer| (peer.seen[&third].body == b"first").then_some(()));
    first.send(&Frame::goaway(stream, Code::NO_ERROR, b""));
    let mut second = origin.accept();
    chunks.send("6\r\nsecond\r\n0\r\nX-Sum: 2\r\n\r\n");
    for _ in 0..3 {
        let (again, seen) = second.whole_request();
        match seen.field(":path").unwrap() {
            "/get" => assert!(seen.body.is_empty()),
            "/post" => assert_eq!(seen.body, b"the whole of it"),
            "/chunks" => {
                assert_eq!(seen.body, b"firstsecond");
                assert_eq!(seen.trailers, [("x-sum".to_owned(), "2".to_owned())]);
            }
            other => panic!("{other}"),
        }
        second.answer(again, "again");
    }
    for client in [&mut get, &mut post, &mut chunks] {
        assert_eq!(client.response().text(), "again");
    }
    first.answer(stream, "kept");
    assert_eq!(kept.response().text(), "kept");
    assert!(origin.accept_now().is_none(), "one connection for all of them");
}

#[test]
fn a_stream_that_is_refused_is_sent_again_over_http2_too() {
    let (origin, proxy, mut first) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let above = h2.post("/order", &pattern(20_000));
    let (stream, _) = first.whole_request();
    first.send(&Frame::rst_stream(stream, Code::REFUSED_STREAM));
    let (stream, seen) = first.whole_request();
    assert_eq!(seen.body, pattern(20_000));
    first.answer(stream, "ordered");
    assert_eq!(h2.response(above).text(), "ordered");
    assert!(origin.accept_now().is_none(), "a refusal says nothing against a connection");
}

#[test]
fn what_is_refused_by_one_goes_to_the_next() {
    let (busy, free) = (H2Origin::new(), H2Origin::new());
    let proxy = launch(&busy).arg("--upstream").arg(free.endpoint()).start();
    let mut client = proxy.client();
    client.post("/order", b"body");
    let mut first = busy.accept();
    let (stream, _) = first.whole_request();
    first.send(&Frame::rst_stream(stream, Code::REFUSED_STREAM));
    let mut second = free.accept();
    let (stream, seen) = second.whole_request();
    assert_eq!(seen.body, b"body");
    second.answer(stream, "ordered");
    assert_eq!(client.response().text(), "ordered");
}

#[test]
fn what_is_refused_again_and_again_is_passed_on_as_refused() {
    let (origin, proxy, mut first) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let mut client = proxy.client();
    let above = h2.post("/h2", b"x");
    let refuse = |peer: &mut Peer| {
        let stream = peer.request();
        peer.send(&Frame::rst_stream(stream, Code::REFUSED_STREAM));
    };
    (0..3).for_each(|_| refuse(&mut first));
    assert_eq!(h2.response(above).reset, Some(Code::REFUSED_STREAM));
    let event = proxy.wait_event("request_failed");
    assert_eq!(event.text("cause"), "the app server refused the stream");

    client.post("/h1", b"x");
    (0..3).for_each(|_| refuse(&mut first));
    let response = client.response();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    assert!(origin.accept_now().is_none(), "a refusal opens no connection");
}

#[test]
fn what_is_too_long_to_be_kept_is_not_sent_again() {
    let (origin, proxy, mut first) = warm();
    let mut client = proxy.client();
    client.post("/long", &pattern(40_000));
    let stream = first.request();
    first.wait("the body", |peer| (peer.seen[&stream].body.len() == 40_000).then_some(()));
    first.send(&Frame::rst_stream(stream, Code::REFUSED_STREAM));
    assert_eq!(client.response().status, 503);
    assert!(origin.accept_now().is_none());
}

#[test]
fn nothing_is_sent_again_when_retry_is_off() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).set("upstream.retry", "never").start();
    let mut first = warmed(&origin, &proxy);
    let mut client = proxy.client();
    client.get("/once");
    let stream = first.request();
    first.send(&Frame::rst_stream(stream, Code::REFUSED_STREAM));
    assert_eq!(client.response().status, 503);
    assert!(origin.accept_now().is_none());
}

#[test]
fn what_is_refused_by_one_goes_to_another_if_the_first_is_gone() {
    let (gone, other) = (H2Origin::new(), H2Origin::new());
    let proxy = launch(&gone).arg("--upstream").arg(other.endpoint()).start();
    let mut client = proxy.client();
    client.post("/moves", b"body");
    let mut first = gone.accept();
    first.whole_request();
    drop(gone);
    first.send(&Frame::goaway(0, Code::NO_ERROR, b""));
    drop(first);
    let mut second = other.accept();
    let (stream, seen) = second.whole_request();
    assert_eq!(seen.body, b"body");
    second.answer(stream, "moved");
    assert_eq!(client.response().text(), "moved");
}

#[test]
fn a_connection_that_is_lost_costs_only_what_may_have_been_executed() {
    let (origin, proxy, mut first) = warm();
    let (mut get, mut post) = (proxy.client(), proxy.client());
    get.get("/get");
    first.request();
    post.post("/post", b"x");
    first.whole_request();
    first.abort();
    let mut second = origin.accept();
    is_answered(&mut second, &mut get, "again");
    let response = post.response();
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(response.field("retry-after").is_none());
}

#[test]
fn a_first_request_that_is_lost_is_not_sent_again() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).start();
    let mut client = proxy.client();
    client.get("/get");
    let mut first = origin.accept();
    first.request();
    first.abort();
    assert_eq!(client.response().status, 502);
    assert!(origin.accept_now().is_none());
}

#[test]
fn a_reset_is_an_answer_and_is_not_sent_again() {
    let (origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.get("/reset");
    let stream = peer.request();
    peer.send(&Frame::rst_stream(stream, Code::INTERNAL_ERROR));
    let response = client.response();
    assert_eq!(response.status, 502);
    let event = proxy.wait_event("request_failed");
    assert_eq!(event.text("cause"), "the app server reset the stream: INTERNAL_ERROR");
    client.get("/next");
    is_answered(&mut peer, &mut client, "next");
    assert!(origin.accept_now().is_none());
}

/// Whatever happens in the middle of a response, it is never taken for its end.
#[test]
fn a_response_that_breaks_off_never_ends_well() {
    let breaks: [fn(&mut Peer, u32); 4] = [
        |peer, stream| peer.send(&Frame::rst_stream(stream, Code::INTERNAL_ERROR)),
        |peer, stream| peer.send(&Frame::rst_stream(stream, Code::NO_ERROR)),
        |peer, _| peer.send(&Frame::new(9, 4, 77, [])),
        |peer, _| peer.send(&Frame::goaway(0, Code::INTERNAL_ERROR, b"")),
    ];
    for (nth, broken) in breaks.into_iter().enumerate() {
        let (_origin, proxy, mut peer) = warm();
        let mut client = proxy.client();
        let mut h2 = H2::connect(&proxy.place());
        client.get("/h1");
        let one = peer.request();
        let above = h2.get("/h2");
        let two = peer.request();
        for stream in [one, two] {
            peer.headers(stream, &[(":status", "200")], false);
            peer.data(stream, b"half", false);
        }
        client.head();
        h2.response_head(above);
        broken(&mut peer, one);
        broken(&mut peer, two);
        let (_, rest) = client.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{nth}: {rest:?}");
        let response = h2.response(above);
        assert_eq!((response.whole, response.reset), (false, Some(Code::INTERNAL_ERROR)), "{nth}");
    }
}

/// A call's client makes a status of that.
#[test]
fn why_a_response_breaks_off_is_passed_on_where_it_may_be() {
    let (_origin, proxy, mut peer) = warm();
    let mut h2 = H2::connect(&proxy.place());
    for (said, heard) in [
        (Code::CANCEL, Code::CANCEL),
        (Code::ENHANCE_YOUR_CALM, Code::ENHANCE_YOUR_CALM),
        (Code::INTERNAL_ERROR, Code::INTERNAL_ERROR),
        (Code::NO_ERROR, Code::INTERNAL_ERROR),
        (Code::REFUSED_STREAM, Code::INTERNAL_ERROR),
        (Code::PROTOCOL_ERROR, Code::INTERNAL_ERROR),
    ] {
        let above = h2.get("/half");
        let stream = peer.request();
        peer.headers(stream, &[(":status", "200")], false);
        peer.data(stream, b"half", false);
        h2.response_head(above);
        peer.send(&Frame::rst_stream(stream, said));
        assert_eq!(h2.response(above).reset, Some(heard), "{said:?}");
    }
}

#[test]
fn a_lost_connection_breaks_responses_off_too() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.get("/x");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200")], false);
    peer.data(stream, b"half", false);
    client.head();
    drop(peer);
    let (_, rest) = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}

fn pinging(origin: &H2Origin) -> Proxy {
    launch(origin)
        .set("upstream.h2_ping_interval", "100ms")
        .set("upstream.h2_ping_timeout", "300ms")
        .start()
}

#[test]
fn a_silent_app_server_is_pinged_and_lives_if_it_answers() {
    let origin = H2Origin::new();
    let proxy = pinging(&origin);
    let mut client = proxy.client();
    client.get("/slow");
    let mut peer = origin.accept();
    let stream = peer.request();
    peer.wait("a ping", |peer| (peer.pings == 1).then_some(()));
    // It has answered, and says nothing else: it is not asked again and again.
    let _silence = peer.next_within(ms(500));
    assert_eq!(peer.pings, 1);
    peer.headers(stream, &[(":status", "103")], false);
    peer.wait("another", |peer| (peer.pings == 2).then_some(()));
    peer.answer(stream, "at last");
    assert_eq!(client.response().text(), "at last");
}

#[test]
fn a_dead_app_server_fails_its_streams_long_before_their_timeouts() {
    let origin = H2Origin::new();
    let proxy = pinging(&origin);
    let mut peer = warmed(&origin, &proxy);
    peer.pongs = false;
    let (mut get, mut post) = (proxy.client(), proxy.client());
    post.post("/post", b"x");
    get.get("/get");
    let mut second = origin.accept();
    is_answered(&mut second, &mut get, "elsewhere");
    assert_eq!(post.response().status, 502);
    peer.wait("a ping", |peer| (peer.pings > 0).then_some(()));
}

#[test]
fn an_app_server_that_dies_after_its_ping_is_noticed_by_the_next_request() {
    let origin = H2Origin::new();
    let proxy = pinging(&origin);
    let mut peer = warmed(&origin, &proxy);
    let mut watches = proxy.client();
    watches.post("/silent", b"x");
    peer.whole_request();
    // It is there, and so it is for the next who asks; then it is there no more.
    for pings in 1..3 {
        peer.wait("a ping", |peer| (peer.pings == pings).then_some(()));
        let _silence = peer.next_within(ms(300));
        assert_eq!(peer.pings, pings);
        peer.pongs = pings == 1;
        let mut get = proxy.client();
        get.get("/get");
        peer.request();
        if pings == 2 {
            let mut second = origin.accept();
            is_answered(&mut second, &mut get, "elsewhere");
        }
    }
}

#[test]
fn a_connection_without_streams_says_goodbye_when_its_time_is_over() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).set("upstream.h2_idle_timeout", "200ms").start();
    let mut peer = warmed(&origin, &proxy);
    peer.wait_end();
    assert_eq!((peer.pings, &peer.goaways[..]), (0, &[Code::NO_ERROR][..]));
    warmed(&origin, &proxy);
}

#[test]
fn a_stop_waits_for_streams_and_not_for_connections() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.get("/last");
    let stream = peer.request();
    proxy.terminate();
    proxy.wait_phase("draining");
    crate::support::pause(ms(50));
    peer.answer(stream, "served");
    assert_eq!(client.response().text(), "served");
    proxy.wait_clean_exit();
    peer.wait_end();
    assert_eq!(peer.goaways, [Code::NO_ERROR]);
}

#[test]
fn what_the_deadline_cuts_is_given_up_at_the_app_server_as_well() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).stop("drain_timeout", "300ms").start();
    let mut client = proxy.client();
    client.get("/endless");
    let mut peer = origin.accept();
    let stream = peer.request();
    proxy.terminate();
    assert_eq!(peer.reset(stream), Code::CANCEL);
    assert_eq!(client.response().status, 504);
    assert_eq!(proxy.wait_exit().code(), 3);
}
