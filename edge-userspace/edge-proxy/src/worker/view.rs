//! A configuration as one worker sees it: with balancers, pools and metric handles of its own.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_model::{Change, Cluster, ClusterName, Endpoint, LocalRateLimit, SharedMap, UpstreamProtocol};
use edge_upstream::outlier::{self, Outcome};
use edge_upstream::rate_limit::LocalRateLimiter;
use edge_upstream::{Balancer, ClusterLoad, EndpointLoad, Pick};
use fastrand::Rng;
use prometheus::IntCounter;

use crate::config::{ClusterConfig, Config};
use crate::connection::Conn;
use crate::http::host_of;
use crate::metrics::{Labels, Metrics, SeriesCache};
use crate::pool::{Announced, ConnectError, Lease, Limits, Pool, Target, Want};
use crate::protocol::Protocol;
use crate::tls::ClientTls;

/// Pools of a worker, one for each endpoint and protocol of a cluster, whose limits its connections are under.
pub(crate) type Pools = HashMap<PoolKey, Rc<Pool>>;

/// Where the connections of a pool lead to, and what is spoken on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    address: SocketAddr,
    protocol: Protocol,
    cluster: ClusterName,
}

/// One configuration, for one worker.
pub(crate) struct View {
    config: Arc<Config>,
    /// Shares with the view before what did not change.
    clusters: SharedMap<ClusterName, Rc<ClusterView>>,
    /// Limiters by the address of their definition, which the configuration keeps in place.
    limiters: RefCell<HashMap<*const LocalRateLimit, Option<Limit>>>,
}

impl View {
    /// The view of `config`. Clusters that are the same as in `previous` are kept with their balancers; pools of
    /// endpoints that are gone are closed and leave `pools`.
    pub(super) fn new(
        config: Arc<Config>,
        previous: Option<&Self>,
        pools: &mut Pools,
        rng: &mut Rng,
    ) -> Self {
        let clusters = match previous {
            Some(previous) => previous.clusters_after(&config, pools, rng),
            None => {
                let clusters = config.clusters.iter();
                let clusters = clusters
                    .map(|(name, cluster)| (name.clone(), Rc::new(ClusterView::new(cluster, pools, rng))));
                clusters.collect()
            }
        };
        Self {
            config,
            clusters,
            limiters: RefCell::default(),
        }
    }

    /// The clusters of a later configuration: only those that changed are looked at.
    fn clusters_after(
        &self,
        config: &Config,
        pools: &mut Pools,
        rng: &mut Rng,
    ) -> SharedMap<ClusterName, Rc<ClusterView>> {
        let mut clusters = self.clusters.clone();
        for Change { key, before, after } in config.clusters.changes_since(&self.config.clusters, Arc::ptr_eq)
        {
            match after {
                Some(after) => {
                    clusters.insert(key.clone(), Rc::new(ClusterView::new(after, pools, rng)));
                }
                None => {
                    clusters.remove(key);
                }
            }
            let used: HashSet<_> = after.into_iter().flat_map(|after| addresses(after)).collect();
            let gone = before.into_iter().flat_map(|before| addresses(before));
            for address in gone.filter(|address| !used.contains(address)) {
                close_pools(key, address, pools);
            }
        }
        clusters
    }

    /// Whether header operations have format commands.
    pub(crate) fn has_formats(&self) -> bool {
        self.config.has_formats
    }

    /// Sweeps the pools under names of requests and of single clients, which are in no worker's list.
    pub(super) fn sweep(&self, now: Instant) {
        for endpoint in self.clusters.values().flat_map(|cluster| &cluster.endpoints) {
            for (_, _, pool) in endpoint.by_name.borrow().iter() {
                pool.sweep(now);
            }
            endpoint
                .of_clients
                .borrow_mut()
                .retain(|pool| pool.upgrade().inspect(|pool| pool.sweep(now)).is_some());
        }
    }

    /// Closes every idle connection to an endpoint.
    pub(super) fn close_idle(&self) {
        for endpoint in self.clusters.values().flat_map(|cluster| &cluster.endpoints) {
            while endpoint.evict() {}
        }
    }

    /// What is viewed.
    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The cluster of a name.
    pub(crate) fn cluster(&self, name: &ClusterName) -> Option<&Rc<ClusterView>> {
        self.clusters.get(name)
    }

    /// The limiter of a limit in this configuration.
    pub(crate) fn limiter(&self, limit: &Arc<LocalRateLimit>, metrics: &Metrics) -> Option<Limit> {
        let mut known = self.limiters.borrow_mut();
        let find = || {
            let limiter = Arc::clone(self.config.limiters.get(limit)?);
            Some(Limit {
                refused: metrics.rate_limited(limit, true),
                let_through: metrics.rate_limited(limit, false),
                limiter,
            })
        };
        known.entry(Arc::as_ptr(limit)).or_insert_with(find).clone()
    }
}

/// Addresses that a cluster has or may have again.
fn addresses(cluster: &ClusterConfig) -> impl Iterator<Item = SocketAddr> + '_ {
    let endpoints = cluster.model.endpoints.iter().map(|endpoint| endpoint.address);
    endpoints.chain(cluster.spare.iter().copied())
}

/// Closes the pools of an address that a cluster no longer has.
fn close_pools(cluster: &ClusterName, address: SocketAddr, pools: &mut Pools) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let cluster = cluster.clone();
        if let Some(pool) = pools.remove(&PoolKey {
            address,
            protocol,
            cluster,
        }) {
            pool.close();
        }
    }
}

/// A limiter, and where requests over its limit are counted.
#[derive(Clone)]
pub(crate) struct Limit {
    pub(crate) limiter: Arc<LocalRateLimiter>,
    pub(crate) refused: IntCounter,
    pub(crate) let_through: IntCounter,
}

/// A cluster for one worker.
pub(crate) struct ClusterView {
    config: Arc<ClusterConfig>,
    balancer: RefCell<Balancer>,
    endpoints: Vec<Rc<EndpointView>>,
    limits: Rc<Limits>,
    series: SeriesCache,
}

impl ClusterView {
    fn new(config: &Arc<ClusterConfig>, pools: &mut Pools, rng: &mut Rng) -> Self {
        let limits = Rc::new(Limits::new(&config.model, config.load.circuit()));
        let endpoints = config
            .model
            .endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| {
                let load = config.load.get(index).cloned().unwrap_or_default();
                Rc::new(EndpointView::new(config, endpoint, load, &limits, pools))
            });
        Self {
            balancer: RefCell::new(Balancer::new(
                &config.model,
                config.load.clone(),
                config.load.clock(Instant::now()),
                rng,
            )),
            endpoints: endpoints.collect(),
            limits: Rc::clone(&limits),
            series: SeriesCache::new(Labels::new(&config.model, None)),
            config: Arc::clone(config),
        }
    }

    /// Index of the endpoint for the next try.
    pub(crate) fn pick(&self, pick: Pick<'_>, rng: &mut Rng) -> Option<usize> {
        self.balancer.borrow_mut().pick(pick, rng)
    }

    /// A point in time by the cluster's clock.
    pub(crate) fn clock(&self, now: Instant) -> u64 {
        self.config.load.clock(now)
    }

    /// What is configured.
    pub(crate) fn model(&self) -> &Cluster {
        &self.config.model
    }

    /// Loads of the endpoints, and the circuit.
    pub(crate) fn load(&self) -> &ClusterLoad {
        &self.config.load
    }

    /// Takes account of how a try at an endpoint ended.
    pub(crate) fn report(&self, index: usize, outcome: Outcome) {
        let Some(policy) = &self.config.model.outlier_detection else {
            return;
        };
        let now = self.clock(Instant::now());
        if let Some(ejection) = outlier::report(policy, &self.config.load, index, outcome, now) {
            let address = self
                .config
                .model
                .endpoints
                .get(index)
                .map(|endpoint| endpoint.address);
            tracing::warn!(
                cluster = %self.config.model.name,
                endpoint = address.map(tracing::field::display),
                cause = ejection.cause.name(),
                seconds = ejection.lasts.as_secs(),
                "endpoint ejected"
            );
        }
    }

    /// The endpoint at an index that [`Self::pick`] gave.
    pub(crate) fn endpoint(&self, index: usize) -> Option<&Rc<EndpointView>> {
        self.endpoints.get(index)
    }

    /// The index of an endpoint of this cluster.
    pub(crate) fn position(&self, endpoint: &Rc<EndpointView>) -> Option<usize> {
        self.endpoints.iter().position(|own| Rc::ptr_eq(own, endpoint))
    }

    /// A connection to an endpoint, for a request to `authority`.
    pub(crate) async fn checkout(
        &self,
        endpoint: &EndpointView,
        asker: Asker<'_>,
        authority: &str,
        want: Want,
    ) -> Result<Lease, ConnectError> {
        let evict = || self.endpoints.iter().any(|other| other.evict());
        endpoint
            .pool(asker, authority, &self.limits)
            .checkout(want, self.connect_timeout(), evict)
            .await
    }

    /// What its connections are under.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Time to establish a connection.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.config.model.connect_timeout
    }

    /// Metrics of requests that reached no endpoint.
    pub(crate) fn series(&self) -> &SeriesCache {
        &self.series
    }
}

/// Who a request is from.
#[derive(Clone, Copy)]
pub(crate) enum Asker<'c> {
    /// The client of this connection.
    Client(&'c Conn),
    /// The gateway itself, with a copy of what a client sent by this protocol.
    Gateway(Protocol),
}

impl Asker<'_> {
    fn protocol(self) -> Protocol {
        match self {
            Self::Client(conn) => conn.protocol(),
            Self::Gateway(protocol) => protocol,
        }
    }
}

/// Pools of one client's connection: those to endpoints that are told whose connection they have by the PROXY protocol.
/// Nobody else's request may go over them, so that they end with the client's connection.
pub(crate) type OwnPools = Vec<OwnPool>;

/// One of them.
pub(crate) struct OwnPool {
    /// [`EndpointView::identity`].
    endpoint: Rc<()>,
    protocol: Protocol,
    /// Server name of TLS, where it goes by the names of requests.
    name: Box<str>,
    pool: Rc<Pool>,
}

/// An endpoint for one worker.
pub(crate) struct EndpointView {
    /// Its address as text.
    address: Box<str>,
    load: Arc<EndpointLoad>,
    protocol: UpstreamProtocol,
    target: Target,
    http1: Rc<Pool>,
    /// Only where the cluster may speak it.
    http2: Option<Rc<Pool>>,
    /// Where TLS goes by the names of requests: a pool for each of the names that were used last.
    by_name: RefCell<VecDeque<Named>>,
    /// Pools that belong to one client each, see [`OwnPools`].
    of_clients: RefCell<Vec<Weak<Pool>>>,
    /// The same value in memory for as long as it is the same view.
    identity: Rc<()>,
    series: SeriesCache,
}

/// A pool whose connections were opened under a server name.
type Named = (Box<str>, Protocol, Rc<Pool>);

/// Names under which a worker keeps connections to one endpoint. Names are the clients' choice, so they are bounded.
const MAX_NAMES: usize = 32;

impl EndpointView {
    fn new(
        cluster: &ClusterConfig,
        endpoint: &Endpoint,
        load: Arc<EndpointLoad>,
        limits: &Rc<Limits>,
        pools: &mut Pools,
    ) -> Self {
        let target = Target {
            address: endpoint.address,
            tls: cluster.tls.clone(),
            announced: cluster
                .model
                .proxy_protocol
                .map(|version| Announced { version, ends: None }),
        };
        let mut pool = |protocol| {
            let key = PoolKey {
                address: endpoint.address,
                protocol,
                cluster: cluster.model.name.clone(),
            };
            let new = || Rc::new(Pool::new(target.clone(), protocol, Rc::clone(limits)));
            let pool = pools.entry(key).or_insert_with(new);
            if !pool.leads_to(&target) {
                pool.close();
                *pool = new();
            }
            pool.set_limits(limits);
            Rc::clone(pool)
        };
        let protocol = cluster.model.protocol;
        Self {
            address: endpoint.address.to_string().into(),
            load,
            protocol,
            target: target.clone(),
            http1: pool(Protocol::Http1),
            http2: (protocol != UpstreamProtocol::Http1).then(|| pool(Protocol::Http2)),
            by_name: RefCell::default(),
            of_clients: RefCell::default(),
            identity: Rc::new(()),
            series: SeriesCache::new(Labels::new(&cluster.model, Some(&endpoint.workload))),
        }
    }

    /// Where it is, as text.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Active requests of all workers.
    pub(crate) fn load(&self) -> &Arc<EndpointLoad> {
        &self.load
    }

    /// Where its connections lead to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Closes an idle connection to it, if there is one.
    fn evict(&self) -> bool {
        let by_name = self.by_name.borrow();
        let mut named = by_name.iter();
        self.http1.evict()
            || self.http2.as_ref().is_some_and(|pool| pool.evict())
            || named.any(|(_, _, pool)| pool.evict())
            || self.own_pools().any(|pool| pool.evict())
    }

    fn own_pools(&self) -> impl Iterator<Item = Rc<Pool>> {
        let pools: Vec<_> = self
            .of_clients
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        pools.into_iter()
    }

    /// Connections of this worker, for a request to `authority`.
    fn pool(&self, asker: Asker<'_>, authority: &str, limits: &Rc<Limits>) -> Rc<Pool> {
        let (protocol, pool) = match (&self.http2, self.protocol, asker.protocol()) {
            (Some(http2), UpstreamProtocol::Http2, _)
            | (Some(http2), UpstreamProtocol::ClientProtocol, Protocol::Http2) => (Protocol::Http2, http2),
            _ => (Protocol::Http1, &self.http1),
        };
        if let (Some(_), Asker::Client(conn)) = (self.target.announced, asker) {
            return self.own_pool(conn, protocol, host_of(authority), limits);
        }
        match &self.target.tls {
            Some(Some(tls)) if tls.follows_requests() => self
                .pool_by_name(tls, protocol, host_of(authority), limits)
                .unwrap_or_else(|| Rc::clone(pool)),
            Some(_) | None => Rc::clone(pool),
        }
    }

    /// Connections that one client's requests go over and nobody else's, as their endpoint was told whose they are. Envoy
    /// keeps a pool for each pair of a client's and its own address, too.
    fn own_pool(&self, conn: &Conn, protocol: Protocol, host: &str, limits: &Rc<Limits>) -> Rc<Pool> {
        let (tls, name) = match &self.target.tls {
            Some(Some(tls)) if tls.follows_requests() => (Some(tls), host),
            Some(_) | None => (None, ""),
        };
        let mut own = conn.own_pools().borrow_mut();
        own.retain(|entry| !entry.pool.is_closed());
        let is_here = |entry: &OwnPool| Rc::ptr_eq(&entry.endpoint, &self.identity);
        let is_it = |entry: &&OwnPool| {
            is_here(entry) && entry.protocol == protocol && entry.name.eq_ignore_ascii_case(name)
        };
        if let Some(entry) = own.iter().find(is_it) {
            return Rc::clone(&entry.pool);
        }
        let mut target = self.target.on_behalf_of(conn);
        if let Some(named) = tls.and_then(|tls| tls.for_host(name)) {
            target.tls = Some(Some(Arc::new(named)));
        }
        let pool = Rc::new(Pool::new(target, protocol, Rc::clone(limits)));
        if own.iter().filter(|entry| is_here(entry)).count() >= MAX_NAMES
            && let Some(oldest) = own.iter().position(is_here)
        {
            own.remove(oldest).pool.close();
        }
        own.push(OwnPool {
            endpoint: Rc::clone(&self.identity),
            protocol,
            name: name.into(),
            pool: Rc::clone(&pool),
        });
        self.of_clients.borrow_mut().push(Rc::downgrade(&pool));
        pool
    }

    fn pool_by_name(
        &self,
        tls: &ClientTls,
        protocol: Protocol,
        host: &str,
        limits: &Rc<Limits>,
    ) -> Option<Rc<Pool>> {
        let mut by_name = self.by_name.borrow_mut();
        let is_it = |(name, of, _): &&Named| *of == protocol && name.eq_ignore_ascii_case(host);
        if let Some((_, _, pool)) = by_name.iter().find(is_it) {
            return Some(Rc::clone(pool));
        }
        let target = Target {
            tls: Some(Some(Arc::new(tls.for_host(host)?))),
            ..self.target.clone()
        };
        let pool = Rc::new(Pool::new(target, protocol, Rc::clone(limits)));
        if by_name.len() >= MAX_NAMES
            && let Some((_, _, oldest)) = by_name.pop_front()
        {
            oldest.close();
        }
        by_name.push_back((host.into(), protocol, Rc::clone(&pool)));
        Some(pool)
    }

    /// Metrics of requests that were given to it.
    pub(crate) fn series(&self) -> &SeriesCache {
        &self.series
    }
}

impl Drop for EndpointView {
    fn drop(&mut self) {
        for (_, _, pool) in self.by_name.borrow().iter() {
            pool.close();
        }
        self.own_pools().for_each(|pool| pool.close());
    }
}
