//! What every server has to take: h2spec's generic cases but those of HPACK.

use crate::server::{
    Server, expect_answer, expect_pong, expect_pong_or_end, get, get_block, get_frame, post, with,
};
use crate::support::h2::frame::{EXCLUSIVE, PREFACE, setting};
use crate::support::h2::{Code, Frame, Got};

over_both! {
    s3_4_the_preface_is_accepted,
    s5_1_priority_on_an_idle_stream_is_accepted,
    s5_1_window_update_on_a_half_closed_remote_stream_is_accepted,
    s5_1_priority_on_a_half_closed_remote_stream_is_accepted,
    s5_1_rst_stream_on_a_half_closed_remote_stream_is_accepted,
    s5_1_priority_on_a_closed_stream_is_accepted,
    s6_1_data_is_accepted,
    s6_1_several_data_are_accepted,
    s6_1_data_with_padding_is_accepted,
    s6_2_headers_are_accepted,
    s6_2_headers_with_padding_are_accepted,
    s6_2_headers_with_priority_are_accepted,
    s6_3_priority_of_weight_1_is_accepted,
    s6_3_priority_of_weight_256_is_accepted,
    s6_3_priority_with_a_dependency_is_accepted,
    s6_3_exclusive_priority_is_accepted,
    s6_3_priority_of_an_idle_stream_leaves_lower_streams_usable,
    s6_4_rst_stream_is_accepted,
    s6_5_settings_are_accepted,
    s6_7_ping_is_accepted,
    s6_8_goaway_is_accepted,
    s6_9_window_update_of_the_connection_is_accepted,
    s6_9_window_update_of_a_stream_is_accepted,
    s6_10_continuation_is_accepted,
    s6_10_several_continuations_are_accepted,
    s8_1_get_is_answered,
    s8_1_head_is_answered,
    s8_1_post_is_answered,
    s8_1_post_with_trailers_is_answered,
}

/// generic/1/1
fn s3_4_the_preface_is_accepted(server: &Server) {
    let mut h2 = server.bare();
    h2.octets(PREFACE);
    h2.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]));
    let first = h2.next_frame();
    assert!(matches!(first, Ok(Got::Settings { .. })), "{first:?}");
}

/// generic/2/1
fn s5_1_priority_on_an_idle_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::priority(1, 0, 255));
    h2.fence();
}

/// generic/2/2
fn s5_1_window_update_on_a_half_closed_remote_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    let stream = h2.get("/");
    h2.send(&Frame::window_update(stream, 1));
    assert_eq!(h2.next_data(stream), 1);
}

/// generic/2/3
fn s5_1_priority_on_a_half_closed_remote_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    let stream = h2.get("/");
    h2.send(&Frame::priority(stream, 0, 255));
    h2.send(&Frame::window_update(stream, 1));
    assert_eq!(h2.next_data(stream), 1);
}

/// generic/2/4
fn s5_1_rst_stream_on_a_half_closed_remote_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.get("/");
    h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    h2.fence();
}

/// generic/2/5
fn s5_1_priority_on_a_closed_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.get("/");
    assert!(h2.response(stream).whole);
    h2.send(&Frame::priority(stream, 0, 255));
    h2.fence();
}

/// generic/3.1/1
fn s6_1_data_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::data(stream, "test").end());
    expect_answer(&mut h2, stream);
}

/// generic/3.1/2
fn s6_1_several_data_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::data(stream, "test"));
    h2.send(&Frame::data(stream, "test").end());
    expect_answer(&mut h2, stream);
}

/// generic/3.1/3
fn s6_1_data_with_padding_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::data(stream, "test").end().padded(5));
    expect_answer(&mut h2, stream);
}

/// generic/3.2/1
fn s6_2_headers_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&get_frame(&h2));
    expect_answer(&mut h2, 1);
}

/// generic/3.2/2
fn s6_2_headers_with_padding_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&get_frame(&h2).padded(8));
    expect_answer(&mut h2, 1);
}

/// generic/3.2/3
fn s6_2_headers_with_priority_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&get_frame(&h2).prioritised(0, 255));
    expect_answer(&mut h2, 1);
}

/// generic/3.3/1
fn s6_3_priority_of_weight_1_is_accepted(server: &Server) {
    answers_after(server, Frame::priority(1, 0, 0));
}

/// generic/3.3/2
fn s6_3_priority_of_weight_256_is_accepted(server: &Server) {
    answers_after(server, Frame::priority(1, 0, 255));
}

/// generic/3.3/3
fn s6_3_priority_with_a_dependency_is_accepted(server: &Server) {
    answers_after(server, Frame::priority(3, 1, 0));
}

/// generic/3.3/4
fn s6_3_exclusive_priority_is_accepted(server: &Server) {
    answers_after(server, Frame::priority(1, EXCLUSIVE, 0));
}

/// generic/3.3/5
fn s6_3_priority_of_an_idle_stream_leaves_lower_streams_usable(server: &Server) {
    answers_after(server, Frame::priority(3, 0, 255));
}

/// A GET on stream 1 is answered, whatever priority was told before.
#[track_caller]
fn answers_after(server: &Server, priority: Frame) {
    let mut h2 = server.connect();
    h2.send(&priority);
    h2.send(&get_frame(&h2));
    expect_answer(&mut h2, 1);
}

/// generic/3.4/1
fn s6_4_rst_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.headers(&get(&h2), false);
    h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    h2.fence();
}

/// generic/3.5/1
fn s6_5_settings_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.settings(&[
        (setting::HEADER_TABLE_SIZE, 4096),
        (setting::ENABLE_PUSH, 1),
        (setting::MAX_CONCURRENT_STREAMS, 100),
        (setting::INITIAL_WINDOW_SIZE, 65_535),
        (setting::MAX_FRAME_SIZE, 16_384),
        (setting::MAX_HEADER_LIST_SIZE, 100),
    ]);
}

/// generic/3.7/1
fn s6_7_ping_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::ping(*b"any ping"));
    expect_pong(&mut h2, *b"any ping");
}

/// generic/3.8/1
fn s6_8_goaway_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::goaway(0, Code::NO_ERROR, b"no more"));
    expect_pong_or_end(&mut h2);
}

/// generic/3.9/1
fn s6_9_window_update_of_the_connection_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::window_update(0, 1));
    h2.fence();
}

/// generic/3.9/2
fn s6_9_window_update_of_a_stream_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.get("/");
    h2.send(&Frame::window_update(stream, 1));
    expect_answer(&mut h2, stream);
}

/// generic/3.10/1
fn s6_10_continuation_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    let block = get_block(&h2);
    h2.send(&Frame::headers_begun(1, &block[..5]).end());
    h2.send(&Frame::continuation(1, &block[5..]));
    expect_answer(&mut h2, 1);
}

/// generic/3.10/2
fn s6_10_several_continuations_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    let block = get_block(&h2);
    h2.send(&Frame::headers_begun(1, &block[..5]).end());
    h2.send(&Frame::continuation_begun(1, &block[5..10]));
    h2.send(&Frame::continuation(1, &block[10..]));
    expect_answer(&mut h2, 1);
}

/// generic/4/1
fn s8_1_get_is_answered(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.get("/");
    expect_answer(&mut h2, stream);
}

/// generic/4/2
fn s8_1_head_is_answered(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.request("HEAD", "/");
    let response = h2.response(stream);
    assert_eq!((response.status, response.body.len()), (200, 0));
}

/// generic/4/3
fn s8_1_post_is_answered(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post("/", b"test");
    expect_answer(&mut h2, stream);
}

/// generic/4/4
fn s8_1_post_with_trailers_is_answered(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.headers(&with(post(&h2), "trailer", "x-test"), false);
    h2.data(stream, b"test", false);
    h2.send_fields(stream, &[("x-test", "ok")], true);
    expect_answer(&mut h2, stream);
}
