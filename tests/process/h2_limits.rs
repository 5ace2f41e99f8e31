//! Every bound on an HTTP/2 client: how much it may ask for, how long it may take,
//! and what becomes of one that only makes work.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::h2::frame::{PREFACE, flag, kind, setting};
use crate::support::h2::{Code, Frame, H2, Response, hpack, link};
use crate::support::origin::{Next, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::End;
use crate::support::{PATIENCE, admin, ms, pattern, pause, within};
use crate::way::{Way, both_ways};

/// The most by which a timer may be late when nothing drains, and a busy machine.
const LATE: Duration = Duration::from_secs(5);

fn launch(origin: &Origin) -> Launch {
    Launch::before(origin).tls().admin()
}

/// With one key set, and a client.
fn limited(key: &str, value: &str) -> (Origin, Proxy, H2) {
    let origin = Origin::new();
    let proxy = launch(&origin).set(key, value).start();
    let h2 = Way::Clear.connect(&proxy);
    (origin, proxy, h2)
}

#[track_caller]
fn is_served(h2: &mut H2, stream: u32, text: &str) {
    let response = h2.response(stream);
    assert_eq!((response.status, response.text().as_str()), (200, text), "{}", h2.story());
}

/// The connection still serves.
#[track_caller]
fn goes_on(h2: &mut H2) {
    let stream = h2.get("/goes/on");
    is_served(h2, stream, "GET /goes/on 0");
}

/// Statuses come with the error's name by RFC 9209 and a short body.
#[track_caller]
fn is_error(response: &Response, status: u16, name: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let told = response.field("proxy-status").expect("Proxy-Status");
    assert!(told.contains(&format!("error={name}")), "{told}");
    assert!(response.whole && (1..500).contains(&response.body.len()), "{response:?}");
}

fn wait_closed(proxy: &Proxy, reason: &str) {
    let name = format!("ebbtide_connections_closed_total{{reason=\"{reason}\"}}");
    within(PATIENCE, &format!("a close by {reason} to be counted"), || {
        (admin::metric(&proxy.admin(), &name) >= 1.0).then_some(())
    });
}

/// Nothing is under way any more.
fn wait_rest(proxy: &Proxy) {
    let name = "ebbtide_requests_in_flight{protocol=\"h2\"}";
    within(PATIENCE, "no request to be in flight", || {
        (admin::metric(&proxy.admin(), name) == 0.0).then_some(())
    });
}

both_ways! {
    half_a_preface_is_given_its_time_and_no_more
    an_idle_connection_is_told_twice_and_ended_by_a_fin
    a_silent_client_with_streams_is_asked_and_left_when_it_does_not_answer
    a_client_that_answers_pings_stays
    a_client_that_stops_reading_is_left_and_its_requests_cancelled
    a_client_that_reads_slowly_gets_more_time_with_every_octet
}

#[test]
fn more_streams_than_were_announced_are_refused() {
    let (origin, proxy, mut h2) = limited("limits.streams", "3");
    assert_eq!(h2.peer(setting::MAX_CONCURRENT_STREAMS), Some(3));
    let held: Vec<u32> = (0..3).map(|n| h2.get(&format!("/hold/{n}"))).collect();
    for n in 0..2 {
        let refused = h2.get(&format!("/refused/{n}"));
        h2.expect_reset(refused, &[Code::REFUSED_STREAM]);
    }
    for n in 0..3 {
        origin.wait_started(&format!("/hold/{n}"));
    }
    origin.release_all();
    for stream in held {
        is_served(&mut h2, stream, "held");
    }
    let again: Vec<u32> = (0..3).map(|n| h2.get(&format!("/again/{n}"))).collect();
    for (n, stream) in again.into_iter().enumerate() {
        is_served(&mut h2, stream, &format!("GET /again/{n} 0"));
    }
    assert!(!origin.requests().iter().any(|request| request.target.starts_with("/refused")));
    wait_rest(&proxy);
}

#[test]
fn a_head_that_is_too_long_is_refused_alone() {
    let (origin, _proxy, mut h2) = limited("limits.head_size", "4k");
    assert_eq!(h2.peer(setting::MAX_HEADER_LIST_SIZE), Some(4096));
    let held = h2.get("/hold/beside");
    for len in [4_100, 12_000] {
        let mut fields = h2.pseudo("GET", "/long");
        fields.push(("x-long".to_owned(), "x".repeat(len)));
        let stream = h2.headers(&fields, true);
        let response = h2.response(stream);
        assert!(response.status == 431 || response.reset.is_some(), "{len}: {response:?}");
    }
    assert!(origin.requests_for("/long").is_empty());
    let mut fields = h2.pseudo("GET", "/fits");
    fields.push(("x-long".to_owned(), "x".repeat(3_500)));
    let stream = h2.headers(&fields, true);
    is_served(&mut h2, stream, "GET /fits 0");
    origin.wait_started("/hold/beside");
    origin.release_all();
    is_served(&mut h2, held, "held");
}

#[test]
fn a_head_that_is_many_times_too_long_ends_its_connection() {
    let (origin, proxy, mut h2) = limited("limits.head_size", "4k");
    let mut honest = Way::Clear.connect(&proxy);
    h2.get("/hold/beside");
    let connection = origin.wait_started("/hold/beside").connection;
    let mut fields = h2.pseudo("GET", "/long");
    fields.push(("x-long".to_owned(), "x".repeat(100_000)));
    h2.headers(&fields, true);
    h2.expect_connection_error(&[Code::ENHANCE_YOUR_CALM, Code::COMPRESSION_ERROR]);
    origin.wait_connection_end(connection);
    goes_on(&mut honest);
    wait_rest(&proxy);
}

#[test]
fn a_head_with_too_many_fields_is_refused_alone() {
    let (origin, proxy, mut h2) = limited("limits.head_count", "10");
    for (count, status) in [(10, 200), (11, 431), (200, 431), (400, 431), (10, 200)] {
        let mut fields = h2.pseudo("GET", "/many");
        fields.extend((0..count).map(|n| (format!("x-{n}"), "v".to_owned())));
        let stream = h2.headers(&fields, true);
        let response = h2.response(stream);
        assert_eq!(response.status, status, "{count}: {response:?}");
        assert!(response.whole);
    }
    assert_eq!(origin.requests_for("/many").len(), 2);
    let line = proxy.wait_access("of a refusal", |line| line.contains("\"status\":431"));
    assert!(line.contains("HTTP/2.0"), "{line}");
}

#[test]
fn a_body_that_is_too_long_is_refused_whether_it_says_so_or_not() {
    let (origin, proxy, mut h2) = limited("limits.body_size", "1000");
    let held = h2.get("/hold/beside");
    let mut fields = h2.pseudo("POST", "/said");
    fields.push(("content-length".to_owned(), "1001".to_owned()));
    let said = h2.headers(&fields, false);
    is_error(&h2.response(said), 413, "http_request_error");
    h2.expect_reset(said, &[Code::NO_ERROR]);
    assert!(origin.requests_for("/said").is_empty(), "nothing of it was sent on");

    let unsaid = h2.post_head("/unsaid");
    h2.data(unsaid, &pattern(900), false);
    let request = origin.wait_started("/unsaid");
    h2.data(unsaid, &pattern(101), false);
    is_error(&h2.response(unsaid), 413, "http_request_error");
    h2.expect_reset(unsaid, &[Code::NO_ERROR]);
    origin.wait_connection_end(request.connection);
    assert!(!origin.wait_started("/unsaid").whole, "a body that was refused has no end");

    let fits = h2.post("/fits", &pattern(1000));
    is_served(&mut h2, fits, "POST /fits 1000");
    origin.wait_started("/hold/beside");
    origin.release_all();
    is_served(&mut h2, held, "held");
    wait_rest(&proxy);
}

fn half_a_preface_is_given_its_time_and_no_more(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.h2_preface", "400ms").start();
    // Twelve octets are what tells it from HTTP/1.
    let cuts: &[usize] = if way == Way::Tls { &[0, 5, 23] } else { &[12, 18, 23] };
    let clients: Vec<(H2, Instant)> = cuts
        .iter()
        .map(|cut| {
            let mut h2 = way.bare(&proxy);
            let begun = Instant::now();
            h2.octets(&PREFACE[..*cut]);
            (h2, begun)
        })
        .collect();
    let mut honest = way.connect(&proxy);
    for (mut h2, begun) in clients {
        let (_, end) = h2.rest();
        assert_eq!(end, End::Eof);
        let took = begun.elapsed();
        assert!(took >= ms(390) && took < ms(400) + LATE, "{took:?}");
    }
    wait_closed(&proxy, "timeout");
    goes_on(&mut honest);
}

#[test]
fn a_preface_without_settings_is_given_its_time_and_no_more() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.h2_preface", "400ms").start();
    let mut h2 = Way::Clear.bare(&proxy);
    h2.auto.settings = false;
    let begun = Instant::now();
    h2.octets(PREFACE).octets(&Frame::settings(&[]).octets()[..5]);
    assert_eq!(h2.wait_end(), End::Eof);
    let took = begun.elapsed();
    assert!(took >= ms(390) && took < ms(400) + LATE, "{took:?}");
}

fn an_idle_connection_is_told_twice_and_ended_by_a_fin(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.idle", "400ms").stop("goaway_grace", "200ms").start();
    let mut h2 = way.connect(&proxy);
    let held = h2.get("/hold/longer");
    let begun = Instant::now();
    let mut never = way.connect(&proxy);
    origin.wait_started("/hold/longer");
    let first = never.wait_goaway(0);
    assert!(first.at - begun >= ms(390), "never early: {:?}", first.at - begun);
    assert_eq!(never.wait_end(), End::Eof);
    // A connection with a stream is not idle.
    h2.fence();
    assert!(h2.goaways().is_empty());
    origin.release_all();
    is_served(&mut h2, held, "held");
    let first = h2.wait_goaway(0);
    assert_eq!((first.last, first.code), ((1 << 31) - 1, Code::NO_ERROR));
    // One more that was under way.
    goes_on(&mut h2);
    let second = h2.wait_goaway(1);
    assert_eq!((second.last, second.code), (held + 2, Code::NO_ERROR));
    assert!(second.at - first.at >= ms(190), "the grace: {:?}", second.at - first.at);
    assert_eq!(h2.wait_end(), End::Eof);
    wait_closed(&proxy, "idle");
}

#[test]
fn a_connection_that_is_too_old_is_told_twice_and_its_streams_finish() {
    let origin = Origin::new();
    let proxy =
        launch(&origin).set("limits.connection_age", "1s").stop("goaway_grace", "50ms").start();
    let begun = Instant::now();
    let mut h2 = Way::Clear.connect(&proxy);
    let mut idle = Way::Tls.connect(&proxy);
    let held = h2.get("/hold/old");
    let first = h2.wait_goaway(0);
    assert!(first.at - begun >= ms(990), "never early: {:?}", first.at - begun);
    assert_eq!(h2.wait_goaway(1).last, held);
    origin.release_all();
    is_served(&mut h2, held, "held");
    assert_eq!(h2.wait_end(), End::Eof);
    idle.wait_goaway(1);
    assert_eq!(idle.wait_end(), End::Eof);
    wait_closed(&proxy, "age");
}

fn a_silent_client_with_streams_is_asked_and_left_when_it_does_not_answer(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.h2_ping", "300ms").start();
    let mut idle = way.connect(&proxy);
    let mut h2 = way.connect(&proxy);
    h2.auto.ping = false;
    let mut asked = Instant::now();
    let connections: Vec<usize> = (0..3)
        .map(|n| {
            asked = Instant::now();
            h2.get(&format!("/hold/{n}"));
            origin.wait_started(&format!("/hold/{n}")).connection
        })
        .collect();
    h2.read_until(|h2| (!h2.pings().is_empty()).then_some(())).expect("a PING");
    assert!(asked.elapsed() >= ms(290), "never early: {:?}", asked.elapsed());
    for connection in connections {
        origin.wait_connection_end(connection);
    }
    assert!(asked.elapsed() >= ms(590), "never early: {:?}", asked.elapsed());
    h2.wait_end();
    wait_closed(&proxy, "timeout");
    wait_rest(&proxy);
    for n in 0..3 {
        proxy.wait_access("of a cancelled request", |line| {
            line.contains(&format!("/hold/{n}")) && line.contains("client_gone")
        });
    }
    // Nobody asks a connection without streams.
    goes_on(&mut idle);
    assert!(idle.pings().is_empty());
}

fn a_client_that_answers_pings_stays(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.h2_ping", "500ms").start();
    let mut h2 = way.connect(&proxy);
    h2.auto.ping = false;
    let stream = h2.get("/hold/long");
    for _ in 0..2 {
        h2.read_until(|h2| (!h2.pings().is_empty()).then_some(())).expect("a PING");
        h2.pong();
    }
    origin.release_all();
    is_served(&mut h2, stream, "held");
}

/// A client with windows without end and a narrow socket, that has asked for `n`
/// bodies without end.
fn narrow(way: Way, proxy: &Proxy, n: usize) -> (H2, Vec<u32>) {
    let mut h2 = way.bare_narrow(proxy, 16 * 1024);
    h2.handshake(&[(setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1)]);
    h2.send(&Frame::window_update(0, (1 << 31) - 1 - 65_535));
    h2.auto.window = false;
    let streams = (0..n).map(|n| h2.get(&format!("/flood/{n}"))).collect();
    (h2, streams)
}

/// An app server with responses that do not end.
fn flooding() -> Origin {
    let piece = pattern(64 * 1024);
    Origin::scripted(move |conn, _| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        loop {
            conn.send(&piece)?;
        }
    })
}

fn a_client_that_stops_reading_is_left_and_its_requests_cancelled(way: Way) {
    let origin = flooding();
    let proxy = launch(&origin).set("timeouts.send", "500ms").start();
    let begun = Instant::now();
    let (h2, streams) = narrow(way, &proxy, 4);
    for n in 0..streams.len() {
        let request = origin.wait_started(&format!("/flood/{n}"));
        origin.wait_connection_end(request.connection);
    }
    let took = begun.elapsed();
    assert!(took >= ms(490) && took < ms(500) + LATE, "{took:?}");
    wait_closed(&proxy, "timeout");
    wait_rest(&proxy);
    within(PATIENCE, "nobody to be left", || {
        let connections = &admin::status(&proxy.admin())["connections"]["h2"];
        (connections["active"] == 0 && connections["idle"] == 0).then_some(())
    });
    drop(h2);
    proxy.terminate();
    assert_eq!(proxy.wait_exit().code(), 0, "it was over before the stop");
}

fn a_client_that_reads_slowly_gets_more_time_with_every_octet(way: Way) {
    let origin = flooding();
    let proxy = launch(&origin).set("timeouts.send", "500ms").start();
    let (mut h2, streams) = narrow(way, &proxy, 40);
    let begun = Instant::now();
    let mut got = 0;
    // Slower than the app server all the time, and longer than three timeouts.
    while begun.elapsed() < ms(1_700) {
        h2.next_frame().unwrap_or_else(|end| panic!("{end:?} after {got} frames{}", h2.story()));
        got += 1;
        pause(ms(2));
    }
    for stream in streams {
        assert_eq!(h2.so_far(stream).reset, None);
    }
    h2.reset();
    wait_rest(&proxy);
}

#[test]
fn a_window_that_never_opens_ends_its_stream_and_no_other() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("timeouts.send", "400ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let held = h2.get("/hold/beside");
    h2.auto.window = false;
    let begun = Instant::now();
    let stream = h2.get("/bytes/200000");
    let request = origin.wait_started("/bytes/200000");
    let response = h2.response(stream);
    assert!(begun.elapsed() >= ms(390), "never early: {:?}", begun.elapsed());
    assert!(!response.whole && response.reset.is_some(), "never a clean end");
    assert_eq!(response.body.len(), 65_535);
    origin.wait_connection_end(request.connection);
    origin.release_all();
    h2.send(&Frame::window_update(0, 65_535));
    is_served(&mut h2, held, "held");
    proxy.wait_access("send_timeout", |line| line.contains("send_timeout"));
    wait_rest(&proxy);
}

#[test]
fn an_answer_of_our_own_that_finds_no_window_is_given_up() {
    let gone = Origin::new().place().to_string();
    let proxy = Launch::before_addr(&gone).admin().set("timeouts.send", "300ms").start();
    let mut h2 = Way::Clear.connect_with(&proxy, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let stream = h2.get("/x");
    assert_eq!(h2.response_head(stream).status, 502);
    let response = h2.response(stream);
    assert!(!response.whole && response.reset.is_some(), "{response:?}");
    wait_rest(&proxy);
    let stream = h2.request("HEAD", "/x");
    assert_eq!(h2.response(stream).status, 502);
}

#[test]
fn a_body_that_stops_is_a_request_timeout_of_its_stream() {
    let (origin, proxy, mut h2) = limited("timeouts.body", "300ms");
    let held = h2.get("/hold/beside");
    for more in [&[][..], &[("content-length".to_owned(), "10".to_owned())]] {
        let fields = [&h2.pseudo("POST", "/stops")[..], more].concat();
        let begun = Instant::now();
        let stream = h2.headers(&fields, false);
        h2.data(stream, b"abc", false);
        is_error(&h2.response(stream), 408, "http_request_error");
        assert!(begun.elapsed() >= ms(290), "never early: {:?}", begun.elapsed());
        h2.expect_reset(stream, &[Code::NO_ERROR]);
        let request = origin.requests_for("/stops").pop().expect("a request");
        origin.wait_connection_end(request.connection);
        assert!(!origin.wait_started("/stops").whole);
    }
    origin.release_all();
    is_served(&mut h2, held, "held");
    wait_rest(&proxy);
}

#[test]
fn an_upload_below_the_least_rate_is_refused_and_one_above_goes_on() {
    let origin = Origin::new();
    let proxy = launch(&origin)
        .set("timeouts.body_rate", "1000")
        .set("timeouts.body_rate_grace", "300ms")
        .start();
    let mut h2 = Way::Clear.connect(&proxy);
    let begun = Instant::now();
    let (slow, quick) = (h2.post_head("/slow"), h2.post_head("/quick"));
    while !h2.is_over(slow) {
        assert!(begun.elapsed() < LATE, "{}", h2.story());
        h2.send(&Frame::data(slow, "a"));
        h2.data(quick, &pattern(500), false);
        let _ = h2.next_within(ms(20));
    }
    is_error(&h2.response(slow), 408, "http_request_error");
    assert!(begun.elapsed() >= ms(300), "never early: {:?}", begun.elapsed());
    h2.data(quick, b"end", true);
    let response = h2.response(quick);
    assert_eq!(response.status, 200, "{response:?}");
    let request = origin.wait_started("/slow");
    origin.wait_connection_end(request.connection);
}

#[test]
fn a_response_that_does_not_begin_is_a_gateway_timeout_of_its_stream() {
    let (origin, proxy, mut h2) = limited("upstream.first_byte_timeout", "300ms");
    let begun = Instant::now();
    let upload = h2.post_head("/up");
    let (get, post) = (h2.get("/hold/get"), h2.post("/hold/post", b"body"));
    for stream in [get, post] {
        is_error(&h2.response(stream), 504, "http_response_timeout");
    }
    assert!(begun.elapsed() >= ms(290), "never early: {:?}", begun.elapsed());
    for target in ["/hold/get", "/hold/post"] {
        let request = origin.wait_started(target);
        origin.wait_connection_end(request.connection);
        assert_eq!(origin.requests_for(target).len(), 1, "it may have been executed");
    }
    // The app's time begins when it has the whole request.
    h2.data(upload, b"body", true);
    is_served(&mut h2, upload, "POST /up 4");
    wait_rest(&proxy);
}

#[test]
fn a_client_that_keeps_taking_back_its_requests_is_told_to_calm_down() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut honest = Way::Clear.connect(&proxy);
    let held = honest.get("/hold/honest");
    let mut h2 = Way::Clear.connect(&proxy);
    let mut asked = 0;
    while h2.goaways().is_empty() && h2.ended().is_none() {
        asked += 1;
        assert!(asked < 1_000, "it is never told{}", h2.story());
        let stream = h2.get("/hold/never");
        let _ = h2.try_fence();
        h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    }
    h2.expect_connection_error(&[Code::ENHANCE_YOUR_CALM]);
    assert!(asked >= 400, "an honest client may give up as many: {asked}");
    h2.wait_end();
    wait_closed(&proxy, "limit");
    origin.wait_started("/hold/honest");
    origin.release("/hold/honest");
    is_served(&mut honest, held, "held");
    wait_rest(&proxy);
}

#[test]
fn streams_of_a_client_told_to_calm_down_are_cancelled() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = Way::Clear.connect(&proxy);
    h2.get("/hold/open");
    let request = origin.wait_started("/hold/open");
    while h2.ended().is_none() && h2.goaways().is_empty() {
        let stream = h2.get("/hold/never");
        let _ = h2.try_fence();
        h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    }
    origin.wait_connection_end(request.connection);
    wait_rest(&proxy);
}

#[test]
fn rapid_reset_ends_its_connection_and_reaches_nobody() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut honest = Way::Clear.connect(&proxy);
    let mut h2 = Way::Clear.connect(&proxy);
    let mut asked = 0;
    for _ in 0..100 {
        let mut frames = Vec::new();
        for _ in 0..100 {
            let stream = h2.fresh_stream();
            let block = hpack::plain(&h2.pseudo("GET", "/hold/rapid"));
            frames.push(Frame::headers(stream, block).end());
            frames.push(Frame::rst_stream(stream, Code::CANCEL));
            asked += 1;
        }
        h2.send_all(&frames);
    }
    h2.expect_connection_error(&[Code::ENHANCE_YOUR_CALM]);
    assert_eq!(asked, 10_000);
    let reached = origin.requests_for("/hold/rapid").len();
    assert!(reached <= 500, "{reached} requests of a flood reached the app server");
    goes_on(&mut honest);
    wait_rest(&proxy);
}

/// Sends what a client may send and nobody should, until the connection takes no more
/// or `most` octets are sent; how many were.
fn flood(proxy: &Proxy, begin: &[Frame], again: &[Frame], most: usize) -> usize {
    let sock = link::clear(&proxy.place());
    sock.set_write_timeout(Some(ms(300))).expect("a bound on writes");
    let mut begun = [PREFACE, &Frame::settings(&[]).octets()].concat();
    begin.iter().for_each(|frame| begun.extend(frame.octets()));
    (&sock).write_all(&begun).expect("the beginning");
    let octets: Vec<u8> = again.iter().flat_map(Frame::octets).collect();
    let piece = octets.repeat((64 * 1024 / octets.len()).max(1));
    let mut sent = 0;
    while sent < most && (&sock).write_all(&piece).is_ok() {
        sent += piece.len();
    }
    sent
}

#[test]
fn floods_of_frames_cost_no_memory_and_nobody_else_notices() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("limits.head_size", "16k").start();
    let mut honest = Way::Clear.connect(&proxy);
    goes_on(&mut honest);
    let before = proxy.rss();
    let fields = |method, path| {
        let pseudo =
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.test")];
        hpack::plain(&pseudo)
    };
    let open = Frame::headers(1, fields("POST", "/hold/flood"));
    let get = Frame::headers(1, fields("GET", "/hold/flood")).end();
    let begun = Frame::headers_begun(1, fields("GET", "/never"));
    let more = hpack::plain(&[("x-more", "y".repeat(200))]);
    let floods: [(&str, Vec<Frame>, Frame); 11] = [
        ("SETTINGS", vec![], Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 70_000)])),
        ("PING", vec![], Frame::ping(*b"flooding")),
        ("PONG", vec![], Frame::pong(*b"flooding")),
        ("empty DATA", vec![open.clone()], Frame::data(1, [])),
        ("padding", vec![open.clone()], Frame::data(1, []).padded(100)),
        ("small DATA", vec![open.clone()], Frame::data(1, "x")),
        ("DATA on a stream that is over", vec![get.clone()], Frame::data(1, "x")),
        ("CONTINUATION", vec![begun.clone()], Frame::continuation_begun(1, more)),
        ("empty CONTINUATION", vec![begun], Frame::continuation_begun(1, [])),
        ("WINDOW_UPDATE", vec![get], Frame::window_update(1, 1)),
        ("PRIORITY", vec![], Frame::priority(1, 3, 16)),
    ];
    for (name, begin, again) in floods {
        let sent = flood(&proxy, &begin, &[again], 12 << 20);
        goes_on(&mut honest);
        let grown = proxy.rss().saturating_sub(before);
        assert!(grown < 16 << 20, "{name}: {sent} octets made it grow by {grown}");
    }
    let unknown = Frame::new(0xfa, flag::NONE, 0, vec![0; 1000]);
    let empty = Frame::new(kind::SETTINGS, flag::ACK, 0, []);
    for again in [unknown, empty] {
        flood(&proxy, &[], &[again], 12 << 20);
        goes_on(&mut honest);
    }
    origin.release_all();
    wait_rest(&proxy);
}

#[test]
fn a_flood_of_requests_costs_no_memory_and_is_bounded_by_the_limit_of_streams() {
    let origin = Origin::new();
    let proxy = launch(&origin).set("limits.streams", "20").start();
    let mut honest = Way::Clear.connect(&proxy);
    goes_on(&mut honest);
    let before = proxy.rss();
    let mut h2 = Way::Clear.connect(&proxy);
    for _ in 0..20 {
        let mut frames = Vec::new();
        for _ in 0..100 {
            let stream = h2.fresh_stream();
            let block = hpack::plain(&h2.pseudo("GET", "/hold/flood"));
            frames.push(Frame::headers(stream, block).end());
        }
        h2.send_all(&frames);
    }
    let _ = h2.try_fence();
    goes_on(&mut honest);
    let grown = proxy.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown}");
    assert!(origin.requests_for("/hold/flood").len() <= 20);
    origin.release_all();
    wait_rest(&proxy);
}

#[test]
fn a_client_that_makes_us_reset_its_streams_is_ended_and_they_are_cancelled() {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut honest = Way::Clear.connect(&proxy);
    let mut h2 = Way::Clear.connect(&proxy);
    let mut asked = 0;
    while h2.goaways().is_empty() && h2.ended().is_none() {
        asked += 1;
        assert!(asked < 1_000, "it is never told{}", h2.story());
        let stream = h2.get("/hold/never");
        // Too large a window is an error of the stream (RFC 9113, section 6.9.1).
        h2.send(&Frame::window_update(stream, (1 << 31) - 1));
        let _ = h2.try_fence();
    }
    h2.expect_connection_error(&[Code::ENHANCE_YOUR_CALM]);
    wait_rest(&proxy);
    assert!(origin.requests_for("/hold/never").len() <= asked);
    for request in origin.requests_for("/hold/never") {
        origin.wait_connection_end(request.connection);
    }
    goes_on(&mut honest);
}

#[test]
fn a_response_goes_on_while_its_client_holds_its_own_end_open() {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..8 {
            conn.send("5\r\nhello\r\n")?;
            pause(ms(100));
        }
        conn.send("0\r\n\r\n")?;
        Ok(Next::Close)
    });
    let proxy = launch(&origin).set("timeouts.body", "400ms").start();
    let mut h2 = Way::Clear.connect(&proxy);
    let stream = h2.post_head("/converse");
    h2.data(stream, b"one message", false);
    let response = h2.response(stream);
    assert_eq!((response.whole, response.body.len()), (true, 40), "{response:?}");
    h2.expect_reset(stream, &[Code::NO_ERROR]);
    wait_rest(&proxy);
}

#[test]
fn whoever_has_been_without_streams_longest_makes_room() {
    let origin = Origin::new();
    let proxy = launch(&origin)
        .arg("--workers")
        .arg("1")
        .set("limits.connections", "2")
        .stop("goaway_grace", "50ms")
        .start();
    let mut oldest = Way::Clear.connect(&proxy);
    goes_on(&mut oldest);
    let mut busy = Way::Clear.connect(&proxy);
    let held = busy.get("/hold/room");
    origin.wait_started("/hold/room");
    let mut newcomer = Way::Clear.bare(&proxy);
    newcomer.octets(PREFACE).send(&Frame::settings(&[]));
    let first = oldest.wait_goaway(0);
    assert_eq!(first.code, Code::NO_ERROR, "it is told");
    assert_eq!(oldest.wait_end(), End::Eof);
    drop(oldest);
    let stream = newcomer.get("/new");
    assert_eq!(newcomer.response(stream).text(), "GET /new 0");
    origin.release("/hold/room");
    assert_eq!(busy.response(held).text(), "held");
}
