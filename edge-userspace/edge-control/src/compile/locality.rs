//! Preference of near endpoints (istio `pilot/pkg/networking/core/loadbalancer`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edge_config::istio::destination_rule::policy::{Distribute, Failover, LocalityLbSetting};
use edge_model::{Cluster, LocalityPolicy};

use super::endpoints::Labelled;

/// Where the edge itself is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'r> {
    /// `region/zone/subzone`; empty when it is not known.
    pub(crate) locality: &'r str,
    pub(crate) labels: &'r BTreeMap<String, String>,
}

/// Gives the endpoints of a cluster their priorities, or the localities their shares. `endpoints` are those of the
/// cluster in its order. Without outlier detection nothing would ever fail over, so priorities need it (Istio).
pub(crate) fn apply(
    cluster: &mut Cluster,
    endpoints: &[&Labelled<'_>],
    settings: Option<&LocalityLbSetting>,
    own: Own<'_>,
) {
    let empty = LocalityLbSetting::default();
    // Istio's mesh-wide default is on, without settings of its own.
    let settings = settings.unwrap_or(&empty);
    if settings.enabled == Some(false) {
        return;
    }
    let has_outliers = cluster.outlier_detection.is_some();
    if !settings.distribute.is_empty() {
        if let Some(rule) = own_rule(&settings.distribute, own.locality) {
            distribute(cluster, rule);
        }
    } else if has_outliers && !settings.failover_priority.is_empty() {
        let priorities = endpoints
            .iter()
            .map(|endpoint| by_labels(&settings.failover_priority, endpoint, own))
            .collect();
        prioritise(cluster, priorities);
    } else if has_outliers && !own.locality.is_empty() {
        let priorities = cluster
            .endpoints
            .iter()
            .map(|endpoint| by_distance(own.locality, &endpoint.locality, &settings.failover))
            .collect();
        prioritise(cluster, priorities);
    }
}

/// The first rule whose origin the edge is in.
fn own_rule<'r>(rules: &'r [Distribute], own: &str) -> Option<&'r Distribute> {
    if own.is_empty() {
        return None;
    }
    rules.iter().find(|rule| is_within(own, &rule.from))
}

/// Whether a locality is one of a pattern's: `*`, `region/*`, `region/zone` and so on.
fn is_within(locality: &str, pattern: &str) -> bool {
    let mut own = locality.split('/');
    pattern.split('/').all(|part| {
        let own = own.next();
        part == "*" || own == Some(part)
    })
}

/// Shares a pattern's weight among the localities that it is for, by the weights of their endpoints. Endpoints of all
/// other localities are taken out.
fn distribute(cluster: &mut Cluster, rule: &Distribute) {
    let mut weights: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for endpoint in &cluster.endpoints {
        *weights.entry(Arc::clone(&endpoint.locality)).or_default() += u64::from(endpoint.weight);
    }
    let mut shares = vec![];
    // In descending order a pattern comes after those that are narrower.
    for (pattern, share) in rule.to.iter().rev() {
        let taken: Vec<_> = weights
            .iter()
            .filter(|(locality, _)| is_within(locality, pattern))
            .map(|(locality, weight)| (Arc::clone(locality), *weight))
            .collect();
        let sum: u64 = taken.iter().map(|(_, weight)| weight).sum();
        for (locality, weight) in taken {
            weights.remove(&locality);
            let own = (u64::from(*share) * weight).div_ceil(sum.max(1));
            shares.push((locality, u32::try_from(own).unwrap_or(u32::MAX)));
        }
    }
    shares.retain(|(_, share)| *share != 0);
    shares.sort();
    let is_kept = |locality: &Arc<str>| shares.iter().any(|(own, _)| own == locality);
    cluster.endpoints.retain(|endpoint| is_kept(&endpoint.locality));
    cluster.locality = LocalityPolicy::Distribute(shares);
}

/// How far away a locality is: 0 in the same subzone, 1 in the same zone, 2 in the same region, 3 in the region that
/// takes over or, when none is named, in any; else 4.
fn by_distance(own: &str, other: &str, failover: &[Failover]) -> u32 {
    let part = |text: &str, index| text.split('/').nth(index).unwrap_or("").to_owned();
    let same = (0..3)
        .take_while(|index| part(own, *index) == part(other, *index))
        .count();
    if same != 0 {
        return 3 - u32::try_from(same).unwrap_or(3);
    }
    let rule = failover.iter().find(|rule| rule.from == part(own, 0));
    match rule {
        Some(rule) if rule.to != part(other, 0) => 4,
        Some(_) | None => 3,
    }
}

/// One level for each label from the first on in which endpoint and edge differ. `key=value` compares with that value
/// in place of the edge's own.
fn by_labels(order: &[String], endpoint: &Labelled<'_>, own: Own<'_>) -> u32 {
    let is_same = |label: &&String| {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label.as_str(), own.labels.get(label.as_str()).map(String::as_str)),
        };
        endpoint.label(key) == wanted
    };
    let same = order.iter().take_while(is_same).count();
    u32::try_from(order.len() - same).unwrap_or(u32::MAX)
}

/// Numbers the levels from 0 on, with none left out.
fn prioritise(cluster: &mut Cluster, priorities: Vec<u32>) {
    let levels: BTreeSet<_> = priorities.iter().copied().collect();
    for (endpoint, priority) in cluster.endpoints.iter_mut().zip(&priorities) {
        let level = levels.iter().position(|level| level == priority).unwrap_or(0);
        endpoint.priority = u32::try_from(level).unwrap_or(0);
    }
    if levels.len() > 1 {
        cluster.locality = LocalityPolicy::Priority;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_that_of_the_first_part_that_differs() {
        let failover = [Failover {
            from: "eu".into(),
            to: "us".into(),
        }];
        for (other, expected) in [
            ("eu/a/1", 0),
            ("eu/a/2", 1),
            ("eu/b/1", 2),
            ("us/a/1", 3),
            ("asia/a/1", 4),
            ("", 4),
        ] {
            assert_eq!(by_distance("eu/a/1", other, &failover), expected, "{other}");
        }
        assert_eq!(by_distance("eu/a/1", "asia/a/1", &[]), 3);
    }

    #[test]
    fn patterns_take_whole_parts() {
        for (locality, pattern, expected) in [
            ("eu/a/1", "*", true),
            ("eu/a/1", "eu/*", true),
            ("eu/a/1", "eu/a", true),
            ("eu/a/1", "eu/b/*", false),
            ("eu", "eu/a", false),
            ("eu/ab", "eu/a", false),
        ] {
            assert_eq!(is_within(locality, pattern), expected, "{locality} {pattern}");
        }
    }
}
