//! The validated vocabulary of the load balancer and the [`Snapshot`] that a running edge serves.
//!
//! Everything here is a plain value that was checked when it was made: no serde, no clock, no IO. `edge-control`
//! compiles the user's resources into a [`Snapshot`]; `edge-routing`, `edge-upstream` and `edge-proxy` read its
//! tier 2 half, `edge-datapath` reconciles its tier 1 half into BPF maps.
#![forbid(unsafe_code)]

mod client;
mod cluster;
mod datapath;
mod format;
mod host;
mod listener;
mod matching;
mod object;
mod pattern;
mod policy;
mod prefix;
mod rate_limit;
mod route;
mod shared_map;
mod snapshot;
mod tcp;
mod tls;
mod tunnel;
mod virtual_hosts;

pub use client::{
    ClientLimits, ClientTimeouts, EscapedSlashes, Http2Limits, PathNormalization, PathPolicy, ProxyProtocolIn,
};
pub use cluster::{
    CircuitBreakers, Cluster, ClusterName, ConnectionPool, ConsistentHash, Discovery, DnsEndpoint, Endpoint,
    HashAlgorithm, HashCookie, HashKey, Http2Keepalive, LoadBalancer, LocalityPolicy, OutlierDetection,
    ProxyProtocolVersion, RetryBudget, SlowStart, TcpKeepalive, UpstreamProtocol, WorkloadMeta,
};
pub use datapath::{
    Connections, DataPathConfig, FloodLimits, ForwardMode, HealthCheck, Measure, Member, MemberState,
    Penalty, PenaltyPolicy, PenaltyReason, PenaltyScope, Pool, Probe, Protocol, SourceLists, Spread,
    SynCookies, TokenRate, Tunnel, Unserved, Vip, Worker, WorkerId, WorkerKind,
};
pub use format::{
    Field, FieldRef, FormatCommand, FormatError, FormatPart, FormatString, FormatValue, HeaderTemplate,
};
pub use host::{HostPattern, HostPatternError};
pub use listener::{
    ListenAddress, Listener, ListenerProtocol, RouteTable, TlsServer, TlsService, VirtualHost,
};
pub use matching::{ClaimMatch, HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch};
pub use object::{Kind, ObjectRef};
pub use pattern::{Pattern, PatternError};
pub use policy::{
    AbortStatus, CorsPolicy, Fault, FaultAbort, FaultDelay, GRPC_STATUSES, Mirror, RetryCondition, RetryOn,
    RetryPolicy,
};
pub use prefix::{NotAPrefix, Prefix};
pub use rate_limit::{
    DescriptorBucket, Fraction, LocalRateLimit, RateLimitAction, RateLimitDescriptor, RateLimitEntry,
    TokenBucket,
};
pub use route::{
    DirectResponse, Forward, HeaderEdit, HeaderOps, Redirect, RedirectPath, RedirectPort, Rewrite,
    RewritePath, Route, RouteAction, WeightedDestination,
};
pub use shared_map::{Change, SharedMap};
pub use snapshot::Snapshot;
pub use tcp::{TcpRoute, WeightedCluster};
pub use tls::{
    Alpn, Certificate, ClientAuth, PeerVerification, ServerTls, ServerVerification, TlsVersion, UpstreamTls,
};
pub use tunnel::{TunnelRole, Tunnels};
pub use virtual_hosts::{HostChange, VirtualHosts};
