//! Listeners: a port, its TLS servers and its route tables.

use std::sync::Arc;

use crate::{HostPattern, LocalRateLimit, ObjectRef, Route};

/// A port that every gateway worker listens on.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Istio's name, such as `0.0.0.0_80`.
    pub name: String,
    /// Port that is listened on.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP in plain text; all servers of the port share one route table.
    Http(Arc<RouteTable>),
    /// TLS; the server is chosen by SNI: exact name first, then the longest wildcard, then `*`.
    Https(Vec<Arc<TlsServer>>),
}

/// One TLS server of a Gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsServer {
    /// Gateway that it comes from.
    pub gateway: ObjectRef,
    /// Server names (SNI) that it takes; disjoint from those of the other servers of its listener.
    pub hosts: Vec<HostPattern>,
    /// Certificate and key; `None` when they could not be read: handshakes for these names then fail, others go on.
    pub certificate: Option<Arc<Certificate>>,
    /// Lowest version accepted.
    pub min_version: TlsVersion,
    /// Highest version accepted.
    pub max_version: TlsVersion,
    /// Routes of requests that come in by this server.
    pub routes: Arc<RouteTable>,
}

/// TLS versions that the edge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Certificate chain and private key in PEM, read and checked to belong together.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Chain, the server's own certificate first.
    pub chain_pem: Vec<u8>,
    /// Private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    /// Leaves the key out, so that no log ever shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_bytes", &self.chain_pem.len())
            .finish_non_exhaustive()
    }
}

/// Virtual hosts of one listener or TLS server.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTable {
    /// Istio's name: `http.<port>` or `https.<port>.<port name>.<gateway>.<namespace>`.
    pub name: String,
    /// Virtual hosts; no two have the same domain. A host takes the exact one, else that with the longest suffix,
    /// else `*`, and never a second one.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Local rate limit for requests that take no route.
    pub rate_limit: Option<Arc<LocalRateLimit>>,
}

/// Routes of one domain.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Istio's name: `<domain>:<port>`.
    pub name: String,
    /// Hosts that it takes, compared without case and port.
    pub domain: HostPattern,
    /// `httpsRedirect`: every request is answered with a 301 to `https`.
    pub require_tls: bool,
    /// Routes; the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
}
