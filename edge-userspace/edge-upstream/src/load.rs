//! How busy each endpoint is, counted once for all workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use edge_model::Cluster;

/// Requests of one endpoint, over all workers.
///
/// Aligned to a cache line, so that workers that count on different endpoints do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EndpointLoad {
    active: AtomicU32,
    total: AtomicU64,
}

impl EndpointLoad {
    /// Requests that are under way now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Requests that were begun since the endpoint appeared.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// Counts a request as active on its endpoint until it is dropped.
#[derive(Debug)]
pub struct ActiveRequest(Arc<EndpointLoad>);

impl ActiveRequest {
    /// Counts one more request.
    #[must_use]
    pub fn begin(load: &Arc<EndpointLoad>) -> Self {
        // Relaxed: the counts steer, they guard nothing. A worker may see another's count a few nanoseconds late.
        load.active.fetch_add(1, Ordering::Relaxed);
        load.total.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Loads of a cluster's endpoints, in the order of [`Cluster::endpoints`]; shared by all workers.
#[derive(Debug, Clone, Default)]
pub struct ClusterLoad {
    endpoints: Arc<[(SocketAddr, Arc<EndpointLoad>)]>,
}

impl ClusterLoad {
    /// Loads for `cluster`. Endpoints that `previous` has as well keep their counts, so that requests that were
    /// under way when the configuration changed are still seen.
    #[must_use]
    pub fn new(cluster: &Cluster, previous: Option<&Self>) -> Self {
        let endpoints = cluster.endpoints.iter().map(|endpoint| {
            let kept = previous.and_then(|previous| previous.of(endpoint.address));
            (endpoint.address, kept.cloned().unwrap_or_default())
        });
        Self {
            endpoints: endpoints.collect(),
        }
    }

    /// Load of the endpoint at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Arc<EndpointLoad>> {
        self.endpoints.get(index).map(|(_, load)| load)
    }

    fn of(&self, address: SocketAddr) -> Option<&Arc<EndpointLoad>> {
        let mut all = self.endpoints.iter();
        all.find(|(own, _)| *own == address).map(|(_, load)| load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::cluster;
    use edge_model::LoadBalancer;

    #[test]
    fn a_request_counts_until_it_is_dropped() {
        let load = ClusterLoad::new(&cluster(LoadBalancer::Random, &[1]), None);
        let endpoint = load.get(0).unwrap();
        let first = ActiveRequest::begin(endpoint);
        let second = ActiveRequest::begin(endpoint);
        assert_eq!((endpoint.active(), endpoint.total()), (2, 2));
        drop((first, second));
        assert_eq!((endpoint.active(), endpoint.total()), (0, 2));
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_counts() {
        let before = ClusterLoad::new(&cluster(LoadBalancer::Random, &[1, 1]), None);
        let _under_way = ActiveRequest::begin(before.get(1).unwrap());
        let mut changed = cluster(LoadBalancer::Random, &[1, 1]);
        changed.endpoints.remove(0);
        let after = ClusterLoad::new(&changed, Some(&before));
        assert_eq!(after.get(0).unwrap().active(), 1);
        assert!(after.get(1).is_none());
    }
}
