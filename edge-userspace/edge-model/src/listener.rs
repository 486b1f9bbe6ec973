//! Listeners: a port, its TLS servers and its route tables.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::{HostPattern, LocalRateLimit, ObjectRef, Route, ServerTls, TcpRoute, VirtualHosts};

/// A port that every gateway worker listens on.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Istio's name, such as `0.0.0.0_80`.
    pub name: String,
    /// `bind`: the only address that is listened on; `None` for every one.
    pub bind: Option<IpAddr>,
    /// Port that is listened on.
    pub port: u16,
    /// Whether connections begin with a PROXY protocol header (either version), which is then required.
    pub proxy_protocol: bool,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
}

/// What a listener listens on. Of two on one port, who connects to the address of one gets that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenAddress {
    /// The only address; `None` for every one.
    pub bind: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl From<u16> for ListenAddress {
    /// The port on every address.
    fn from(port: u16) -> Self {
        Self { bind: None, port }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bind {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, "port {}", self.port),
        }
    }
}

impl Listener {
    /// What is listened on.
    #[must_use]
    pub fn address(&self) -> ListenAddress {
        ListenAddress {
            bind: self.bind,
            port: self.port,
        }
    }

    /// A listener on every address of the node, under Istio's name.
    #[must_use]
    pub fn new(port: u16, protocol: ListenerProtocol) -> Self {
        Self {
            name: format!("0.0.0.0_{port}"),
            bind: None,
            port,
            proxy_protocol: false,
            protocol,
        }
    }

    /// All route tables of the listener.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        let (plain, servers): (_, &[Arc<TlsServer>]) = match &self.protocol {
            ListenerProtocol::Http(table) => (Some(table), &[]),
            ListenerProtocol::Tls(servers) => (None, servers),
            ListenerProtocol::Tcp(_) => (None, &[]),
        };
        plain
            .into_iter()
            .chain(servers.iter().filter_map(|server| server.routes()))
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP in plain text; all servers of the port share one route table.
    Http(Arc<RouteTable>),
    /// TLS; the server is chosen by SNI: exact name first, then the longest wildcard, then `*`.
    Tls(Vec<Arc<TlsServer>>),
    /// Bytes that are forwarded as they are.
    Tcp(Arc<TcpRoute>),
}

/// Server names of a TLS listener, and what is done with their connections.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsServer {
    /// Gateway that it comes from.
    pub gateway: ObjectRef,
    /// Server names (SNI) that it takes; disjoint from those of the other servers of its listener.
    pub hosts: Vec<HostPattern>,
    /// What is done.
    pub service: TlsService,
}

/// What a TLS server does with a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum TlsService {
    /// TLS ends here, and HTTP is spoken inside.
    Http {
        /// How TLS ends.
        tls: ServerTls,
        /// Routes of requests that come in by this server.
        routes: Arc<RouteTable>,
    },
    /// TLS ends here, and the bytes inside are forwarded.
    Tcp {
        /// How TLS ends.
        tls: ServerTls,
        /// Where the bytes go.
        route: Arc<TcpRoute>,
    },
    /// The connection is forwarded as it is.
    Passthrough {
        /// Where it goes.
        route: Arc<TcpRoute>,
    },
}

impl TlsServer {
    /// How TLS ends, unless it passes through.
    #[must_use]
    pub fn tls(&self) -> Option<&ServerTls> {
        match &self.service {
            TlsService::Http { tls, .. } | TlsService::Tcp { tls, .. } => Some(tls),
            TlsService::Passthrough { .. } => None,
        }
    }

    /// The route table, when HTTP is spoken inside.
    #[must_use]
    pub fn routes(&self) -> Option<&Arc<RouteTable>> {
        match &self.service {
            TlsService::Http { routes, .. } => Some(routes),
            TlsService::Tcp { .. } | TlsService::Passthrough { .. } => None,
        }
    }

    /// Where connections go that are not HTTP.
    #[must_use]
    pub fn tcp_route(&self) -> Option<&Arc<TcpRoute>> {
        match &self.service {
            TlsService::Tcp { route, .. } | TlsService::Passthrough { route } => Some(route),
            TlsService::Http { .. } => None,
        }
    }
}

/// Virtual hosts of one listener or TLS server.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTable {
    /// Istio's name: `http.<port>` or `https.<port>.<port name>.<gateway>.<namespace>`.
    pub name: String,
    /// Virtual hosts by domain.
    pub virtual_hosts: VirtualHosts,
    /// Local rate limit for requests that take no route.
    pub rate_limit: Option<Arc<LocalRateLimit>>,
}

impl RouteTable {
    /// A table without a rate limit.
    pub fn new(name: impl Into<String>, hosts: impl IntoIterator<Item = Arc<VirtualHost>>) -> Self {
        Self {
            name: name.into(),
            virtual_hosts: hosts.into_iter().collect(),
            rate_limit: None,
        }
    }
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

impl VirtualHost {
    /// A virtual host without routes, under Istio's name for a port that the Gateway declares.
    #[must_use]
    pub fn new(domain: HostPattern, port: u16) -> Self {
        Self {
            name: format!("{domain}:{port}"),
            domain,
            require_tls: false,
            routes: vec![],
        }
    }
}
