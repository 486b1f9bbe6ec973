//! `cargo xtask fuzz requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::requests::target(data));
