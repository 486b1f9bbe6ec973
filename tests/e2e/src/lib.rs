//! End-to-end tests live in `tests/e2e/`: one program, one lab a test. They need root, and the programs that
//! `cargo xtask test` builds first.
#![forbid(unsafe_code)]
