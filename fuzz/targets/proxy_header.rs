//! The first octets of a connection from a trusted proxy.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::net::fuzz::proxy_header(octets));
