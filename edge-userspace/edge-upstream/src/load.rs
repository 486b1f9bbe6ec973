//! What all workers know of a cluster's endpoints: how busy each is, since when it is there, whether it is ejected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use edge_model::Cluster;

use crate::balance::{Table, hash_tables};
use crate::circuit::Circuit;
use crate::outlier;

/// One endpoint, over all workers.
///
/// Aligned to a cache line, so that workers that count on different endpoints do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EndpointLoad {
    active: AtomicU32,
    total: AtomicU64,
    /// Milliseconds of the cluster's clock at which the endpoint appeared.
    appeared: u64,
    pub(crate) outlier: outlier::Record,
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

    /// How often it was ejected.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.outlier.ejections()
    }

    /// When it appeared, in milliseconds of the cluster's clock.
    pub(crate) fn appeared(&self) -> u64 {
        self.appeared
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

/// A cluster's endpoints, in the order of [`Cluster::endpoints`], and its circuit; shared by all workers.
#[derive(Debug, Clone)]
pub struct ClusterLoad {
    endpoints: Arc<[(SocketAddr, Arc<EndpointLoad>)]>,
    circuit: Arc<Circuit>,
    /// Counts up with each ejection, so that a worker sees with one read that its healthy set is out of date.
    health: Arc<AtomicU64>,
    /// Tables of consistent hashing, by group of endpoints.
    tables: Arc<[Table]>,
    /// Zero of the cluster's clock.
    began: Instant,
}

impl ClusterLoad {
    /// Loads for `cluster` at `now`. Endpoints that `previous` has as well keep their counts and ejections, so that
    /// requests that were under way when the configuration changed are still seen.
    #[must_use]
    pub fn new(cluster: &Cluster, previous: Option<&Self>, now: Instant) -> Self {
        let began = previous.map_or(now, |previous| previous.began);
        let appeared = milliseconds(began, now);
        let endpoints = cluster.endpoints.iter().map(|endpoint| {
            let kept = previous.and_then(|previous| previous.of(endpoint.address));
            let load = kept.cloned().unwrap_or_else(|| {
                Arc::new(EndpointLoad {
                    appeared,
                    ..EndpointLoad::default()
                })
            });
            (endpoint.address, load)
        });
        Self {
            endpoints: endpoints.collect(),
            circuit: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.circuit)),
            health: Arc::default(),
            tables: hash_tables(cluster).into(),
            began,
        }
    }

    /// `now` in milliseconds of the cluster's clock, which begins at 0 with the cluster.
    #[must_use]
    pub fn clock(&self, now: Instant) -> u64 {
        milliseconds(self.began, now)
    }

    /// Load of the endpoint at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Arc<EndpointLoad>> {
        self.endpoints.get(index).map(|(_, load)| load)
    }

    /// What is in use of the cluster as a whole.
    #[must_use]
    pub fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }

    /// Whether the endpoint at `index` is left out at `now` (in milliseconds of the cluster's clock).
    #[must_use]
    pub fn is_ejected(&self, index: usize, now: u64) -> bool {
        self.get(index)
            .is_some_and(|load| load.outlier.ejected_until() > now)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<EndpointLoad>> {
        self.endpoints.iter().map(|(_, load)| load)
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn table(&self, group: usize) -> Option<&Table> {
        self.tables.get(group)
    }

    pub(crate) fn health_changed(&self) {
        self.health.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn health_version(&self) -> u64 {
        self.health.load(Ordering::Acquire)
    }

    fn of(&self, address: SocketAddr) -> Option<&Arc<EndpointLoad>> {
        let mut all = self.endpoints.iter();
        all.find(|(own, _)| *own == address).map(|(_, load)| load)
    }
}

fn milliseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{cluster, epoch};
    use edge_model::LoadBalancer;
    use std::time::Duration;

    #[test]
    fn a_request_counts_until_it_is_dropped() {
        let load = ClusterLoad::new(&cluster(LoadBalancer::Random, &[1]), None, epoch());
        let endpoint = load.get(0).unwrap();
        let first = ActiveRequest::begin(endpoint);
        let second = ActiveRequest::begin(endpoint);
        assert_eq!((endpoint.active(), endpoint.total()), (2, 2));
        drop((first, second));
        assert_eq!((endpoint.active(), endpoint.total()), (0, 2));
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_counts_and_its_age() {
        let start = epoch();
        let before = ClusterLoad::new(&cluster(LoadBalancer::Random, &[1, 1]), None, start);
        let _under_way = ActiveRequest::begin(before.get(1).unwrap());
        let mut changed = cluster(LoadBalancer::Random, &[1, 1, 1]);
        changed.endpoints.remove(0);
        let after = ClusterLoad::new(&changed, Some(&before), start + Duration::from_secs(3));
        assert_eq!(after.get(0).unwrap().active(), 1);
        assert_eq!(after.get(0).unwrap().appeared(), 0);
        assert_eq!(after.get(1).unwrap().appeared(), 3000);
        assert!(after.get(2).is_none());
    }
}
