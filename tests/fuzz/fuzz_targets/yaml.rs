//! `cargo xtask fuzz yaml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::yaml::target(data));
