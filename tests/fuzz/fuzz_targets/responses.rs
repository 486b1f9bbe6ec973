//! `cargo xtask fuzz responses`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::responses::target(data));
