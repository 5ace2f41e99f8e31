//! RFC 9113, section 6: each type of frame but SETTINGS and WINDOW_UPDATE.

use crate::server::{
    Server, UNSPECIFIC, expect_answer, expect_pong, get_block, get_frame, long_field, post,
    post_block, with,
};
use crate::support::h2::frame::{flag, kind};
use crate::support::h2::{Code, Frame, hpack};

over_both! {
    s6_1_data_on_stream_0_is_a_protocol_error,
    s6_1_data_on_a_half_closed_remote_stream_is_a_stream_closed_error,
    s6_1_data_with_more_padding_than_payload_is_a_protocol_error,
    s6_2_priority_behind_open_headers_is_a_protocol_error,
    s6_2_headers_of_another_stream_behind_open_headers_are_a_protocol_error,
    s6_2_headers_on_stream_0_are_a_protocol_error,
    s6_2_headers_with_more_padding_than_payload_are_a_protocol_error,
    s6_3_priority_on_stream_0_is_a_protocol_error,
    s6_3_priority_of_another_length_is_a_frame_size_error,
    s6_4_rst_stream_on_stream_0_is_a_protocol_error,
    s6_4_rst_stream_on_an_idle_stream_is_a_protocol_error,
    s6_4_rst_stream_of_another_length_is_a_frame_size_error,
    s6_7_ping_is_acknowledged_with_its_content,
    s6_7_a_ping_ack_is_not_answered,
    s6_7_ping_on_a_stream_is_a_protocol_error,
    s6_7_ping_of_another_length_is_a_frame_size_error,
    s6_8_goaway_on_a_stream_is_a_protocol_error,
    s6_10_several_continuations_are_accepted,
    s6_10_data_behind_an_open_continuation_is_a_protocol_error,
    s6_10_continuation_on_stream_0_is_a_protocol_error,
    s6_10_continuation_behind_ended_headers_is_a_protocol_error,
    s6_10_continuation_behind_an_ended_continuation_is_a_protocol_error,
    s6_10_continuation_behind_data_is_a_protocol_error,
}

/// http2/6.1/1
fn s6_1_data_on_stream_0_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::data(0, "test").end());
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.1/2
fn s6_1_data_on_a_half_closed_remote_stream_is_a_stream_closed_error(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.request("POST", "/hold");
    h2.send(&Frame::data(stream, "test").end());
    h2.expect_stream_error(stream, &[Code::STREAM_CLOSED, UNSPECIFIC]);
}

/// http2/6.1/3
fn s6_1_data_with_more_padding_than_payload_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.headers(&with(post(&h2), "content-length", "4"), false);
    h2.send(&Frame::data(stream, "\x06test").end().with(flag::PADDED));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.2/1
fn s6_2_priority_behind_open_headers_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)));
    h2.send(&Frame::priority(1, 0, 255));
    h2.send(&Frame::continuation(1, long_field()));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.2/2
fn s6_2_headers_of_another_stream_behind_open_headers_are_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)));
    h2.send(&Frame { stream: 3, ..get_frame(&h2) });
    h2.send(&Frame::continuation(1, long_field()));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.2/3
fn s6_2_headers_on_stream_0_are_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 0, ..get_frame(&h2) });
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.2/4
fn s6_2_headers_with_more_padding_than_payload_are_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    let block = get_block(&h2);
    let padding = u8::try_from(block.len() + 2).expect("a short block");
    let payload = [&[padding], &block[..]].concat();
    h2.send(&Frame::headers(1, payload).end().with(flag::PADDED));
    h2.expect_stream_error(1, &[Code::PROTOCOL_ERROR]);
}

/// http2/6.3/1
fn s6_3_priority_on_stream_0_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::priority(0, 0, 255));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.3/2
fn s6_3_priority_of_another_length_is_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.get("/hold");
    h2.send(&Frame::new(kind::PRIORITY, flag::NONE, stream, [0x80, 0, 0, 1]));
    h2.expect_stream_error(stream, &[Code::FRAME_SIZE_ERROR, UNSPECIFIC]);
}

/// http2/6.4/1
fn s6_4_rst_stream_on_stream_0_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::rst_stream(0, Code::CANCEL));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.4/2
fn s6_4_rst_stream_on_an_idle_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::rst_stream(1, Code::CANCEL));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.4/3
fn s6_4_rst_stream_of_another_length_is_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.get("/hold");
    h2.send(&Frame::new(kind::RST_STREAM, flag::NONE, stream, [0; 3]));
    h2.expect_stream_error(stream, &[Code::FRAME_SIZE_ERROR, UNSPECIFIC]);
}

/// http2/6.7/1
fn s6_7_ping_is_acknowledged_with_its_content(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::ping(*b"content."));
    expect_pong(&mut h2, *b"content.");
}

/// http2/6.7/2
fn s6_7_a_ping_ack_is_not_answered(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::pong(*b"answered"));
    h2.send(&Frame::ping(*b"asked..."));
    expect_pong(&mut h2, *b"asked...");
}

/// http2/6.7/3
fn s6_7_ping_on_a_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 1, ..Frame::ping([0; 8]) });
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.7/4
fn s6_7_ping_of_another_length_is_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::new(kind::PING, flag::NONE, 0, [0; 6]));
    h2.expect_connection_error(&[Code::FRAME_SIZE_ERROR, UNSPECIFIC]);
}

/// http2/6.8/1
fn s6_8_goaway_on_a_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame { stream: 1, ..Frame::goaway(0, Code::NO_ERROR, b"") });
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.10/1
fn s6_10_several_continuations_are_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)).end());
    h2.send(&Frame::continuation_begun(1, long_field()));
    h2.send(&Frame::continuation(1, long_field()));
    expect_answer(&mut h2, 1);
}

/// http2/6.10/2
fn s6_10_data_behind_an_open_continuation_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, post_block(&h2)));
    h2.send(&Frame::continuation_begun(1, long_field()));
    h2.send(&Frame::data(1, "test").end());
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.10/3
fn s6_10_continuation_on_stream_0_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)).end());
    h2.send(&Frame::continuation(0, long_field()));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.10/4
fn s6_10_continuation_behind_ended_headers_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&get_frame(&h2));
    h2.send(&Frame::continuation(1, long_field()));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.10/5
fn s6_10_continuation_behind_an_ended_continuation_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)).end());
    h2.send(&Frame::continuation(1, long_field()));
    h2.send(&Frame::continuation(1, long_field()));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.10/6
fn s6_10_continuation_behind_data_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, post_block(&h2)));
    h2.send(&Frame::data(1, "test").end());
    h2.send(&Frame::continuation(1, hpack::plain(&[("x-test", "ok")])));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}
