//! A response, and what the client would be sent of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::proxy::fuzz::answered(octets));
