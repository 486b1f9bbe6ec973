//! `cargo xtask fuzz proxy_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::proxy_header::target(data));
