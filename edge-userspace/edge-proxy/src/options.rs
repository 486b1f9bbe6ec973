//! What the operator sets about the proxy itself; all else comes with the Snapshot.

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
        }
    }
}
