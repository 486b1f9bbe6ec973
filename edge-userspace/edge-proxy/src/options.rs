//! What the operator sets about the proxy itself; all else comes with the Snapshot.

use std::net::SocketAddr;
use std::time::Duration;

pub use edge_model::{
    ClientLimits as Limits, ClientTimeouts as Timeouts, Http2Limits, PathPolicy, ProxyProtocolIn,
};

use crate::AccessLog;

/// Options of the proxy.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Gateway workers: threads with a runtime and listening sockets of their own.
    pub workers: u16,
    /// Pins worker n to the n-th core that the process may use.
    pub pin_to_cores: bool,
    /// What is logged of each request; `None` nothing.
    pub access_log: Option<AccessLog>,
    /// Proxies in front of this one (Istio `gatewayTopology.numTrustedProxies`): so many addresses from the right of
    /// x-forwarded-for are believed, and the client's x-request-id is kept.
    pub trusted_proxies: u32,
    /// Bounds on what a client may keep open.
    pub timeouts: Timeouts,
    /// Bounds on what a client may send.
    pub limits: Limits,
    /// What is made of paths.
    pub paths: PathPolicy,
    /// Which connections begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocolIn,
    /// Bounds of the whole process.
    pub bounds: Bounds,
    /// How names of endpoints are resolved.
    pub dns: DnsOptions,
}

impl ProxyOptions {
    /// So many workers, and defaults for the rest.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        Self {
            workers,
            pin_to_cores: false,
            access_log: None,
            trusted_proxies: 0,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            paths: PathPolicy::default(),
            proxy_protocol: ProxyProtocolIn::default(),
            bounds: Bounds::default(),
            dns: DnsOptions::default(),
        }
    }
}

/// Bounds of the whole process. New work is refused at them, what is under way goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of clients that are open at once; further ones take the place of clients that are slow to ask, or are
    /// closed as they are accepted.
    pub max_connections: usize,
    /// Resident memory in bytes. From 95 % of it on requests are answered with 503 (flag OM), at it connections are
    /// closed as they are accepted; `None` is no bound.
    pub max_memory: Option<u64>,
    /// Files that the process may open (RLIMIT_NOFILE). Connections of clients do not get the last eighth of them: it is for
    /// endpoints, without which those that are there could not be served; `None` is no bound.
    pub max_files: Option<u64>,
    /// A kept-alive connection without a request, and a request's head on its way, from 80 % of any bound on. Clients
    /// that are at work ask again within it.
    pub idle_in_haste: Duration,
}

impl Default for Bounds {
    /// None.
    fn default() -> Self {
        Self {
            max_connections: usize::MAX,
            max_memory: None,
            max_files: None,
            idle_in_haste: Duration::from_secs(10),
        }
    }
}

/// How names of endpoints are resolved (`resolution: DNS`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsOptions {
    /// Servers that are asked; none stands for those of /etc/resolv.conf.
    pub name_servers: Vec<SocketAddr>,
    /// An answer is used for at least this long, whatever its TTL.
    pub min_ttl: Duration,
    /// An answer is asked for again after this time at the latest.
    pub max_ttl: Duration,
    /// Time for one question to one server.
    pub timeout: Duration,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            name_servers: vec![],
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
        }
    }
}
