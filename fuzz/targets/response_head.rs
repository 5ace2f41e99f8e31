//! A response head from an application.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::http1::fuzz::response_head(octets));
