//! Which endpoint a request goes to, whether it may go at all, and what its failure means.
//!
//! Nothing here reads a clock, draws from a global generator or does IO: the time and the generator are arguments,
//! and effects (a [`Penalty`](edge_model::Penalty), a [`retry::Verdict`]) are returned for `edge-proxy` to carry out.
//! What workers share (active requests, token buckets) is atomic or behind sharded locks that are held for a look-up.
#![forbid(unsafe_code)]

pub mod balance;
pub mod circuit;
mod escalation;
mod generations;
pub mod health;
mod load;
pub mod outlier;
pub mod rate_limit;
pub mod retry;

pub use balance::{Balancer, Pick};
pub use escalation::Escalation;
pub use load::{ActiveRequest, ClusterLoad, EndpointLoad};
