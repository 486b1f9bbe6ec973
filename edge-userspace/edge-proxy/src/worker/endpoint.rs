//! An endpoint as one worker sees it: which of its connections a request may go over.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use edge_model::{ClusterName, Endpoint, UpstreamProtocol};
use edge_upstream::EndpointLoad;
use edge_upstream::outlier::Outcome;

use super::view::{PoolKey, Pools};
use crate::config::ClusterConfig;
use crate::connection::Conn;
use crate::http::host_of;
use crate::metrics::{Counted, Destinations, Endpoints, Labels, Metrics, SeriesCache};
use crate::pool::{Announced, Limits, Pool, Target};
use crate::protocol::Protocol;
use crate::tls::ClientTls;

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
    cluster: ClusterName,
    /// Once it was given a request.
    counted: OnceCell<Counted<Endpoints>>,
}

/// A pool whose connections were opened under a server name.
type Named = (Box<str>, Protocol, Rc<Pool>);

/// Names under which a worker keeps connections to one endpoint. Names are the clients' choice, so they are bounded.
const MAX_NAMES: usize = 32;

impl EndpointView {
    pub(super) fn new(
        cluster: &ClusterConfig,
        endpoint: &Endpoint,
        load: Arc<EndpointLoad>,
        limits: &Rc<Limits>,
        destinations: &Arc<Destinations>,
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
            series: SeriesCache::new(
                destinations,
                Labels::new(&cluster.model, Some(&endpoint.workload)),
            ),
            cluster: cluster.model.name.clone(),
            counted: OnceCell::new(),
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

    /// Sweeps the pools under names of requests and of single clients, which are in no worker's list.
    pub(super) fn sweep(&self, now: Instant) {
        for (_, _, pool) in self.by_name.borrow().iter() {
            pool.sweep(now);
        }
        self.of_clients
            .borrow_mut()
            .retain(|pool| pool.upgrade().inspect(|pool| pool.sweep(now)).is_some());
    }

    /// Closes an idle connection to it, if there is one.
    pub(super) fn evict(&self) -> bool {
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
    pub(super) fn pool(&self, asker: Asker<'_>, authority: &str, limits: &Rc<Limits>) -> Rc<Pool> {
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

    /// Counts what came of a request, or of an attempt to connect for one, for it alone.
    pub(crate) fn count(&self, metrics: &Metrics, outcome: Outcome) {
        let counted = self.counted.get_or_init(|| {
            let labels = [self.cluster.as_str(), &self.address];
            metrics.endpoints().enter(labels)
        });
        let series = &counted.series;
        match outcome {
            Outcome::ConnectFailure => return series.unconnected.inc(),
            Outcome::Status(..500) => series.succeeded.inc(),
            Outcome::Timeout => {
                series.timed_out.inc();
                series.failed.inc();
            }
            Outcome::Status(_) | Outcome::Reset => series.failed.inc(),
        }
        series.requests.inc();
    }

    /// Metrics of requests and connections that were given to it.
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
