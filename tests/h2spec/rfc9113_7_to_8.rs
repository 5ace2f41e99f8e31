//! RFC 9113, sections 7 and 8: error codes, and requests that are malformed.

use crate::server::{Server, expect_pong_or_end, get, get_block, post, with, without};
use crate::support::h2::frame::Fields;
use crate::support::h2::{Code, Frame};

over_both! {
    s7_goaway_of_an_unknown_code_has_no_effect_of_its_own,
    s7_rst_stream_of_an_unknown_code_has_no_effect_of_its_own,
    s8_1_a_second_head_that_does_not_end_the_stream_is_malformed,
    s8_1_1_a_content_length_of_another_body_is_malformed,
    s8_1_1_a_content_length_of_another_body_in_parts_is_malformed,
    s8_2_1_a_field_name_in_capitals_is_malformed,
    s8_2_2_a_connection_field_is_malformed,
    s8_2_2_te_of_more_than_trailers_is_malformed,
    s8_3_an_unknown_pseudo_field_is_malformed,
    s8_3_a_pseudo_field_of_responses_is_malformed,
    s8_3_a_pseudo_field_in_trailers_is_malformed,
    s8_3_a_pseudo_field_behind_a_field_is_malformed,
    s8_3_1_an_empty_path_is_malformed,
    s8_3_1_a_request_without_a_method_is_malformed,
    s8_3_1_a_request_without_a_scheme_is_malformed,
    s8_3_1_a_request_without_a_path_is_malformed,
    s8_3_1_a_request_of_two_methods_is_malformed,
    s8_3_1_a_request_of_two_schemes_is_malformed,
    s8_3_1_a_request_of_two_paths_is_malformed,
    s8_4_push_promise_is_a_protocol_error,
}

/// http2/7/1
fn s7_goaway_of_an_unknown_code_has_no_effect_of_its_own(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::goaway(0, Code(0xff), b""));
    expect_pong_or_end(&mut h2);
}

/// http2/7/2
fn s7_rst_stream_of_an_unknown_code_has_no_effect_of_its_own(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::rst_stream(stream, Code(0xff)));
    h2.fence();
}

/// http2/8.1/1
fn s8_1_a_second_head_that_does_not_end_the_stream_is_malformed(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::data(stream, "test"));
    h2.send_fields(stream, &[("x-test", "ok")], false);
    h2.expect_stream_error(stream, &[Code::PROTOCOL_ERROR]);
}

/// http2/8.1.2.6/1
fn s8_1_1_a_content_length_of_another_body_is_malformed(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.headers(&with(post(&h2), "content-length", "1"), false);
    h2.send(&Frame::data(stream, "test").end());
    h2.expect_stream_error(stream, &[Code::PROTOCOL_ERROR]);
}

/// http2/8.1.2.6/2
fn s8_1_1_a_content_length_of_another_body_in_parts_is_malformed(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.headers(&with(post(&h2), "content-length", "1"), false);
    h2.send(&Frame::data(stream, "test"));
    h2.send(&Frame::data(stream, "test").end());
    h2.expect_stream_error(stream, &[Code::PROTOCOL_ERROR]);
}

/// http2/8.1.2/1
fn s8_2_1_a_field_name_in_capitals_is_malformed(server: &Server) {
    refuses(server, |get| with(get, "X-TEST", "ok"));
}

/// http2/8.1.2.2/1
fn s8_2_2_a_connection_field_is_malformed(server: &Server) {
    refuses(server, |get| with(get, "connection", "keep-alive"));
}

/// http2/8.1.2.2/2
fn s8_2_2_te_of_more_than_trailers_is_malformed(server: &Server) {
    refuses(server, |get| with(with(get, "trailers", "test"), "te", "trailers, deflate"));
}

/// http2/8.1.2.1/1
fn s8_3_an_unknown_pseudo_field_is_malformed(server: &Server) {
    refuses(server, |get| with(get, ":test", "ok"));
}

/// http2/8.1.2.1/2
fn s8_3_a_pseudo_field_of_responses_is_malformed(server: &Server) {
    refuses(server, |get| with(get, ":status", "200"));
}

/// http2/8.1.2.1/3
fn s8_3_a_pseudo_field_in_trailers_is_malformed(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::data(stream, "test"));
    h2.send_fields(stream, &[(":method", "POST")], false);
    h2.expect_stream_error(stream, &[Code::PROTOCOL_ERROR]);
}

/// http2/8.1.2.1/4
fn s8_3_a_pseudo_field_behind_a_field_is_malformed(server: &Server) {
    refuses(server, |get| {
        let path = get.iter().find(|(name, _)| name == ":path").cloned();
        let mut fields = with(without(get, ":path"), "x-test", "ok");
        fields.extend(path);
        fields
    });
}

/// http2/8.1.2.3/1
fn s8_3_1_an_empty_path_is_malformed(server: &Server) {
    refuses(server, |get| with(without(get, ":path"), ":path", ""));
}

/// http2/8.1.2.3/2
fn s8_3_1_a_request_without_a_method_is_malformed(server: &Server) {
    refuses(server, |get| without(get, ":method"));
}

/// http2/8.1.2.3/3
fn s8_3_1_a_request_without_a_scheme_is_malformed(server: &Server) {
    refuses(server, |get| without(get, ":scheme"));
}

/// http2/8.1.2.3/4
fn s8_3_1_a_request_without_a_path_is_malformed(server: &Server) {
    refuses(server, |get| without(get, ":path"));
}

/// http2/8.1.2.3/5
fn s8_3_1_a_request_of_two_methods_is_malformed(server: &Server) {
    refuses(server, |get| with(get, ":method", "GET"));
}

/// http2/8.1.2.3/6
fn s8_3_1_a_request_of_two_schemes_is_malformed(server: &Server) {
    let scheme = if server.is_tls { "https" } else { "http" };
    refuses(server, |get| with(get, ":scheme", scheme));
}

/// http2/8.1.2.3/7
fn s8_3_1_a_request_of_two_paths_is_malformed(server: &Server) {
    refuses(server, |get| with(get, ":path", "/"));
}

/// A GET, changed in this way, is malformed.
#[track_caller]
fn refuses(server: &Server, change: impl FnOnce(Fields) -> Fields) {
    let mut h2 = server.connect();
    let stream = h2.headers(&change(get(&h2)), true);
    h2.expect_stream_error(stream, &[Code::PROTOCOL_ERROR]);
}

/// http2/8.2/1
fn s8_4_push_promise_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::push_promise(1, 3, &get_block(&h2)));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}
