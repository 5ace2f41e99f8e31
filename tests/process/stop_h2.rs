//! What each HTTP/2 connection is asked once draining starts: the HTTP/2 column of
//! the contract's table, one cell after the other.

use std::time::{Duration, Instant};

use crate::support::h2::{Code, Frame, Got, H2};
use crate::support::origin::{HALVES, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::End;
use crate::support::{ms, pattern, pause};
use crate::way::{Way, both_ways};

/// Graces so long that a test which waits for their end fails.
const LONG: &str = "60s";

/// The last stream that the first GOAWAY of two names.
const ANY: u32 = (1 << 31) - 1;

both_ways! {
    idle_connection_is_told_twice_with_the_grace_between
    streams_opened_before_the_final_goaway_are_served
    a_stream_opened_right_before_the_final_goaway_finishes_after_it
    streams_that_are_open_finish_whatever_they_are_doing
    the_process_leaves_right_after_the_last_stream
    a_thousand_streams_on_one_connection_go_through_a_stop
    a_client_that_never_acknowledges_is_left_a_second_after_the_grace
    streams_of_a_client_that_never_acknowledges_are_served_too
    a_client_that_stops_in_the_middle_of_a_frame_is_left_a_second_after_the_grace
    a_fresh_connection_has_the_grace_for_its_preface_and_is_served
    a_preface_that_does_not_come_within_the_grace_ends_its_connection
    nothing_is_retired_in_lame_duck
    at_the_hard_deadline_each_stream_ends_as_its_state_asks
    a_stream_that_was_never_handed_over_is_refused_at_the_hard_deadline
    a_client_that_never_reads_is_cut_and_named_and_the_process_leaves_at_its_bound
    a_window_that_never_opens_is_cut_with_a_reset_and_named
    octets_after_the_end_do_not_destroy_what_was_sent_last
    a_stream_above_the_final_goaway_is_not_answered
    every_frame_of_a_stop_comes_in_the_order_of_the_contract
    no_stream_is_left_without_a_word_when_everything_is_cut_at_once
}

fn launch(origin: &Origin) -> Launch {
    Launch::before(origin)
        .tls()
        .admin()
        .stop("first_request_grace", LONG)
        .stop("idle_grace", LONG)
        .stop("drain_timeout", "120s")
        .stop("goaway_grace", "300ms")
}

/// SIGTERM, and the moment from which every connection is asked to end.
fn drain(proxy: &Proxy) -> Instant {
    let at = proxy.terminate();
    proxy.wait_phase("draining");
    at
}

/// The first GOAWAY, which refuses nothing yet.
#[track_caller]
fn first_goaway(h2: &mut H2) -> Instant {
    let first = h2.wait_goaway(0);
    assert_eq!((first.last, first.code), (ANY, Code::NO_ERROR));
    first.at
}

/// The final GOAWAY, and the end of the connection behind it.
#[track_caller]
fn final_goaway(h2: &mut H2, last: u32) -> Instant {
    let second = h2.wait_goaway(1);
    assert_eq!((second.last, second.code), (last, Code::NO_ERROR), "{}", h2.story());
    assert_eq!(h2.wait_end(), End::Eof);
    assert_eq!(h2.goaways().len(), 2);
    second.at
}

#[track_caller]
fn is_served(h2: &mut H2, stream: u32, text: &str) {
    let response = h2.response(stream);
    assert_eq!((response.status, response.text().as_str()), (200, text));
    assert!(response.whole && response.reset.is_none(), "{response:?}");
}

fn idle_connection_is_told_twice_with_the_grace_between(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let stream = h2.get("/before");
    is_served(&mut h2, stream, "GET /before 0");
    proxy.wait_count(&["connections", "h2", "idle"], 1);
    let told = drain(&proxy);
    first_goaway(&mut h2);
    let took = final_goaway(&mut h2, stream) - told;
    assert!(took >= ms(300), "the final GOAWAY came after {took:?}");
    assert!(took < ms(1200), "the final GOAWAY came after {took:?}");
    drop(h2);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
}

fn streams_opened_before_the_final_goaway_are_served(way: Way) {
    let origin = Origin::new();
    // Long enough for ten rounds on a machine that is busy with other things.
    let proxy = launch(&origin).stop("goaway_grace", "3s").start();
    let mut h2 = way.connect(&proxy);
    drain(&proxy);
    first_goaway(&mut h2);
    let mut last = 0;
    for round in 0..10 {
        last = h2.get(&format!("/between/{round}"));
        is_served(&mut h2, last, &format!("GET /between/{round} 0"));
        pause(ms(10));
    }
    assert_eq!(h2.goaways().len(), 1, "the grace is not over");
    final_goaway(&mut h2, last);
    proxy.wait_clean_exit();
}

fn a_stream_opened_right_before_the_final_goaway_finishes_after_it(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    drain(&proxy);
    first_goaway(&mut h2);
    let stream = h2.get("/hold/late");
    origin.wait_started("/hold/late");
    let second = h2.wait_goaway(1);
    assert_eq!(second.last, stream);
    origin.release("/hold/late");
    is_served(&mut h2, stream, "held");
    assert_eq!(h2.wait_end(), End::Eof);
    proxy.wait_clean_exit();
}

fn streams_that_are_open_finish_whatever_they_are_doing(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let waiting = h2.get("/hold/waiting");
    let half = h2.get("/part/length/half");
    let chunked = h2.get("/part/chunked/half");
    let upload = h2.post_head("/up");
    h2.data(upload, &pattern(5_000), false);
    for target in ["/hold/waiting", "/part/length/half", "/part/chunked/half", "/up"] {
        origin.wait_started(target);
    }
    h2.response_head(half);
    drain(&proxy);
    first_goaway(&mut h2);
    h2.wait_goaway(1);
    origin.release_all();
    is_served(&mut h2, waiting, "held");
    is_served(&mut h2, half, &HALVES.concat());
    is_served(&mut h2, chunked, &HALVES.concat());
    h2.data(upload, &pattern(5_000), true);
    is_served(&mut h2, upload, "POST /up 10000");
    assert_eq!(h2.wait_end(), End::Eof);
    proxy.wait_clean_exit();
    assert!(proxy.events("request_cut").is_empty());
}

fn the_process_leaves_right_after_the_last_stream(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let stream = h2.get("/hold/last");
    origin.wait_started("/hold/last");
    drain(&proxy);
    h2.wait_goaway(1);
    origin.release("/hold/last");
    is_served(&mut h2, stream, "held");
    assert_eq!(h2.wait_end(), End::Eof);
    let over = Instant::now();
    drop(h2);
    let exit = proxy.wait_clean_exit();
    assert!(exit.at - over < ms(500), "left {:?} after the end", exit.at - over);
}

fn a_thousand_streams_on_one_connection_go_through_a_stop(way: Way) {
    let origin = Origin::new();
    // Long enough to open them all on a machine that is busy with other things.
    let launch = launch(&origin).set("limits.streams", "1000");
    let proxy = launch.stop("goaway_grace", "3s").start();
    let mut h2 = way.connect(&proxy);
    let before: Vec<u32> = (0..400).map(|_| h2.get("/think/400")).collect();
    proxy.terminate();
    let mut after = Vec::new();
    while h2.goaways().is_empty() && after.len() < 600 {
        after.push(h2.get("/think/300"));
        h2.fence();
    }
    while after.len() < 600 {
        after.push(h2.get("/think/300"));
    }
    for stream in before.iter().chain(&after) {
        is_served(&mut h2, *stream, "thought");
    }
    let last = *after.last().unwrap();
    let second = h2.wait_goaway(1);
    assert_eq!(second.last, last);
    assert_eq!(h2.wait_end(), End::Eof);
    proxy.wait_clean_exit();
    assert_eq!(proxy.drain_report()["requests_served"], 1000);
}

fn a_client_that_never_acknowledges_is_left_a_second_after_the_grace(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let stream = h2.get("/before");
    is_served(&mut h2, stream, "GET /before 0");
    h2.auto.ping = false;
    let told = drain(&proxy);
    let first = first_goaway(&mut h2);
    let second = final_goaway(&mut h2, stream);
    assert!(second - told >= ms(300), "the grace was not given: {:?}", second - told);
    assert!(second - first <= ms(1400), "a second after the grace: {:?}", second - first);
    drop(h2);
    proxy.wait_clean_exit();
    let hung = proxy.wait_event("client_hung");
    assert_eq!(hung.text("what"), "did not acknowledge GOAWAY");
}

fn streams_of_a_client_that_never_acknowledges_are_served_too(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    h2.auto.ping = false;
    drain(&proxy);
    first_goaway(&mut h2);
    pause(ms(500));
    let stream = h2.get("/hold/unacknowledged");
    origin.wait_started("/hold/unacknowledged");
    assert_eq!(h2.wait_goaway(1).last, stream);
    origin.release("/hold/unacknowledged");
    is_served(&mut h2, stream, "held");
    assert_eq!(h2.wait_end(), End::Eof);
    proxy.wait_clean_exit();
}

fn a_client_that_stops_in_the_middle_of_a_frame_is_left_a_second_after_the_grace(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    h2.fence();
    h2.auto.ping = false;
    h2.octets(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2]);
    let told = drain(&proxy);
    first_goaway(&mut h2);
    assert_eq!(h2.wait_end(), End::Eof);
    let took = told.elapsed();
    assert!(took < ms(2500), "the client held the process up: {took:?}");
    drop(h2);
    proxy.wait_clean_exit();
}

fn a_fresh_connection_has_the_grace_for_its_preface_and_is_served(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut silent = way.bare(&proxy);
    let mut half = way.bare(&proxy);
    half.octets(b"PRI * HTTP/2.0\r\n");
    proxy.wait_connections("reading", 1);
    drain(&proxy);
    pause(ms(100));
    half.octets(b"\r\nSM\r\n\r\n");
    half.send(&Frame::settings(&[]));
    silent.handshake(&[]);
    let asked = [half.get("/fresh"), silent.get("/fresh")];
    for (h2, stream) in [&mut half, &mut silent].into_iter().zip(asked) {
        is_served(h2, stream, "GET /fresh 0");
        first_goaway(h2);
        final_goaway(h2, stream);
    }
    proxy.wait_clean_exit();
}

fn a_preface_that_does_not_come_within_the_grace_ends_its_connection(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("first_request_grace", "300ms").start();
    let mut half = way.bare(&proxy);
    half.octets(b"PRI * HTTP/2.0\r\n");
    proxy.wait_connections("reading", 1);
    let told = drain(&proxy);
    let (_, end) = half.rest();
    assert_eq!(end, End::Eof);
    let took = told.elapsed();
    assert!(took >= ms(300) && took < ms(1500), "{took:?}");
    drop(half);
    proxy.wait_clean_exit();
    assert_eq!(proxy.wait_event("client_hung").text("what"), "sent no HTTP/2 preface");
}

fn nothing_is_retired_in_lame_duck(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("lame_duck", "500ms").start();
    let mut h2 = way.connect(&proxy);
    proxy.terminate();
    proxy.wait_phase("lame_duck");
    let stream = h2.get("/lame");
    is_served(&mut h2, stream, "GET /lame 0");
    assert!(h2.goaways().is_empty());
    first_goaway(&mut h2);
    final_goaway(&mut h2, stream);
    proxy.wait_clean_exit();
}

fn at_the_hard_deadline_each_stream_ends_as_its_state_asks(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("drain_timeout", "700ms").start();
    let mut h2 = way.connect(&proxy);
    let waiting = h2.get("/hold/waiting");
    let half = h2.get("/part/length/half");
    let upload = h2.post_head("/up");
    h2.data(upload, b"begun", false);
    let mut grpc = h2.pseudo("POST", "/hold/grpc");
    grpc.push(("content-type".to_owned(), "application/grpc".to_owned()));
    grpc.push(("te".to_owned(), "trailers".to_owned()));
    let grpc = h2.headers(&grpc, true);
    for target in ["/hold/waiting", "/part/length/half", "/up", "/hold/grpc"] {
        origin.wait_started(target);
    }
    h2.response_head(half);
    drain(&proxy);
    let answer = h2.response(waiting);
    assert_eq!(answer.status, 504);
    assert!(answer.field("retry-after").is_none(), "it may have been executed");
    assert!(answer.field("proxy-status").unwrap().starts_with("ebbtide; error="));
    let answer = h2.response(grpc);
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")));
    assert_eq!(h2.response(half).reset, Some(Code::INTERNAL_ERROR));
    assert_eq!(h2.response(upload).status, 504);
    assert_eq!(h2.wait_end(), End::Eof);
    let last = h2.goaways().last().unwrap();
    assert_eq!((last.last, last.code), (grpc, Code::NO_ERROR));
    let exit = proxy.wait_exit();
    assert_eq!(exit.code(), 3);
    let cut = proxy.events("request_cut");
    assert_eq!(cut.len(), 4, "{cut:?}");
    assert!(cut.iter().all(|event| event.text("protocol") == "HTTP/2.0"));
    assert_eq!(proxy.reported("cut_total"), 4);
}

fn a_stream_that_was_never_handed_over_is_refused_at_the_hard_deadline(way: Way) {
    let crowd = crate::support::origin::Crowd::new();
    let upstream = crowd.place().to_string();
    let proxy = Launch::before_addr(&upstream)
        .tls()
        .stop("drain_timeout", "500ms")
        .set("upstream.connect_timeout", "60s")
        .start();
    let mut h2 = way.connect(&proxy);
    let get = h2.get("/queued");
    let post = h2.post("/queued", b"again if you like");
    h2.fence();
    proxy.terminate();
    for stream in [get, post] {
        assert_eq!(h2.response(stream).reset, Some(Code::REFUSED_STREAM));
    }
    assert_eq!(h2.wait_end(), End::Eof);
    assert_eq!(proxy.wait_exit().code(), 3);
    let cut = proxy.events("request_cut");
    assert_eq!(cut.len(), 2, "{cut:?}");
}

fn a_client_that_never_reads_is_cut_and_named_and_the_process_leaves_at_its_bound(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("drain_timeout", "700ms").start();
    let mut h2 = way.connect(&proxy);
    h2.settings(&[(4, (1 << 31) - 1)]);
    h2.send(&Frame::window_update(0, (1 << 30) - 1));
    let streams: Vec<u32> = (0..8).map(|_| h2.get("/bytes/8000000")).collect();
    origin.wait_started("/bytes/8000000");
    proxy.wait_count(&["connections", "h2", "active"], 1);
    pause(ms(200));
    let told = proxy.terminate();
    let exit = proxy.wait_exit();
    let took = exit.at - told;
    assert_eq!(exit.code(), 3);
    assert!(took < Duration::from_secs(3), "the client held the process up: {took:?}");
    let cut = proxy.events("request_cut");
    assert_eq!(cut.len(), streams.len(), "{cut:?}");
    drop(h2);
}

fn a_window_that_never_opens_is_cut_with_a_reset_and_named(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("drain_timeout", "700ms").start();
    let mut h2 = way.connect(&proxy);
    h2.auto.window = false;
    let stream = h2.get("/bytes/200000");
    h2.response_head(stream);
    proxy.terminate();
    assert_eq!(h2.response(stream).reset, Some(Code::INTERNAL_ERROR));
    assert_eq!(h2.wait_end(), End::Eof);
    assert_eq!(proxy.wait_exit().code(), 3);
    let cut = proxy.wait_event("request_cut");
    assert_eq!((cut.text("target"), cut.text("protocol")), ("/bytes/200000", "HTTP/2.0"));
}

fn octets_after_the_end_do_not_destroy_what_was_sent_last(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("goaway_grace", "0s").start();
    let mut h2 = way.connect(&proxy);
    let stream = h2.get("/hold/last");
    origin.wait_started("/hold/last");
    drain(&proxy);
    h2.wait_goaway(1);
    origin.release("/hold/last");
    for _ in 0..50 {
        h2.send(&Frame::ping(*b"chatters"));
        pause(ms(1));
    }
    is_served(&mut h2, stream, "held");
    assert_eq!(h2.wait_end(), End::Eof);
    proxy.wait_clean_exit();
}

fn a_stream_above_the_final_goaway_is_not_answered(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = way.connect(&proxy);
    let held = h2.get("/hold/open");
    origin.wait_started("/hold/open");
    drain(&proxy);
    h2.wait_goaway(1);
    let late = h2.get("/late");
    h2.fence();
    origin.release("/hold/open");
    is_served(&mut h2, held, "held");
    assert_eq!(h2.wait_end(), End::Eof);
    assert_eq!(h2.so_far(late).status, 0);
    assert!(origin.requests_for("/late").is_empty());
    proxy.wait_clean_exit();
}

fn every_frame_of_a_stop_comes_in_the_order_of_the_contract(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("goaway_grace", "50ms").start();
    let mut h2 = way.connect(&proxy);
    h2.fence();
    proxy.terminate();
    let mut seen = Vec::new();
    while let Ok(got) = h2.next_frame() {
        seen.push(match got {
            Got::Goaway { .. } => "GOAWAY",
            Got::Ping { .. } => "PING",
            _ => "other",
        });
    }
    assert_eq!(seen, ["GOAWAY", "PING", "GOAWAY"]);
    proxy.wait_clean_exit();
}

fn no_stream_is_left_without_a_word_when_everything_is_cut_at_once(way: Way) {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("lame_duck", LONG).start();
    let mut h2 = way.connect(&proxy);
    let held = h2.get("/hold/before");
    origin.wait_started("/hold/before");
    proxy.terminate();
    proxy.wait_phase("lame_duck");
    // A signal is another one after a second.
    pause(ms(1100));
    let mut opened = vec![held];
    proxy.terminate_frozen(ms(0), || {
        opened.extend((0..20).map(|which| h2.get(&format!("/hold/{which}"))));
    });
    for stream in opened {
        let response = h2.response(stream);
        let told = response.status == 504 || response.reset == Some(Code::REFUSED_STREAM);
        assert!(told, "{stream}: {response:?}{}", h2.story());
    }
    assert_eq!(h2.wait_end(), End::Eof);
    assert_eq!(proxy.wait_exit().code(), 3);
    assert_eq!(proxy.events("request_cut").len(), 21);
}
