//! WebSocket frames, events and gRPC messages as they pass.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::stream::fuzz::follow(octets));
