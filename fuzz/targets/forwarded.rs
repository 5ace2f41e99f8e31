//! A request, and what the app server would be sent of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::proxy::fuzz::forwarded(octets));
