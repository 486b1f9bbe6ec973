//! What the operator sets about the proxy itself; all else comes with the Snapshot.

use std::time::Duration;

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
        }
    }
}

/// How long a client may take.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// From the first to the last byte of a request head, and from accepting a connection to its first byte. Short
    /// against slow heads (slowloris), long enough for a phone in a tunnel.
    pub header: Duration,
    /// TLS handshake (Envoy `transport_socket_connect_timeout` as Istio sets it).
    pub handshake: Duration,
    /// A kept-alive connection without a request (Istio's edge profile).
    pub idle: Duration,
    /// A client that takes nothing of its response (Envoy `stream_idle_timeout`).
    pub stalled: Duration,
    /// A kept-alive connection without a request, once the proxy drains. Clients that were about to send are still
    /// served, and told to close.
    pub drain_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(20),
            handshake: Duration::from_secs(15),
            idle: Duration::from_secs(3600),
            stalled: Duration::from_secs(300),
            drain_idle: Duration::from_secs(1),
        }
    }
}
