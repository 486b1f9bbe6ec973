//! Picking an endpoint of a cluster (Istio `LoadBalancerSettings.simple`).

mod least_request;
mod random;
mod round_robin;
mod weights;

use edge_model::{Cluster, LoadBalancer};
use fastrand::Rng;

use crate::ClusterLoad;
use least_request::LeastRequest;
use random::Random;
use round_robin::RoundRobin;
pub use weights::Weights;

/// Picks endpoints of one cluster for one worker.
///
/// Each worker has its own; what they must agree on, the active requests, they share in a [`ClusterLoad`].
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
    load: ClusterLoad,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random(Random),
}

impl Balancer {
    /// A balancer for the endpoints of `cluster`, whose loads `load` holds in the same order.
    #[must_use]
    pub fn new(cluster: &Cluster, load: ClusterLoad, rng: &mut Rng) -> Self {
        let weights = Weights::new(cluster.endpoints.iter().map(|endpoint| endpoint.weight));
        let policy = match &cluster.load_balancer {
            LoadBalancer::RoundRobin => Policy::RoundRobin(RoundRobin::new(&weights, rng)),
            LoadBalancer::LeastRequest => Policy::LeastRequest(LeastRequest::new(weights)),
            // Nothing of the request is hashed: as for a request that lacks what is.
            LoadBalancer::Random | LoadBalancer::ConsistentHash(_) => Policy::Random(Random::new(weights)),
        };
        Self { policy, load }
    }

    /// Index of the endpoint for the next request; `None` when the cluster has none.
    ///
    /// Endpoints in `tried` are avoided (Envoy's `previous_hosts` predicate). When all of them were tried, any may
    /// be taken once more, as Envoy does after `host_selection_retry_max_attempts`.
    pub fn pick(&mut self, tried: &[usize], rng: &mut Rng) -> Option<usize> {
        let avoiding = match tried.is_empty() {
            true => None,
            false => self.pick_avoiding(tried, rng),
        };
        avoiding.or_else(|| self.pick_avoiding(&[], rng))
    }

    fn pick_avoiding(&mut self, tried: &[usize], rng: &mut Rng) -> Option<usize> {
        match &mut self.policy {
            Policy::RoundRobin(policy) => policy.pick(tried),
            Policy::LeastRequest(policy) => policy.pick(&self.load, tried, rng),
            Policy::Random(policy) => policy.pick(tried, rng),
        }
    }

    /// Loads of the endpoints, by the indexes that [`Self::pick`] gives.
    #[must_use]
    pub fn load(&self) -> &ClusterLoad {
        &self.load
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use edge_model::{Endpoint, WorkloadMeta};
    use std::sync::Arc;

    /// A cluster with one endpoint for each weight.
    pub(crate) fn cluster(load_balancer: LoadBalancer, weights: &[u32]) -> Cluster {
        let workload = Arc::new(WorkloadMeta {
            workload: "web".into(),
            namespace: "shop".into(),
            app: "web".into(),
            version: "v1".into(),
            canonical_service: "web".into(),
            canonical_revision: "v1".into(),
        });
        let endpoints = weights.iter().enumerate().map(|(index, weight)| {
            let address = format!("192.0.2.{}:8080", index + 1).parse().unwrap();
            Endpoint {
                weight: *weight,
                ..Endpoint::new(address, Arc::clone(&workload))
            }
        });
        Cluster {
            load_balancer,
            endpoints: endpoints.collect(),
            ..Cluster::new("web.shop.svc.cluster.local", "shop", 80, None)
        }
    }

    /// Asserts that `counts` fit `weights` by the chi-square test at p = 0.0001.
    #[track_caller]
    pub(crate) fn assert_fits(counts: &[u64], weights: &[u32]) {
        let requests: u64 = counts.iter().sum();
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let chi_square: f64 = counts
            .iter()
            .zip(weights)
            .map(|(count, weight)| {
                let expected = requests as f64 * f64::from(*weight) / sum as f64;
                (*count as f64 - expected).powi(2) / expected
            })
            .sum();
        // Upper bound of the 0.9999 quantile for n degrees of freedom (Laurent and Massart, 2000).
        let (n, x) = (counts.len() as f64 - 1.0, 10_000f64.ln());
        let bound = n + 2.0 * (n * x).sqrt() + 2.0 * x;
        assert!(
            chi_square <= bound,
            "{counts:?} against {weights:?}: {chi_square} > {bound}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{assert_fits, cluster};
    use super::*;
    use crate::ActiveRequest;
    use proptest::prelude::{ProptestConfig, prop, prop_assert, proptest};

    const POLICIES: [LoadBalancer; 3] = [
        LoadBalancer::RoundRobin,
        LoadBalancer::LeastRequest,
        LoadBalancer::Random,
    ];

    fn balancer(policy: LoadBalancer, weights: &[u32], rng: &mut Rng) -> Balancer {
        let cluster = cluster(policy, weights);
        let load = ClusterLoad::new(&cluster, None);
        Balancer::new(&cluster, load, rng)
    }

    fn counts(policy: LoadBalancer, weights: &[u32], picks: usize, seed: u64) -> Vec<u64> {
        let mut rng = Rng::with_seed(seed);
        let mut balancer = balancer(policy, weights, &mut rng);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[balancer.pick(&[], &mut rng).unwrap()] += 1;
        }
        counts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_idle_cluster_is_shared_by_weight_under_every_policy(
            weights in prop::collection::vec(1u32..20, 2..8), seed: u64
        ) {
            for policy in POLICIES {
                assert_fits(&counts(policy, &weights, 20_000, seed), &weights);
            }
        }

        #[test]
        fn tried_endpoints_are_avoided_while_another_is_left(
            weights in prop::collection::vec(1u32..5, 1..6), tried in prop::collection::vec(0usize..6, 0..6), seed: u64
        ) {
            let mut rng = Rng::with_seed(seed);
            let fresh = (0..weights.len()).any(|index| !tried.contains(&index));
            for policy in POLICIES {
                let picked = balancer(policy.clone(), &weights, &mut rng).pick(&tried, &mut rng).unwrap();
                prop_assert!(picked < weights.len());
                prop_assert!(!fresh || !tried.contains(&picked), "{policy:?} took {picked}");
            }
        }
    }

    #[test]
    fn a_cluster_without_endpoints_gives_none() {
        for policy in POLICIES {
            let mut rng = Rng::with_seed(1);
            assert_eq!(
                balancer(policy.clone(), &[], &mut rng).pick(&[], &mut rng),
                None,
                "{policy:?}"
            );
        }
    }

    #[test]
    fn round_robin_gives_each_of_equal_endpoints_its_turn() {
        let counts = counts(LoadBalancer::RoundRobin, &[1, 1, 1], 300, 7);
        assert_eq!(counts, [100, 100, 100]);
    }

    #[test]
    fn round_robin_keeps_weights_exactly() {
        let counts = counts(LoadBalancer::RoundRobin, &[9, 1], 1000, 7);
        assert!(counts[1].abs_diff(100) <= 1, "{counts:?}");
    }

    #[test]
    fn least_request_avoids_the_busy_endpoint_whenever_it_draws_another() {
        let mut rng = Rng::with_seed(3);
        let mut balancer = balancer(LoadBalancer::LeastRequest, &[1, 1, 1, 1], &mut rng);
        let busy = ActiveRequest::begin(balancer.load().get(2).unwrap());
        let picks: Vec<_> = (0..1000).map(|_| balancer.pick(&[], &mut rng).unwrap()).collect();
        assert!(
            !picks.contains(&2),
            "two distinct endpoints are compared, so the busy one never wins"
        );
        drop(busy);
        assert!((0..1000).any(|_| balancer.pick(&[], &mut rng) == Some(2)));
    }

    #[test]
    fn least_request_levels_active_requests_in_proportion_to_weight() {
        let mut rng = Rng::with_seed(5);
        let mut balancer = balancer(LoadBalancer::LeastRequest, &[1, 2, 4], &mut rng);
        let held: Vec<_> = (0..700)
            .map(|_| {
                let index = balancer.pick(&[], &mut rng).unwrap();
                ActiveRequest::begin(balancer.load().get(index).unwrap())
            })
            .collect();
        let active = |index| balancer.load().get(index).unwrap().active();
        for (index, expected) in [(0, 100), (1, 200), (2, 400)] {
            assert!(
                active(index).abs_diff(expected) <= expected / 8,
                "{index}: {}",
                active(index)
            );
        }
        drop(held);
    }
}
