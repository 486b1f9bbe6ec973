//! `cargo xtask fuzz frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::frames::target(data));
