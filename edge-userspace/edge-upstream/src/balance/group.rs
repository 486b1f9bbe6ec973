//! Endpoints of one priority and locality.

use edge_model::{Cluster, LoadBalancer, LocalityPolicy};
use fastrand::Rng;

use super::least_request::LeastRequest;
use super::random::Random;
use super::round_robin::RoundRobin;
use super::shares::Members;
use super::{Pick, Weights, slow_start};
use crate::ClusterLoad;

/// Endpoints that share what their priority and locality gets.
#[derive(Debug)]
pub(super) struct Group {
    /// Position among the groups, under which the cluster keeps its hash table.
    at: usize,
    priority: u32,
    /// Weight of the locality.
    weight: u32,
    /// Indexes of the endpoints.
    endpoints: Vec<usize>,
    /// Which of them may be taken, by position.
    is_in: Vec<bool>,
    policy: Policy,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random(Random),
    /// The table is the cluster's; requests without a key go anywhere.
    Hash(Random),
}

/// The groups of a cluster, in the order of their priorities.
pub(super) fn groups(cluster: &Cluster) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (index, endpoint) in cluster.endpoints.iter().enumerate() {
        let (name, weight, priority) = match &cluster.locality {
            LocalityPolicy::Off => ("", 1, 0),
            LocalityPolicy::Priority => ("", 1, endpoint.priority),
            LocalityPolicy::Distribute(shares) => {
                let share = shares.iter().find(|(name, _)| *name == endpoint.locality);
                (&*endpoint.locality, share.map_or(0, |(_, weight)| *weight), 0)
            }
        };
        let known = groups.iter().zip(&names);
        let found = known
            .clone()
            .position(|(group, own)| group.priority == priority && *own == name);
        let at = found.unwrap_or_else(|| {
            names.push(name);
            groups.push(Group::new(priority, weight));
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(at) {
            group.endpoints.push(index);
        }
    }
    groups.sort_by_key(|group| group.priority);
    for (at, group) in groups.iter_mut().enumerate() {
        group.at = at;
    }
    groups
}

impl Group {
    fn new(priority: u32, weight: u32) -> Self {
        Self {
            at: 0,
            priority,
            weight,
            endpoints: Vec::new(),
            is_in: Vec::new(),
            policy: Policy::Random(Random::new(Weights::new([]))),
        }
    }

    /// Names and weights of the endpoints, from which the hash table is made.
    pub(super) fn named(&self, cluster: &Cluster) -> Vec<(String, u32)> {
        let endpoints = self
            .endpoints
            .iter()
            .filter_map(|index| cluster.endpoints.get(*index));
        endpoints
            .map(|endpoint| (endpoint.address.to_string(), endpoint.weight))
            .collect()
    }

    pub(super) fn priority(&self) -> u32 {
        self.priority
    }

    /// Whether the endpoint at an index of the cluster is one of its own.
    pub(super) fn has(&self, index: usize) -> bool {
        self.endpoints.contains(&index)
    }

    pub(super) fn members(&self, load: &ClusterLoad, now: u64) -> Members {
        let healthy = self
            .endpoints
            .iter()
            .filter(|index| !load.is_ejected(**index, now));
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Members {
            priority: self.priority,
            weight: self.weight,
            healthy: count(healthy.count()),
            total: count(self.endpoints.len()),
        }
    }

    /// Takes up who is in and with what weight; returns the time at which that changes by itself.
    pub(super) fn refresh(
        &mut self,
        cluster: &Cluster,
        load: &ClusterLoad,
        panic: bool,
        now: u64,
        rng: &mut Rng,
    ) -> u64 {
        let mut changes_at = u64::MAX;
        self.is_in = self
            .endpoints
            .iter()
            .map(|index| {
                let out = load.is_ejected(*index, now);
                if out && let Some(endpoint) = load.get(*index) {
                    changes_at = changes_at.min(endpoint.outlier.ejected_until());
                }
                panic || !out
            })
            .collect();
        let slow_start = cluster.slow_start.as_ref();
        let weights = Weights::new(self.endpoints.iter().zip(&self.is_in).map(|(index, is_in)| {
            let weight = cluster
                .endpoints
                .get(*index)
                .map_or(1, |endpoint| endpoint.weight);
            let (true, Some(slow_start)) = (is_in, slow_start) else {
                return if *is_in { weight } else { 0 };
            };
            let appeared = load.get(*index).map_or(0, |load| load.appeared());
            let age = now.saturating_sub(appeared);
            if slow_start::is_under_way(slow_start, age) {
                changes_at = changes_at.min(now.saturating_add(slow_start::step(slow_start)));
            }
            weight.saturating_mul(slow_start::parts(slow_start, age))
        }));
        self.policy = match &cluster.load_balancer {
            LoadBalancer::RoundRobin => Policy::RoundRobin(RoundRobin::new(&weights, rng)),
            LoadBalancer::LeastRequest => Policy::LeastRequest(LeastRequest::new(weights, rng)),
            LoadBalancer::Random => Policy::Random(Random::new(weights)),
            LoadBalancer::ConsistentHash(_) => Policy::Hash(Random::new(weights)),
        };
        changes_at
    }

    /// Index of an endpoint that is in and was not tried.
    pub(super) fn pick(&mut self, load: &ClusterLoad, pick: &Pick<'_>, rng: &mut Rng) -> Option<usize> {
        let endpoints = &self.endpoints;
        let position = |tried: &usize| endpoints.iter().position(|index| index == tried);
        let tried: Vec<usize> = pick.tried.iter().filter_map(position).collect();
        let picked = match &mut self.policy {
            Policy::RoundRobin(policy) => policy.pick(&tried),
            Policy::LeastRequest(policy) => {
                let active = |position: usize| {
                    let load = endpoints.get(position).and_then(|index| load.get(*index));
                    load.map_or(0, |load| load.active())
                };
                policy.pick(active, &tried, rng)
            }
            Policy::Random(policy) => policy.pick(&tried, rng),
            Policy::Hash(any) => match (pick.hash, load.table(self.at)) {
                (Some(hash), Some(table)) => table.find(hash, |position| {
                    self.is_in.get(position) == Some(&true) && !tried.contains(&position)
                }),
                (Some(_) | None, _) => any.pick(&tried, rng),
            },
        };
        picked.and_then(|position| self.endpoints.get(position).copied())
    }
}
