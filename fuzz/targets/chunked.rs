//! A chunked body, from either side.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::http1::fuzz::chunked(octets));
