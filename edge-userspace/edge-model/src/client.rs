//! What clients of the gateway may do, and for how long: the operator's bounds.

use std::net::IpAddr;
use std::time::Duration;

use crate::Prefix;

/// How long a client may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first to the last byte of a request head, and from accepting a connection to its first byte. Short
    /// against slow heads (slowloris), long enough for a phone in a tunnel.
    pub header: Duration,
    /// TLS handshake (Envoy `transport_socket_connect_timeout` as Istio sets it).
    pub handshake: Duration,
    /// A kept-alive connection without a request (Istio's edge profile).
    pub idle: Duration,
    /// A client that takes nothing of its response (Envoy `stream_idle_timeout`).
    pub stalled: Duration,
    /// A client of HTTP/2 that has opened its window for no octet of any of its responses.
    pub window: Duration,
    /// A client that sends nothing of its request's body, while it is waited for. Requests of gRPC may be silent for as
    /// long as `stalled`, and those of HTTP/2 that are answered before they have ended, for ever.
    pub body: Duration,
    /// A kept-alive connection without a request, once the proxy drains. Clients that were about to send are still
    /// served, and told to close.
    pub drain_idle: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(20),
            handshake: Duration::from_secs(15),
            idle: Duration::from_secs(3600),
            stalled: Duration::from_secs(300),
            window: Duration::from_secs(10),
            body: Duration::from_secs(60),
            drain_idle: Duration::from_secs(1),
        }
    }
}

/// How much a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Octets of a request's head; of HTTP/2 its decoded fields with 32 more for each (431).
    pub head: u32,
    /// Fields of a request's head (Envoy `max_headers_count`; 431).
    pub fields: u32,
    /// Octets of a request's target (414).
    pub target: u32,
    /// Octets a second that a client must send of a body whose length it has told, while it is waited for, measured over
    /// [`ClientLimits::BODY_WINDOW`]. Of one whose length it has not told, over HTTP/2, the same is asked over
    /// [`ClientTimeouts::body`], unless that is longer, as long as it is not answered and is not gRPC.
    pub body_rate: u32,
    /// Octets a second that a client of HTTP/2 must take of a response, while that waits for its window, if it takes
    /// any: measured over three times [`ClientLimits::BODY_WINDOW`]. Who pauses takes none.
    pub response_rate: u32,
    /// Requests that a client may have open at once on one connection of HTTP/2 (Istio's edge profile).
    pub streams: u32,
    /// Bounds on floods over HTTP/2.
    pub http2: Http2Limits,
}

impl ClientLimits {
    /// Over how long the rate of a body is measured.
    pub const BODY_WINDOW: Duration = Duration::from_secs(10);
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head: 64 * 1024,
            fields: 100,
            target: 16 * 1024,
            body_rate: 100,
            response_rate: 100,
            streams: 100,
            http2: Http2Limits::default(),
        }
    }
}

/// What one connection of HTTP/2 may send within 10 s that asks for nothing. Requests and responses add to it, as said;
/// more ends the connection with ENHANCE_YOUR_CALM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// SETTINGS, PING, PRIORITY, unknown frames and DATA without a body; two more for each request, and one for each DATA
    /// that the client was sent.
    pub control_frames: u32,
    /// WINDOW_UPDATE; four more for each request and for each DATA that the client was sent.
    pub window_updates: u32,
    /// Streams that the client resets before their response has begun; one more for two responses that ended. Four
    /// times as many may be reset later. (CVE-2023-44487)
    pub resets: u32,
    /// Streams that the gateway has to reset for what the client does on them (CVE-2025-8671), and heads that repeat
    /// fields of the compression's table many times over.
    pub errors: u32,
    /// Streams that are refused because too many are open.
    pub refusals: u32,
}

impl Default for Http2Limits {
    /// Browsers stay far below.
    fn default() -> Self {
        Self {
            control_frames: 200,
            window_updates: 200,
            resets: 100,
            errors: 20,
            refusals: 200,
        }
    }
}

/// What is made of a path before it is matched and sent on (Istio `meshConfig.pathNormalization.normalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathNormalization {
    /// Nothing.
    None,
    /// Dot segments are removed, escapes of unreserved characters decoded, backslashes become slashes (Envoy
    /// `normalize_path`).
    #[default]
    Base,
    /// The same, and repeated slashes become one (Envoy `merge_slashes`).
    MergeSlashes,
    /// The same, and escaped slashes and backslashes are decoded first.
    DecodeAndMergeSlashes,
}

/// What becomes of `%2f` and `%5c` in a path (Envoy `path_with_escaped_slashes_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// The request is answered with 400.
    Reject,
    /// They are decoded, and the client is sent to the new path (307).
    UnescapeAndRedirect,
    /// They are decoded.
    UnescapeAndForward,
}

/// What is made of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathPolicy {
    /// What is made of the path as a whole.
    pub normalization: PathNormalization,
    /// What becomes of escaped slashes.
    pub escaped_slashes: EscapedSlashes,
}

/// Which connections begin with a header of the PROXY protocol (either version), which tells the client's address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyProtocolIn {
    /// Addresses of the proxies in front. From them the header is required, and from nobody else it is taken.
    pub from: Vec<Prefix>,
    /// Ports that are listened on; none stands for all.
    pub ports: Vec<u16>,
}

impl ProxyProtocolIn {
    /// Whether a connection from `peer` to `port` begins with a header.
    #[must_use]
    pub fn applies(&self, port: u16, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let is_port = self.ports.is_empty() || self.ports.contains(&port);
        is_port && self.from.iter().any(|prefix| prefix.contains(peer))
    }
}
