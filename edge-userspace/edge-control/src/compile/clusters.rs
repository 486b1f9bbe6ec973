//! Clusters: every port of every known service, as a whole and by subset.

use std::sync::Arc;

use edge_config::istio::destination_rule::Subset;
use edge_model::{Cluster, ClusterName, SharedMap};

use super::destination_rules::{DestinationRules, Merged, Policy};
use super::endpoints::{Labelled, Workloads};
use super::registry::{Port, Registry, Service};

/// Builds the clusters of all services. A destination that names none of them finds no cluster, which is answered
/// with 503 and the flag NC.
pub(crate) fn clusters(
    registry: &Registry<'_>,
    rules: &DestinationRules<'_>,
    workloads: &Workloads<'_>,
) -> SharedMap<ClusterName, Arc<Cluster>> {
    let mut clusters = vec![];
    for service in registry.hosts() {
        let rule = rules.find(&service.host, service.namespace);
        for port in &service.ports {
            for cluster in of_port(service, port, rule, &workloads.endpoints(service, port)) {
                clusters.push((cluster.name.clone(), Arc::new(cluster)));
            }
        }
    }
    clusters.into_iter().collect()
}

fn of_port(
    service: &Service<'_>,
    port: &Port,
    rule: Option<&Merged<'_>>,
    endpoints: &[Labelled<'_>],
) -> impl Iterator<Item = Cluster> {
    let subsets = rule
        .into_iter()
        .flat_map(|rule| rule.subsets.values().map(|subset| Some(*subset)));
    std::iter::once(None)
        .chain(subsets)
        .map(move |subset| cluster(service, port, rule, subset, endpoints))
}

fn cluster(
    service: &Service<'_>,
    port: &Port,
    rule: Option<&Merged<'_>>,
    subset: Option<&Subset>,
    endpoints: &[Labelled<'_>],
) -> Cluster {
    let policy = rule.map_or_else(Policy::default, |rule| rule.policy(port.number, subset));
    // Nothing goes in plain text where TLS is asked for: such a cluster has no endpoint, and requests get 503.
    let endpoints = if policy.is_encrypted { &[] } else { endpoints };
    let is_in_subset = |labelled: &&Labelled<'_>| subset.is_none_or(|subset| labelled.is_in(&subset.labels));
    Cluster {
        load_balancer: policy.load_balancer,
        connect_timeout: policy.connect_timeout,
        endpoints: endpoints
            .iter()
            .filter(is_in_subset)
            .map(|labelled| labelled.endpoint.clone())
            .collect(),
        ..Cluster::new(
            &service.host,
            service.namespace,
            port.number,
            subset.map(|subset| subset.name.as_str()),
        )
    }
}
