//! A packet of a handoff, behind the number of its descriptors.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::handoff::fuzz::message(octets));
