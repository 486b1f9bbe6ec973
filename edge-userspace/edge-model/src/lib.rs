//! The validated vocabulary of the load balancer and the [`Snapshot`] that a running edge serves.
//!
//! Everything here is a plain value that was checked when it was made: no serde, no clock, no IO. `edge-control`
//! compiles the user's resources into a [`Snapshot`]; `edge-routing`, `edge-upstream` and `edge-proxy` read its
//! tier 2 half, `edge-datapath` reconciles its tier 1 half into BPF maps.
#![forbid(unsafe_code)]

mod cluster;
mod datapath;
mod host;
mod listener;
mod matching;
mod object;
mod pattern;
mod rate_limit;
mod route;
mod snapshot;

pub use cluster::{Cluster, ClusterName, Endpoint, LoadBalancer, WorkloadMeta};
pub use datapath::{
    DataPathConfig, FloodLimits, Penalty, PenaltyPolicy, PenaltyReason, Protocol, TokenRate, Vip, Worker,
    WorkerId, WorkerKind,
};
pub use host::{HostPattern, HostPatternError};
pub use listener::{Certificate, Listener, ListenerProtocol, RouteTable, TlsServer, TlsVersion, VirtualHost};
pub use matching::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch};
pub use object::{Kind, ObjectRef};
pub use pattern::{Pattern, PatternError};
pub use rate_limit::{
    DescriptorBucket, Fraction, LocalRateLimit, RateLimitAction, RateLimitDescriptor, RateLimitEntry,
    TokenBucket,
};
pub use route::{
    DirectResponse, Forward, HeaderEdit, HeaderOps, Redirect, RedirectPath, RedirectPort, Rewrite,
    RewritePath, Route, RouteAction, WeightedDestination,
};
pub use snapshot::Snapshot;
