//! `cargo xtask fuzz hosts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge_fuzz::hosts::target(data));
