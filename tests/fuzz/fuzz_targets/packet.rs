//! `cargo xtask fuzz packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::packet::target(data));
