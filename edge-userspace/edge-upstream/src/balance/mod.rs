//! Picking an endpoint of a cluster: first a priority and locality, then an endpoint of it (Istio
//! `LoadBalancerSettings`).

mod group;
mod hash;
mod least_request;
mod random;
mod round_robin;
mod shares;
mod slow_start;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

use edge_model::{Cluster, LoadBalancer};
use fastrand::Rng;

use crate::ClusterLoad;
use group::Group;
pub(crate) use hash::Table;
pub use hash::hash_key;
use shares::shares;
pub use weights::Weights;

/// Picks endpoints of one cluster for one worker.
///
/// Each worker has its own; what they must agree on (active requests, ejections, the tables of consistent hashing) they
/// share in a [`ClusterLoad`]. Which endpoints are in, and with what weight, is worked out when it changes: upon an
/// ejection, at the end of one, and while an endpoint warms up.
#[derive(Debug)]
pub struct Balancer {
    cluster: Arc<Cluster>,
    load: ClusterLoad,
    groups: Vec<Group>,
    /// Draws a group; unused while there is only one that takes anything.
    split: Weights,
    only: Option<usize>,
    /// Health as it is known here.
    health_version: u64,
    /// Time of the cluster's clock at which something changes by itself.
    changes_at: u64,
}

/// What a pick goes by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pick<'a> {
    /// Milliseconds of the cluster's clock ([`ClusterLoad::clock`]).
    pub now: u64,
    /// Endpoints that the request was tried at.
    pub tried: &'a [usize],
    /// Hash of the request's key ([`hash_key`]), for consistent hashing. Without one any endpoint is taken.
    pub hash: Option<u64>,
    /// Whether priorities in which tries have failed are left for others (Istio `retryRemoteLocalities`).
    pub leave_priorities: bool,
}

/// Tries after which their priorities are left (Envoy's `previous_priorities`, `update_frequency` as Istio sets it).
const TRIES_PER_PRIORITY: usize = 2;

impl Balancer {
    /// A balancer for the endpoints of `cluster`, whose loads `load` holds in the same order.
    #[must_use]
    pub fn new(cluster: &Arc<Cluster>, load: ClusterLoad, now: u64, rng: &mut Rng) -> Self {
        let mut balancer = Self {
            groups: group::groups(cluster),
            cluster: Arc::clone(cluster),
            load,
            split: Weights::new([]),
            only: None,
            health_version: 0,
            changes_at: 0,
        };
        balancer.refresh(now, rng);
        balancer
    }

    /// Index of the endpoint for the next try; `None` when there is none that may be used.
    ///
    /// Endpoints in `tried` are avoided (Envoy's `previous_hosts` predicate). When all of them were tried, any may be
    /// taken once more, as Envoy does after `host_selection_retry_max_attempts`.
    pub fn pick(&mut self, pick: Pick<'_>, rng: &mut Rng) -> Option<usize> {
        if pick.now >= self.changes_at || self.health_version != self.load.health_version() {
            self.refresh(pick.now, rng);
        }
        if let Some(elsewhere) = self.elsewhere(&pick) {
            let picked = self.pick_from(elsewhere, &pick, rng);
            if picked.is_some() {
                return picked;
            }
        }
        let first = match (self.only, pick.hash) {
            (Some(only), _) => only,
            (None, Some(hash)) => self.split.find(hash)?,
            (None, None) => self.split.draw(rng)?,
        };
        let again = Pick { tried: &[], ..pick };
        self.pick_from(first, &pick, rng)
            .or_else(|| {
                let others = (0..self.groups.len()).filter(|other| *other != first);
                let mut others = others.collect::<Vec<_>>().into_iter();
                others.find_map(|other| match self.split.get(other) {
                    0 => None,
                    _ => self.pick_from(other, &pick, rng),
                })
            })
            .or_else(|| self.pick_from(first, &again, rng))
    }

    /// The first group with healthy endpoints of a priority that no try has failed in; `None` while the priorities that
    /// were tried are not to be left, or when there is none.
    fn elsewhere(&self, pick: &Pick<'_>) -> Option<usize> {
        let counted = pick.tried.len() - pick.tried.len() % TRIES_PER_PRIORITY;
        if !pick.leave_priorities || counted == 0 {
            return None;
        }
        let failed = pick.tried.get(..counted)?;
        let has_failed = |group: &Group| {
            let in_it = self
                .groups
                .iter()
                .filter(|other| other.priority() == group.priority());
            in_it
                .into_iter()
                .any(|other| failed.iter().any(|index| other.has(*index)))
        };
        self.groups
            .iter()
            .position(|group| !has_failed(group) && group.members(&self.load, pick.now).healthy > 0)
    }

    fn pick_from(&mut self, group: usize, pick: &Pick<'_>, rng: &mut Rng) -> Option<usize> {
        self.groups.get_mut(group)?.pick(&self.load, pick, rng)
    }

    /// Works out anew who is in, and with what share.
    fn refresh(&mut self, now: u64, rng: &mut Rng) {
        self.health_version = self.load.health_version();
        let members: Vec<_> = self
            .groups
            .iter()
            .map(|group| group.members(&self.load, now))
            .collect();
        let outlier = self.cluster.outlier_detection.as_ref();
        let shares = shares(&members, outlier.map_or(0, |outlier| outlier.min_health_percent));
        self.changes_at = u64::MAX;
        for (group, share) in self.groups.iter_mut().zip(&shares) {
            let next = group.refresh(&self.cluster, &self.load, share.panic, now, rng);
            self.changes_at = self.changes_at.min(next);
        }
        let taking = |(_, share): &(usize, &shares::Share)| share.load > 0;
        let mut takers = shares.iter().enumerate().filter(taking).map(|(at, _)| at);
        self.only = takers.next().filter(|_| takers.next().is_none());
        // Shares are at most 10^8 for each priority, and sums are kept in 64 bits.
        self.split = Weights::new(
            shares
                .iter()
                .map(|share| u32::try_from(share.load).unwrap_or(u32::MAX)),
        );
    }

    /// Loads of the endpoints, by the indexes that [`Self::pick`] gives.
    #[must_use]
    pub fn load(&self) -> &ClusterLoad {
        &self.load
    }

    /// Whether picks go by a hash of the request.
    #[must_use]
    pub fn hashes(&self) -> bool {
        matches!(self.cluster.load_balancer, LoadBalancer::ConsistentHash(_))
    }
}

/// The tables of consistent hashing for a cluster's groups; none under another policy. They are made once for all
/// workers, as a table of some hundred kilobytes takes milliseconds.
pub(crate) fn hash_tables(cluster: &Cluster) -> Vec<Table> {
    match &cluster.load_balancer {
        LoadBalancer::ConsistentHash(hash) => {
            let table = |group: &Group| Table::new(hash.algorithm, &group.named(cluster));
            group::groups(cluster).iter().map(table).collect()
        }
        LoadBalancer::LeastRequest | LoadBalancer::RoundRobin | LoadBalancer::Random => Vec::new(),
    }
}
