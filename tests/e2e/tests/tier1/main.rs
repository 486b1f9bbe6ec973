//! Tier 1 end to end: two load balancers that run edge, workers that run edge and servers, real TCP and UDP.
//!
//! One module a concern. Every test makes a fabric of its own, and a test that lacks root or a kernel feature fails.
#![forbid(unsafe_code)]

mod carried;
mod change;
mod cookies;
mod fresh;
mod health;
mod kept;
mod loss;
mod modes;
mod neighbours;
mod pressure;
mod restart;
mod ways;
