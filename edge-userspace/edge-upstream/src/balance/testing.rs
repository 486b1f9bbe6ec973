//! Clusters and statistics for tests.

use std::sync::Arc;
use std::time::Instant;

use edge_model::{Cluster, Endpoint, LoadBalancer, WorkloadMeta};

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

/// Some point in time; tests count from it.
pub(crate) fn epoch() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    Instant::now()
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
