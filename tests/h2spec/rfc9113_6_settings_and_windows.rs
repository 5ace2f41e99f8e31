//! RFC 9113, sections 6.5 and 6.9: SETTINGS, and flow control.

use crate::server::{Server, UNSPECIFIC};
use crate::support::h2::frame::{flag, kind, setting};
use crate::support::h2::{Code, Frame, H2};

over_both! {
    s6_5_a_settings_ack_with_content_is_a_frame_size_error,
    s6_5_settings_on_a_stream_are_a_protocol_error,
    s6_5_settings_of_another_length_are_an_error,
    s6_5_2_enable_push_above_1_is_a_protocol_error,
    s6_5_2_a_window_above_the_most_is_a_flow_control_error,
    s6_5_2_a_frame_size_below_the_least_is_a_protocol_error,
    s6_5_2_a_frame_size_above_the_most_is_a_protocol_error,
    s6_5_2_an_unknown_setting_is_ignored,
    s6_5_3_settings_hold_in_the_order_in_which_they_came,
    s6_5_3_settings_are_acknowledged_at_once,
    s6_9_window_update_by_0_on_the_connection_is_a_protocol_error,
    s6_9_window_update_by_0_on_a_stream_is_a_protocol_error,
    s6_9_window_update_of_another_length_is_a_frame_size_error,
    s6_9_1_no_more_is_sent_than_the_window_of_the_stream,
    s6_9_1_a_window_of_the_connection_above_the_most_is_a_flow_control_error,
    s6_9_1_a_window_of_a_stream_above_the_most_is_a_flow_control_error,
    s6_9_2_new_initial_windows_change_open_streams,
    s6_9_2_a_window_may_become_negative,
    s6_9_2_an_initial_window_above_the_most_is_a_flow_control_error,
}

/// The largest window.
const MOST: u32 = (1 << 31) - 1;

/// http2/6.5/1
fn s6_5_a_settings_ack_with_content_is_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::new(kind::SETTINGS, flag::ACK, 0, [0]));
    h2.expect_connection_error(&[Code::FRAME_SIZE_ERROR, UNSPECIFIC]);
}

/// http2/6.5/2
fn s6_5_settings_on_a_stream_are_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    let settings = Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 100)]);
    h2.send(&Frame { stream: 1, ..settings });
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.5/3
fn s6_5_settings_of_another_length_are_an_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::new(kind::SETTINGS, flag::NONE, 0, [0, 3, 0]));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR, Code::FRAME_SIZE_ERROR]);
}

/// http2/6.5.2/1
fn s6_5_2_enable_push_above_1_is_a_protocol_error(server: &Server) {
    refuses(server, setting::ENABLE_PUSH, 2, &[Code::PROTOCOL_ERROR]);
}

/// http2/6.5.2/2
fn s6_5_2_a_window_above_the_most_is_a_flow_control_error(server: &Server) {
    refuses(
        server,
        setting::INITIAL_WINDOW_SIZE,
        MOST + 1,
        &[Code::FLOW_CONTROL_ERROR, UNSPECIFIC],
    );
}

/// http2/6.5.2/3
fn s6_5_2_a_frame_size_below_the_least_is_a_protocol_error(server: &Server) {
    refuses(server, setting::MAX_FRAME_SIZE, 16_383, &[Code::PROTOCOL_ERROR]);
}

/// http2/6.5.2/4
fn s6_5_2_a_frame_size_above_the_most_is_a_protocol_error(server: &Server) {
    refuses(server, setting::MAX_FRAME_SIZE, 1 << 24, &[Code::PROTOCOL_ERROR]);
}

/// A setting of this value is a connection error.
#[track_caller]
fn refuses(server: &Server, id: u16, value: u32, codes: &[Code]) {
    let mut h2 = server.connect();
    h2.send(&Frame::settings(&[(id, value)]));
    h2.expect_connection_error(codes);
}

/// http2/6.5.2/5
fn s6_5_2_an_unknown_setting_is_ignored(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::settings(&[(0xff, 1)]));
    h2.fence();
}

/// http2/6.5.3/1
fn s6_5_3_settings_hold_in_the_order_in_which_they_came(server: &Server) {
    let mut h2 = ungiving(server);
    h2.settings(&[(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)]);
    let stream = h2.get("/");
    assert_eq!(h2.next_data(stream), 1);
}

/// http2/6.5.3/2
fn s6_5_3_settings_are_acknowledged_at_once(server: &Server) {
    let mut h2 = server.connect();
    h2.settings(&[(setting::ENABLE_PUSH, 0)]);
}

/// http2/6.9/1
fn s6_9_window_update_by_0_on_the_connection_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::window_update(0, 0));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/6.9/2
fn s6_9_window_update_by_0_on_a_stream_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::window_update(stream, 0));
    h2.expect_stream_error(stream, &[Code::PROTOCOL_ERROR]);
}

/// http2/6.9/3
fn s6_9_window_update_of_another_length_is_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::new(kind::WINDOW_UPDATE, flag::NONE, 0, [0, 0, 1]));
    h2.expect_connection_error(&[Code::FRAME_SIZE_ERROR, UNSPECIFIC]);
}

/// http2/6.9.1/1
fn s6_9_1_no_more_is_sent_than_the_window_of_the_stream(server: &Server) {
    let mut h2 = ungiving(server);
    h2.settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
    let stream = h2.get("/");
    assert_eq!(h2.next_data(stream), 1);
}

/// http2/6.9.1/2
fn s6_9_1_a_window_of_the_connection_above_the_most_is_a_flow_control_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::window_update(0, MOST));
    h2.send(&Frame::window_update(0, MOST));
    assert_eq!(h2.wait_goaway(0).code, Code::FLOW_CONTROL_ERROR);
}

/// http2/6.9.1/3
fn s6_9_1_a_window_of_a_stream_above_the_most_is_a_flow_control_error(server: &Server) {
    let mut h2 = server.connect();
    let stream = h2.post_head("/");
    h2.send(&Frame::window_update(stream, MOST));
    h2.send(&Frame::window_update(stream, MOST));
    h2.expect_reset(stream, &[Code::FLOW_CONTROL_ERROR]);
}

/// http2/6.9.2/1
fn s6_9_2_new_initial_windows_change_open_streams(server: &Server) {
    let mut h2 = ungiving(server);
    h2.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let stream = h2.get("/");
    h2.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]));
    assert_eq!(h2.next_data(stream), 1);
}

/// http2/6.9.2/2
fn s6_9_2_a_window_may_become_negative(server: &Server) {
    let mut h2 = ungiving(server);
    h2.settings(&[(setting::INITIAL_WINDOW_SIZE, 3)]);
    let stream = h2.get("/");
    assert_eq!(h2.next_data(stream), 3);
    h2.settings(&[(setting::INITIAL_WINDOW_SIZE, 2)]);
    h2.send(&Frame::window_update(stream, 2));
    assert_eq!(h2.next_data(stream), 1);
}

/// http2/6.9.2/3
fn s6_9_2_an_initial_window_above_the_most_is_a_flow_control_error(server: &Server) {
    refuses(
        server,
        setting::INITIAL_WINDOW_SIZE,
        MOST + 1,
        &[Code::FLOW_CONTROL_ERROR, UNSPECIFIC],
    );
}

/// A client that gives no windows back by itself.
fn ungiving(server: &Server) -> H2 {
    let mut h2 = server.connect();
    h2.auto.window = false;
    h2
}
