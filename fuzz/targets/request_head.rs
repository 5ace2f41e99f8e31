//! A request head from an untrusted client.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::http1::fuzz::request_head(octets));
