//! RFC 9113, sections 3.4 and 4: the preface, and frames as such.

use crate::server::{
    Server, UNSPECIFIC, expect_answer, expect_pong, get_block, get_frame, long_field, post_block,
};
use crate::support::h2::frame::{PREFACE, flag, kind, setting};
use crate::support::h2::hpack;
use crate::support::h2::{Code, Frame, Got};
use crate::support::wire::End;

over_both! {
    s3_4_settings_are_the_first_frame_of_the_server,
    s3_4_a_wrong_preface_ends_the_connection,
    s4_1_a_frame_of_unknown_type_is_ignored,
    s4_1_an_undefined_flag_is_ignored,
    s4_1_the_reserved_bit_is_ignored,
    s4_2_data_of_16384_octets_is_accepted,
    s4_2_data_above_the_frame_size_is_a_frame_size_error,
    s4_2_headers_above_the_frame_size_are_a_frame_size_error,
    s4_3_a_broken_field_block_is_a_compression_error,
    s4_3_priority_inside_a_field_block_is_a_protocol_error,
    s4_3_headers_of_another_stream_inside_a_field_block_are_a_protocol_error,
}

/// http2/3.5/1
fn s3_4_settings_are_the_first_frame_of_the_server(server: &Server) {
    let mut h2 = server.bare();
    h2.octets(PREFACE);
    h2.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]));
    let first = h2.next_frame();
    assert!(matches!(first, Ok(Got::Settings { .. })), "{first:?}");
}

/// http2/3.5/2
///
/// Where HTTP/1 is spoken too it is an HTTP/1 request, and a bad one.
fn s3_4_a_wrong_preface_ends_the_connection(server: &Server) {
    let mut h2 = server.bare();
    h2.octets(b"INVALID CONNECTION PREFACE\r\n\r\n");
    let (mut octets, end) = h2.rest();
    assert_ne!(end, End::TimedOut, "the connection stays open");
    if !server.is_tls && octets.starts_with(b"HTTP/1.") {
        assert!(octets.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&octets));
        return;
    }
    while let Some(frame) = Frame::take(&mut octets) {
        if let Got::Goaway { code, .. } = Got::of(frame) {
            assert_eq!(code, Code::PROTOCOL_ERROR);
        }
    }
    assert!(octets.is_empty(), "no frames: {}", String::from_utf8_lossy(&octets));
}

/// http2/4.1/1
fn s4_1_a_frame_of_unknown_type_is_ignored(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::new(0x16, flag::NONE, 0, [0; 8]));
    h2.fence();
}

/// http2/4.1/2
fn s4_1_an_undefined_flag_is_ignored(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::ping(*b"flagged.").with(0x16));
    expect_pong(&mut h2, *b"flagged.");
}

/// http2/4.1/3
fn s4_1_the_reserved_bit_is_ignored(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::ping(*b"reserved").with(0x16).reserved());
    expect_pong(&mut h2, *b"reserved");
}

/// http2/4.2/1
fn s4_2_data_of_16384_octets_is_accepted(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers(1, post_block(&h2)));
    h2.send(&Frame::data(1, [b'x'; 16_384]).end());
    expect_answer(&mut h2, 1);
}

/// http2/4.2/2
fn s4_2_data_above_the_frame_size_is_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    let most = h2.peer(setting::MAX_FRAME_SIZE).expect("a size") as usize;
    h2.send(&Frame::headers(1, post_block(&h2)));
    h2.send(&Frame::data(1, vec![b'x'; most + 1]).end());
    h2.expect_stream_error(1, &[Code::FRAME_SIZE_ERROR]);
}

/// http2/4.2/3
fn s4_2_headers_above_the_frame_size_are_a_frame_size_error(server: &Server) {
    let mut h2 = server.connect();
    let most = h2.peer(setting::MAX_FRAME_SIZE).expect("a size") as usize;
    let mut block = get_block(&h2);
    while block.len() <= most {
        block.extend(long_field());
    }
    h2.send(&Frame::headers(1, block).end());
    h2.expect_connection_error(&[Code::FRAME_SIZE_ERROR]);
}

/// http2/4.3/1
fn s4_3_a_broken_field_block_is_a_compression_error(server: &Server) {
    let mut h2 = server.connect();
    // A literal without its strings.
    h2.send(&Frame::headers(1, [0x40]).end());
    h2.expect_connection_error(&[Code::COMPRESSION_ERROR, UNSPECIFIC]);
}

/// http2/4.3/2
fn s4_3_priority_inside_a_field_block_is_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::headers_begun(1, get_block(&h2)));
    h2.send(&Frame::priority(1, 0, 255));
    h2.send(&Frame::continuation(1, long_field()));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}

/// http2/4.3/3
fn s4_3_headers_of_another_stream_inside_a_field_block_are_a_protocol_error(server: &Server) {
    let mut h2 = server.connect();
    h2.send(&Frame::new(kind::HEADERS, flag::NONE, 1, get_block(&h2)));
    h2.send(&Frame { stream: 3, ..get_frame(&h2) });
    h2.send(&Frame::continuation(1, hpack::plain(&[("x-test", "ok")])));
    h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
}
