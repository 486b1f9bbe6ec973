//! A configuration as one worker sees it: with balancers, pools and metric handles of its own.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_model::{Change, Cluster, ClusterName, Discovery, LocalRateLimit, SharedMap};
use edge_upstream::outlier::{self, Outcome};
use edge_upstream::rate_limit::LocalRateLimiter;
use edge_upstream::{Balancer, ClusterLoad, Pick};
use fastrand::Rng;
use prometheus::IntCounter;

use super::endpoint::{Asker, EndpointView};
use crate::config::{ClusterConfig, Config};
use crate::http::{Flag, Flags};
use crate::metrics::{Destinations, Labels, Metrics, SeriesCache};
use crate::pool::{ConnectError, Lease, Limits, Pool, Want};
use crate::protocol::Protocol;

/// Pools of a worker, one for each endpoint and protocol of a cluster, whose limits its connections are under.
pub(crate) type Pools = HashMap<PoolKey, Rc<Pool>>;

/// Where the connections of a pool lead to, and what is spoken on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) cluster: ClusterName,
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
        metrics: &Metrics,
        pools: &mut Pools,
        rng: &mut Rng,
    ) -> Self {
        let destinations = metrics.destinations();
        let clusters = match previous {
            Some(previous) => previous.clusters_after(&config, destinations, pools, rng),
            None => {
                let clusters = config.clusters.iter();
                let clusters = clusters.map(|(name, cluster)| {
                    (
                        name.clone(),
                        Rc::new(ClusterView::new(cluster, destinations, pools, rng)),
                    )
                });
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
        destinations: &Arc<Destinations>,
        pools: &mut Pools,
        rng: &mut Rng,
    ) -> SharedMap<ClusterName, Rc<ClusterView>> {
        let mut clusters = self.clusters.clone();
        for Change { key, before, after } in config.clusters.changes_since(&self.config.clusters, Arc::ptr_eq)
        {
            match after {
                Some(after) => {
                    clusters.insert(
                        key.clone(),
                        Rc::new(ClusterView::new(after, destinations, pools, rng)),
                    );
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
            endpoint.sweep(now);
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
    fn new(
        config: &Arc<ClusterConfig>,
        destinations: &Arc<Destinations>,
        pools: &mut Pools,
        rng: &mut Rng,
    ) -> Self {
        let limits = Rc::new(Limits::new(&config.model, config.load.circuit()));
        let endpoints = config
            .model
            .endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| {
                let load = config.load.get(index).cloned().unwrap_or_default();
                Rc::new(EndpointView::new(
                    config,
                    endpoint,
                    load,
                    &limits,
                    destinations,
                    pools,
                ))
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
            series: SeriesCache::new(destinations, Labels::new(&config.model, None)),
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

    /// What is to be said beside that no endpoint may be used.
    pub(crate) fn why_no_endpoint(&self) -> Flags {
        let model = self.model();
        match &model.discovery {
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) if model.endpoints.is_empty() => {
                Flag::DnsFailure.into()
            }
            Discovery::Static
            | Discovery::StrictDns(_)
            | Discovery::LogicalDns(_)
            | Discovery::OriginalDst => Flags::NONE,
        }
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

    /// Metrics of requests and connections that reached no endpoint.
    pub(crate) fn series(&self) -> &SeriesCache {
        &self.series
    }
}
