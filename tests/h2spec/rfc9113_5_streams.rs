//! RFC 9113, section 5: streams and their states. (5.3.1 is RFC 7540's.)

use crate::server::{Server, UNSPECIFIC, get, get_block, get_frame, long_field, post};
use crate::support::h2::frame::setting;
use crate::support::h2::{Code, Frame, H2};

over_both! {
    s5_1_data_on_an_idle_stream_is_an_error,
    s5_1_rst_stream_on_an_idle_stream_is_a_protocol_error,
    s5_1_window_update_on_an_idle_stream_is_a_protocol_error,
    s5_1_continuation_on_an_idle_stream_is_a_protocol_error,
    s5_1_data_on_a_half_closed_remote_stream_is_a_stream_closed_error,
    s5_1_headers_on_a_half_closed_remote_stream_are_a_stream_closed_error,
    s5_1_continuation_on_a_half_closed_remote_stream_is_an_error,
    s5_1_data_behind_rst_stream_is_a_stream_closed_error,
    s5_1_headers_behind_rst_stream_are_a_stream_closed_error,
    s5_1_continuation_behind_rst_stream_is_an_error,
    s5_1_data_on_a_closed_stream_is_a_stream_closed_error,
    s5_1_headers_on_a_closed_stream_are_a_stream_closed_error,
    s5_1_continuation_on_a_closed_stream_is_an_error,
    s5_1_1_an_even_stream_is_a_protocol_error,
    s5_1_1_a_stream_below_an_earlier_one_is_a_protocol_error,
    s5_1_2_a_stream_above_the_limit_is_refused,
    s5_3_1_headers_that_depend_on_themselves_are_a_protocol_error,
    s5_3_1_priority_that_depends_on_itself_is_a_protocol_error,
    s5_4_1_the_connection_is_closed_after_a_connection_error,
    s5_4_1_goaway_is_sent_before_the_connection_is_closed,
    s5_5_an_unknown_extension_frame_is_ignored,
    s5_5_an_extension_frame_inside_a_field_block_is_a_protocol_error,
}

/// http2/5.1/1
fn s5_1_data_on_an_idle_stream_is_an_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::data(1, "test").end());
    // Section 5.1 has PROTOCOL_ERROR for it, section 6.1 has STREAM_CLOSED.
    h2.expect_stream_error(1, &[Code::PROTOCOL_ERROR, Code::STREAM_CLOSED]);
}

/// http2/5.1/2
fn s5_1_rst_stream_on_an_idle_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::rst_stream(1, Code::CANCEL));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/5.1/3
fn s5_1_window_update_on_an_idle_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::window_update(1, 100));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/5.1/4
fn s5_1_continuation_on_an_idle_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::continuation(1, get_block(&h2)));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/5.1/5
fn s5_1_data_on_a_half_closed_remote_stream_is_a_stream_closed_error(server: &Server) {
    let (mut h2, stream) = half_closed(server);
    h2.send(&Frame::data(stream, "test").end());
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED, UNSPECIFIC]);
}

/// http2/5.1/6
fn s5_1_headers_on_a_half_closed_remote_stream_are_a_stream_closed_error(server: &Server) {
    let (mut h2, stream) = half_closed(server);
    h2.send(&Frame::headers(stream, get_block(&h2)).end());
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED, UNSPECIFIC]);
}

/// http2/5.1/7
fn s5_1_continuation_on_a_half_closed_remote_stream_is_an_error(server: &Server) {
    let (mut h2, stream) = half_closed(server);
    h2.send(&Frame::continuation(stream, get_block(&h2)));
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]);
}

/// A stream whose request is whole, and whose response the app still owes.
fn half_closed(server: &Server) -> (H2, u32) {
    let mut h2 = server.connect();
    let stream = h2.get("/hold");
    (h2, stream)
}

/// http2/5.1/8
fn s5_1_data_behind_rst_stream_is_a_stream_closed_error(server: &Server) {
    let (mut h2, stream) = cancelled(server);
    h2.send(&Frame::data(stream, "test").end());
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED]);
}

/// http2/5.1/9
fn s5_1_headers_behind_rst_stream_are_a_stream_closed_error(server: &Server) {
    let (mut h2, stream) = cancelled(server);
    h2.send(&Frame::headers(stream, get_block(&h2)).end());
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED, UNSPECIFIC]);
}

/// http2/5.1/10
fn s5_1_continuation_behind_rst_stream_is_an_error(server: &Server) {
    let (mut h2, stream) = cancelled(server);
    h2.send(&Frame::continuation(stream, long_field()));
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]);
}

/// A stream that its client has reset in the middle of the request.
fn cancelled(server: &Server) -> (H2, u32) {
    let mut h2 = server.connect();
    let stream = h2.headers(&get(&h2), false);
    h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    (h2, stream)
}

/// http2/5.1/11
fn s5_1_data_on_a_closed_stream_is_a_stream_closed_error(server: &Server) {
    let (mut h2, stream) = closed(server);
    h2.send(&Frame::data(stream, "test").end());
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED]);
}

/// http2/5.1/12
fn s5_1_headers_on_a_closed_stream_are_a_stream_closed_error(server: &Server) {
    let (mut h2, stream) = closed(server);
    h2.send(&Frame::headers(stream, get_block(&h2)).end());
    h2.expect_connection_error(&[Code::STREAM_CLOSED, UNSPECIFIC]);
}

/// http2/5.1/13
fn s5_1_continuation_on_a_closed_stream_is_an_error(server: &Server) {
    let (mut h2, stream) = closed(server);
    h2.send(&Frame::continuation(stream, long_field()));
    h2.expect_connection_error(&[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]);
}

/// A stream that both sides have ended.
fn closed(server: &Server) -> (H2, u32) {
    let mut h2 = server.connect();
    let stream = h2.get("/");
    assert!(h2.response(stream).whole);
    (h2, stream)
}

/// http2/5.1.1/1
fn s5_1_1_an_even_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 2, ..get_frame(&h2) });
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/5.1.1/2
fn s5_1_1_a_stream_below_an_earlier_one_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 5, ..get_frame(&h2) });
    h2.send(&Frame { stream: 3, ..get_frame(&h2) });
    // Stream 3 is closed by then (section 5.1.1), and a frame on a closed stream may be
    // answered with STREAM_CLOSED (section 5.1).
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR, Code::STREAM_CLOSED]);
}

/// http2/5.1.2/1
fn s5_1_2_a_stream_above_the_limit_is_refused(server: &Server) {
    let mut h2 = server.connect();
    let most = h2.peer(setting::MAX_CONCURRENT_STREAMS).expect("a limit on streams");
    // Without a window no response ends, and no stream closes.
    h2.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    for _ in 0..most {
        h2.get("/");
    }
    let above = h2.get("/");
    h2.expect_stream_error(above, &[Code::PROTOCOL_ERROR, Code::REFUSED_STREAM]);
}

/// http2/5.3.1/1
fn s5_3_1_headers_that_depend_on_themselves_are_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&get_frame(&h2).prioritised(1, 255));
    h2.expect_stream_error(1, &[Code::PROTOCOL_ERROR]);
}

/// http2/5.3.1/2
fn s5_3_1_priority_that_depends_on_itself_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::priority(1, 1, 255));
    h2.expect_stream_error(1, &[Code::PROTOCOL_ERROR]);
}

/// http2/5.4.1/1
fn s5_4_1_the_connection_is_closed_after_a_connection_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 3, ..Frame::ping([0; 8]) });
    h2.wait_end();
}

/// http2/5.4.1/2
fn s5_4_1_goaway_is_sent_before_the_connection_is_closed(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 3, ..Frame::ping([0; 8]) });
    assert_eq!(h2.wait_goaway(0).code, Code::PROTOCOL_ERROR);
}

/// http2/5.5/1
fn s5_5_an_unknown_extension_frame_is_ignored(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.headers(&post(&h2), false);
    h2.send(&Frame::new(0x16, 0, stream, [0; 8]));
    h2.fence();
}

/// http2/5.5/2
fn s5_5_an_extension_frame_inside_a_field_block_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)).end());
    h2.send(&Frame::new(0x16, 0, 0, [0; 8]));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}
