//! End to end: edge with real XDP in network namespaces, real clients and real backends.
//!
//! One program, so that it links once; one module a concern. Every test makes a lab of its own, and a test that lacks
//! root or a kernel feature fails.
#![forbid(unsafe_code)]

mod change;
mod commands;
mod failure;
mod fixture;
mod flood;
mod packets;
mod restart;
mod samples;
mod traffic;
