//! A Snapshot made ready to serve: indexes, TLS configurations, limiters and loads. Shared by all workers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use edge_model::{
    Change, Cluster, ClusterName, ListenAddress, Listener, ListenerProtocol, RouteTable, SharedMap, Snapshot,
    TcpRoute, TlsServer,
};
use edge_routing::{SniIndex, Table};
use edge_upstream::rate_limit::Limiters;
use edge_upstream::{ClusterLoad, Escalation};
use foldhash::fast::FixedState;
use rustls::ServerConfig;

use crate::dns::{Answers, names_of};
use crate::facts::Facts;
use crate::tls::{self, ClientTls};
use crate::{ClusterStatus, EndpointStatus};

/// What the workers serve. Parts that a new Snapshot leaves as they were are taken over: tables, tickets, token
/// buckets, counts of refusals and of active requests.
pub(crate) struct Config {
    /// A security policy is for this gateway and cannot be enforced: nothing is let in.
    pub(crate) is_closed: bool,
    listeners: HashMap<ListenAddress, Served, FixedState>,
    /// Counts the configurations of this process.
    pub(crate) generation: u64,
    /// Shares with the configuration before what did not change.
    pub(crate) clusters: SharedMap<ClusterName, Arc<ClusterConfig>>,
    /// What they were made from.
    models: SharedMap<ClusterName, Arc<Cluster>>,
    pub(crate) limiters: Limiters,
    pub(crate) escalation: Option<Arc<Escalation>>,
    /// Whether a header operation anywhere has format commands.
    pub(crate) has_formats: bool,
    /// Whether endpoints of any cluster are told whose connections they get.
    pub(crate) announces: bool,
    facts: Facts,
}

/// A listener with what it was made from.
#[derive(Clone)]
struct Served {
    model: Arc<Listener>,
    config: Arc<ListenerConfig>,
}

/// A listener by what it speaks.
pub(crate) enum ListenerConfig {
    Http(Arc<Table>),
    Https {
        sni: SniIndex,
        /// In the order of `sni`.
        servers: Vec<TlsEndpoint>,
    },
    Tcp(Arc<TcpRoute>),
}

/// One TLS server.
#[derive(Clone)]
pub(crate) struct TlsEndpoint {
    model: Arc<TlsServer>,
    /// `None` when there is no usable certificate: handshakes for its names fail. Also where TLS passes through.
    pub(crate) handshake: Option<Arc<ServerConfig>>,
    pub(crate) table: Arc<Table>,
}

/// A cluster with the load of its endpoints.
pub(crate) struct ClusterConfig {
    pub(crate) model: Arc<Cluster>,
    /// TLS to the endpoints. `Some(None)` when it cannot be had: no connection is made then.
    pub(crate) tls: Option<Option<Arc<ClientTls>>>,
    pub(crate) load: ClusterLoad,
    /// Addresses that may become endpoints again, see [`Answers::spare`].
    pub(crate) spare: Vec<SocketAddr>,
}

impl Config {
    /// Compiles `snapshot` with the addresses that its names stand for, taking over what `previous` has of it.
    pub(crate) fn new(snapshot: &Snapshot, answers: &Answers, previous: Option<&Self>, now: Instant) -> Self {
        let listeners = snapshot.listeners.iter().filter_map(|listener| {
            let before = previous.and_then(|previous| previous.listeners.get(&listener.address()));
            let config = match before {
                Some(before) if Arc::ptr_eq(&before.model, listener) => Arc::clone(&before.config),
                before => {
                    let before = before.map(|before| &*before.config);
                    Arc::new(ListenerConfig::new(listener, before)?)
                }
            };
            let model = Arc::clone(listener);
            Some((listener.address(), Served { model, config }))
        });
        let clusters = match previous {
            Some(previous) => previous.clusters_after(&snapshot.clusters, answers, now),
            None => {
                let clusters = snapshot.clusters.values();
                let clusters = clusters.map(|cluster| {
                    let config = ClusterConfig::new(cluster, answers, None, now);
                    (cluster.name.clone(), config)
                });
                clusters.collect()
            }
        };
        let announces = match previous {
            Some(previous) if previous.clusters.is_same(&clusters) => previous.announces,
            Some(_) | None => clusters
                .values()
                .any(|cluster| cluster.model.proxy_protocol.is_some()),
        };
        let facts = Facts::after(previous.map(|previous| &previous.facts), snapshot);
        let no_limiters = Limiters::default();
        let limiters = previous.map_or(&no_limiters, |previous| &previous.limiters);
        Self {
            is_closed: !snapshot.unenforced.is_empty(),
            listeners: listeners.collect(),
            clusters,
            models: snapshot.clusters.clone(),
            limiters: limiters.next(facts.rate_limits(), now),
            escalation: escalation(snapshot, previous),
            has_formats: facts.has_formats(),
            announces,
            facts,
            generation: previous.map_or(0, |previous| previous.generation + 1),
        }
    }

    /// The clusters of a later Snapshot: only those that changed are looked at.
    fn clusters_after(
        &self,
        models: &SharedMap<ClusterName, Arc<Cluster>>,
        answers: &Answers,
        now: Instant,
    ) -> SharedMap<ClusterName, Arc<ClusterConfig>> {
        let mut clusters = self.clusters.clone();
        for Change { key, after, .. } in models.changes_since(&self.models, Arc::ptr_eq) {
            let Some(model) = after else {
                clusters.remove(key);
                continue;
            };
            let before = clusters.get(key);
            let cluster = ClusterConfig::new(model, answers, before, now);
            if before.is_none_or(|before| !Arc::ptr_eq(before, &cluster)) {
                clusters.insert(key.clone(), cluster);
            }
        }
        clusters
    }

    /// The same configuration with new answers for some names: `snapshot` is what it was compiled from.
    pub(crate) fn resolved(
        &self,
        snapshot: &Snapshot,
        answers: &Answers,
        news: &[Arc<str>],
        now: Instant,
    ) -> Self {
        let mut clusters = self.clusters.clone();
        let is_news = |name: &str| news.iter().any(|new| **new == *name);
        let concerned = snapshot.clusters.values();
        for cluster in concerned.filter(|cluster| names_of(cluster).any(is_news)) {
            let before = self.clusters.get(&cluster.name);
            let cluster = ClusterConfig::new(cluster, answers, before, now);
            clusters.insert(cluster.model.name.clone(), cluster);
        }
        Self {
            is_closed: self.is_closed,
            listeners: self.listeners.clone(),
            generation: self.generation,
            clusters,
            models: self.models.clone(),
            limiters: self.limiters.clone(),
            escalation: self.escalation.clone(),
            has_formats: self.has_formats,
            announces: self.announces,
            facts: self.facts.clone(),
        }
    }

    /// The listener of an address.
    pub(crate) fn listener(&self, address: ListenAddress) -> Option<&Arc<ListenerConfig>> {
        self.listeners.get(&address).map(|served| &served.config)
    }

    /// What is listened on.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = ListenAddress> + use<'_> {
        self.listeners.keys().copied()
    }
}

impl ListenerConfig {
    /// `None` where connections begin with a PROXY header, which is not read.
    fn new(listener: &Listener, before: Option<&Self>) -> Option<Self> {
        if listener.proxy_protocol {
            return None;
        }
        Some(match &listener.protocol {
            ListenerProtocol::Tcp(route) => Self::Tcp(Arc::clone(route)),
            ListenerProtocol::Http(routes) => {
                let before = match before {
                    Some(Self::Http(table)) => Some(table),
                    Some(Self::Https { .. } | Self::Tcp(_)) | None => None,
                };
                Self::Http(table(routes, before))
            }
            ListenerProtocol::Tls(servers) => {
                let (sni, before) = match before {
                    Some(Self::Https { sni, servers }) => (Some(sni), servers.as_slice()),
                    Some(Self::Http(_) | Self::Tcp(_)) | None => (None, &[][..]),
                };
                let known = KnownEndpoints::new(before);
                Self::Https {
                    sni: SniIndex::after(sni, servers),
                    servers: servers
                        .iter()
                        .map(|server| TlsEndpoint::new(server, &known))
                        .collect(),
                }
            }
        })
    }

    /// The TLS server of a server name, with its number; `None` also on a port without TLS.
    pub(crate) fn tls_endpoint(&self, name: Option<&str>) -> Option<(usize, &TlsEndpoint)> {
        match self {
            Self::Http(_) | Self::Tcp(_) => None,
            Self::Https { sni, servers } => {
                let (number, _) = sni.select(name)?;
                Some((number, servers.get(number)?))
            }
        }
    }

    /// Whether TLS passes through for some server name.
    pub(crate) fn passes_through(&self) -> bool {
        match self {
            Self::Http(_) | Self::Tcp(_) => false,
            Self::Https { servers, .. } => servers.iter().any(|server| server.passes_through()),
        }
    }
}

/// The TLS servers of a listener as they were.
struct KnownEndpoints<'t> {
    all: &'t [TlsEndpoint],
    /// By the place of their model in memory.
    by_model: HashMap<*const TlsServer, &'t TlsEndpoint, FixedState>,
    /// By the name of their table.
    by_table: HashMap<&'t str, &'t TlsEndpoint, FixedState>,
}

impl<'t> KnownEndpoints<'t> {
    fn new(all: &'t [TlsEndpoint]) -> Self {
        let by_model = all.iter().map(|known| (Arc::as_ptr(&known.model), known));
        let by_table = all
            .iter()
            .map(|known| (known.table.routes().name.as_str(), known));
        Self {
            all,
            by_model: by_model.collect(),
            by_table: by_table.collect(),
        }
    }

    /// One with the same TLS settings: most often that with the same table.
    fn with_tls(&self, server: &TlsServer) -> Option<&'t TlsEndpoint> {
        let has_same = |known: &&&TlsEndpoint| known.model.tls() == server.tls();
        let routes = server.routes();
        let same_table = routes.and_then(|routes| self.by_table.get(routes.name.as_str()));
        same_table
            .filter(has_same)
            .copied()
            .or_else(|| self.all.iter().find(|known| has_same(&known)))
    }
}

impl TlsEndpoint {
    fn new(server: &Arc<TlsServer>, known: &KnownEndpoints<'_>) -> Self {
        if let Some(same) = known.by_model.get(&Arc::as_ptr(server)) {
            return Self::clone(same);
        }
        Self {
            model: Arc::clone(server),
            handshake: match known.with_tls(server) {
                Some(kept) => kept.handshake.clone(),
                None => handshake(server),
            },
            table: match server.routes() {
                Some(routes) => {
                    let before = known.by_table.get(routes.name.as_str());
                    table(routes, before.map(|before| &before.table))
                }
                None => Arc::new(Table::new(Arc::new(RouteTable::new("", [])))),
            },
        }
    }
}

impl TlsEndpoint {
    /// Whether the connection is forwarded as it is.
    pub(crate) fn passes_through(&self) -> bool {
        self.model.tls().is_none()
    }

    /// Where the bytes inside of TLS, or all of them, go; `None` for HTTP.
    pub(crate) fn tcp_route(&self) -> Option<&Arc<TcpRoute>> {
        self.model.tcp_route()
    }
}

/// A certificate that rustls refuses closes its own names and nothing else.
fn handshake(server: &TlsServer) -> Option<Arc<ServerConfig>> {
    match tls::server_config(server.tls()?) {
        Ok(config) => config,
        Err(error) => {
            let hosts: Vec<_> = server.hosts.iter().map(ToString::to_string).collect();
            tracing::error!(gateway = %server.gateway, ?hosts, %error, "TLS server has no usable certificate");
            None
        }
    }
}

fn table<'a>(routes: &Arc<RouteTable>, before: impl IntoIterator<Item = &'a Arc<Table>>) -> Arc<Table> {
    let mut before = before.into_iter();
    match before.find(|table| table.routes().name == routes.name) {
        Some(table) if Arc::ptr_eq(table.routes(), routes) => Arc::clone(table),
        previous => Arc::new(Table::after(previous.map(|table| &**table), Arc::clone(routes))),
    }
}

impl ClusterConfig {
    /// The cluster as it was when it is the same, so that workers keep their balancers.
    fn new(cluster: &Arc<Cluster>, answers: &Answers, before: Option<&Arc<Self>>, now: Instant) -> Arc<Self> {
        let cluster = answers.resolve(cluster);
        let spare = answers.spare(&cluster);
        match before {
            Some(before)
                if (Arc::ptr_eq(&before.model, &cluster) || before.model == cluster)
                    && before.spare == spare =>
            {
                Arc::clone(before)
            }
            Some(_) | None => Arc::new(Self {
                tls: match before {
                    Some(before) if before.model.tls == cluster.tls && before.model.host == cluster.host => {
                        before.tls.clone()
                    }
                    Some(_) | None => upstream_tls(&cluster),
                },
                load: ClusterLoad::new(&cluster, before.map(|before| &before.load), now),
                model: cluster,
                spare,
            }),
        }
    }
}

/// TLS to the endpoints of a cluster; what is wrong with it closes this cluster and nothing else.
fn upstream_tls(cluster: &Cluster) -> Option<Option<Arc<ClientTls>>> {
    let tls = cluster.tls.as_ref()?;
    let compiled = ClientTls::new(tls, &cluster.host);
    if let Err(error) = &compiled {
        tracing::error!(cluster = %cluster.name, %error, "TLS to the endpoints cannot be had");
    }
    Some(compiled.ok().map(Arc::new))
}

impl ClusterConfig {
    pub(crate) fn status(&self) -> ClusterStatus {
        let endpoints = self.model.endpoints.iter().enumerate().map(|(index, endpoint)| {
            let load = self.load.get(index);
            EndpointStatus {
                address: endpoint.address,
                weight: endpoint.weight,
                requests_active: load.map_or(0, |load| load.active()),
                requests_total: load.map_or(0, |load| load.total()),
            }
        });
        ClusterStatus {
            name: self.model.name.clone(),
            endpoints: endpoints.collect(),
        }
    }
}

fn escalation(snapshot: &Snapshot, previous: Option<&Config>) -> Option<Arc<Escalation>> {
    let policy = snapshot.penalties?;
    let kept = previous
        .and_then(|previous| previous.escalation.as_ref())
        .filter(|escalation| escalation.policy() == policy);
    Some(kept.cloned().unwrap_or_else(|| Arc::new(Escalation::new(policy))))
}
