//! RFC 7541: the forms of fields that a server has to read, and what it must not.

use crate::server::{Server, UNSPECIFIC, expect_answer, get_block};
use crate::support::h2::frame::setting;
use crate::support::h2::hpack::{self, Indexing};
use crate::support::h2::{Code, Frame};

over_both! {
    s6_1_an_indexed_field_is_accepted,
    s6_2_1_an_indexed_name_with_incremental_indexing_is_accepted,
    s6_2_1_an_indexed_name_with_incremental_indexing_in_huffman_is_accepted,
    s6_2_1_a_new_name_with_incremental_indexing_is_accepted,
    s6_2_1_a_new_name_with_incremental_indexing_in_huffman_is_accepted,
    s6_2_2_an_indexed_name_without_indexing_is_accepted,
    s6_2_2_an_indexed_name_without_indexing_in_huffman_is_accepted,
    s6_2_2_a_new_name_without_indexing_is_accepted,
    s6_2_2_a_new_name_without_indexing_in_huffman_is_accepted,
    s6_2_3_an_indexed_name_never_indexed_is_accepted,
    s6_2_3_an_indexed_name_never_indexed_in_huffman_is_accepted,
    s6_2_3_a_new_name_never_indexed_is_accepted,
    s6_2_3_a_new_name_never_indexed_in_huffman_is_accepted,
    s6_3_a_table_size_update_is_accepted,
    s6_3_two_table_size_updates_are_accepted,
    s2_3_3_an_indexed_field_of_no_entry_is_a_compression_error,
    s2_3_3_a_literal_named_by_no_entry_is_a_compression_error,
    s4_2_a_table_size_update_behind_the_fields_is_a_compression_error,
    s5_2_huffman_padding_of_more_than_seven_bits_is_a_compression_error,
    s5_2_huffman_padding_of_zeros_is_a_compression_error,
    s5_2_the_end_of_string_in_huffman_is_a_compression_error,
    s6_1_index_zero_is_a_compression_error,
    s6_3_a_table_size_above_the_setting_is_a_compression_error,
}

/// The place of `user-agent` in the static table.
const USER_AGENT: usize = 58;

/// generic/5/1
fn s6_1_an_indexed_field_is_accepted(server: &Server) {
    // One from the static table, and one that the block itself has entered.
    let accept_encoding = hpack::indexed(16);
    let new = hpack::literal(Indexing::Incremental, "x-indexed", "script");
    let block = [accept_encoding, new, hpack::indexed(62)].concat();
    accepts(server, "/indexed", &block, "accept-encoding", "gzip, deflate");
}

/// generic/5/2
fn s6_2_1_an_indexed_name_with_incremental_indexing_is_accepted(server: &Server) {
    let field = hpack::literal_named(Indexing::Incremental, USER_AGENT, "script");
    accepts(server, "/incremental/named", &field, "user-agent", "script");
}

/// generic/5/3
fn s6_2_1_an_indexed_name_with_incremental_indexing_in_huffman_is_accepted(server: &Server) {
    let field = hpack::literal_named_huffman(Indexing::Incremental, USER_AGENT, "script");
    accepts(server, "/incremental/named/huffman", &field, "user-agent", "script");
}

/// generic/5/4
fn s6_2_1_a_new_name_with_incremental_indexing_is_accepted(server: &Server) {
    let field = hpack::literal(Indexing::Incremental, "x-test", "script");
    accepts(server, "/incremental/new", &field, "x-test", "script");
}

/// generic/5/5
fn s6_2_1_a_new_name_with_incremental_indexing_in_huffman_is_accepted(server: &Server) {
    let field = hpack::literal_huffman(Indexing::Incremental, "x-test", "script");
    accepts(server, "/incremental/new/huffman", &field, "x-test", "script");
}

/// generic/5/6
fn s6_2_2_an_indexed_name_without_indexing_is_accepted(server: &Server) {
    let field = hpack::literal_named(Indexing::Without, USER_AGENT, "script");
    accepts(server, "/without/named", &field, "user-agent", "script");
}

/// generic/5/7
fn s6_2_2_an_indexed_name_without_indexing_in_huffman_is_accepted(server: &Server) {
    let field = hpack::literal_named_huffman(Indexing::Without, USER_AGENT, "script");
    accepts(server, "/without/named/huffman", &field, "user-agent", "script");
}

/// generic/5/8
fn s6_2_2_a_new_name_without_indexing_is_accepted(server: &Server) {
    let field = hpack::literal(Indexing::Without, "x-test", "script");
    accepts(server, "/without/new", &field, "x-test", "script");
}

/// generic/5/9
fn s6_2_2_a_new_name_without_indexing_in_huffman_is_accepted(server: &Server) {
    let field = hpack::literal_huffman(Indexing::Without, "x-test", "script");
    accepts(server, "/without/new/huffman", &field, "x-test", "script");
}

/// generic/5/10
fn s6_2_3_an_indexed_name_never_indexed_is_accepted(server: &Server) {
    let field = hpack::literal_named(Indexing::Never, USER_AGENT, "script");
    accepts(server, "/never/named", &field, "user-agent", "script");
}

/// generic/5/11
fn s6_2_3_an_indexed_name_never_indexed_in_huffman_is_accepted(server: &Server) {
    let field = hpack::literal_named_huffman(Indexing::Never, USER_AGENT, "script");
    accepts(server, "/never/named/huffman", &field, "user-agent", "script");
}

/// generic/5/12
fn s6_2_3_a_new_name_never_indexed_is_accepted(server: &Server) {
    let field = hpack::literal(Indexing::Never, "x-test", "script");
    accepts(server, "/never/new", &field, "x-test", "script");
}

/// generic/5/13
fn s6_2_3_a_new_name_never_indexed_in_huffman_is_accepted(server: &Server) {
    let field = hpack::literal_huffman(Indexing::Never, "x-test", "script");
    accepts(server, "/never/new/huffman", &field, "x-test", "script");
}

/// A GET with these octets behind its pseudo-header fields is answered, and passed on
/// with the field that they mean.
#[track_caller]
fn accepts(server: &Server, path: &str, octets: &[u8], name: &str, value: &str) {
    let mut h2 = server.connect();
    let path = format!("{path}/{}", h2.scheme());
    let block = [&hpack::plain(&h2.pseudo("GET", &path))[..], octets].concat();
    h2.send(&Frame::headers(1, block).end());
    expect_answer(&mut h2, 1);
    server.passed_on(&path, name, value);
}

/// generic/5/14
fn s6_3_a_table_size_update_is_accepted(server: &Server) {
    accepts_behind(server, &hpack::size_update(128));
}

/// generic/5/15
fn s6_3_two_table_size_updates_are_accepted(server: &Server) {
    accepts_behind(server, &[hpack::size_update(128), hpack::size_update(4096)].concat());
}

/// A GET with these octets before its fields is answered.
#[track_caller]
fn accepts_behind(server: &Server, octets: &[u8]) {
    let mut h2 = server.connect();
    let block = [octets, &get_block(&h2)].concat();
    h2.send(&Frame::headers(1, block).end());
    expect_answer(&mut h2, 1);
}

/// hpack/2.3.3/1
fn s2_3_3_an_indexed_field_of_no_entry_is_a_compression_error(server: &Server) {
    refuses(server, &hpack::indexed(70));
}

/// hpack/2.3.3/2
fn s2_3_3_a_literal_named_by_no_entry_is_a_compression_error(server: &Server) {
    refuses(server, &hpack::literal_named(Indexing::Incremental, 70, ""));
}

/// hpack/4.2/1
fn s4_2_a_table_size_update_behind_the_fields_is_a_compression_error(server: &Server) {
    refuses(server, &hpack::size_update(1));
}

/// hpack/5.2/1
fn s5_2_huffman_padding_of_more_than_seven_bits_is_a_compression_error(server: &Server) {
    let mut value = hpack::huffman(b"test");
    value.push(0xff);
    refuses(server, &huffman_value(&value));
}

/// hpack/5.2/2
fn s5_2_huffman_padding_of_zeros_is_a_compression_error(server: &Server) {
    // 20 bits of code, then four of padding.
    let mut value = hpack::huffman(b"test");
    let last = value.pop().expect("three octets");
    value.push(last & 0xf0);
    refuses(server, &huffman_value(&value));
}

/// hpack/5.2/3
fn s5_2_the_end_of_string_in_huffman_is_a_compression_error(server: &Server) {
    // "tes", the 30 bits of the end of string, "t", and padding.
    refuses(server, &huffman_value(b"\x49\x51\xff\xff\xff\xfa\x7f"));
}

/// A field whose value is these octets, said to be Huffman code.
fn huffman_value(octets: &[u8]) -> Vec<u8> {
    let len = hpack::integer(0x80, 7, octets.len());
    [&[0x00], &hpack::huffman_string("x-test")[..], &len, octets].concat()
}

/// hpack/6.1/1
fn s6_1_index_zero_is_a_compression_error(server: &Server) {
    refuses(server, &hpack::indexed(0));
}

/// A GET with these octets behind its fields is a connection error.
#[track_caller]
fn refuses(server: &Server, octets: &[u8]) {
    let mut h2 = server.connect();
    let block = [&get_block(&h2)[..], octets].concat();
    h2.send(&Frame::headers(1, block).end());
    h2.expect_connection_error(&[Code::COMPRESSION_ERROR, UNSPECIFIC]);
}

/// hpack/6.3/1
fn s6_3_a_table_size_above_the_setting_is_a_compression_error(server: &Server) {
    let mut h2 = server.connect();
    let most = h2.peer(setting::HEADER_TABLE_SIZE).expect("a size") as usize;
    let block = [hpack::size_update(most + 1), get_block(&h2)].concat();
    h2.send(&Frame::headers(1, block).end());
    h2.expect_connection_error(&[Code::COMPRESSION_ERROR, UNSPECIFIC]);
}
