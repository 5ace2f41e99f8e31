//! The text of a configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ebbtide::config::fuzz::load(octets));
