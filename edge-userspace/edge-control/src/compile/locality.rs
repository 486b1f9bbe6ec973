//! Preference of near endpoints (istio `pilot/pkg/networking/core/loadbalancer`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edge_config::istio::destination_rule::policy::{Distribute, Failover, LocalityLbSetting};
use edge_model::{DnsEndpoint, Endpoint, LocalityPolicy};

/// Where the edge itself is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'r> {
    /// `region/zone/subzone`; empty when it is not known.
    pub(crate) locality: &'r str,
    pub(crate) labels: &'r BTreeMap<String, String>,
}

/// An endpoint, or a name that will be resolved to some, as far as localities matter.
pub(crate) trait Placed {
    fn locality(&self) -> &Arc<str>;
    fn weight(&self) -> u32;
    fn set_priority(&mut self, priority: u32);
}

impl Placed for Endpoint {
    fn locality(&self) -> &Arc<str> {
        &self.locality
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn set_priority(&mut self, priority: u32) {
        self.priority = priority;
    }
}

impl Placed for DnsEndpoint {
    fn locality(&self) -> &Arc<str> {
        &self.locality
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn set_priority(&mut self, priority: u32) {
        self.priority = priority;
    }
}

/// Labels of a workload.
pub(crate) type Labels<'r> = Option<&'r BTreeMap<String, String>>;

/// Endpoints and names of a cluster, each with the labels of its workload.
#[derive(Default)]
pub(crate) struct Places<'r> {
    pub(crate) endpoints: Vec<(Endpoint, Labels<'r>)>,
    pub(crate) names: Vec<(DnsEndpoint, Labels<'r>)>,
}

impl<'r> Places<'r> {
    fn all(&self) -> impl Iterator<Item = (&dyn Placed, Labels<'r>)> {
        let endpoints = self
            .endpoints
            .iter()
            .map(|(own, labels)| (own as &dyn Placed, *labels));
        let names = self
            .names
            .iter()
            .map(|(own, labels)| (own as &dyn Placed, *labels));
        endpoints.chain(names)
    }

    /// Numbers the levels from 0 on, with none left out; how many there are.
    fn prioritise(&mut self, priorities: &[u32]) -> usize {
        let levels: BTreeSet<_> = priorities.iter().copied().collect();
        let endpoints = self.endpoints.iter_mut().map(|(own, _)| own as &mut dyn Placed);
        let names = self.names.iter_mut().map(|(own, _)| own as &mut dyn Placed);
        for (place, priority) in endpoints.chain(names).zip(priorities) {
            let level = levels.iter().position(|level| level == priority).unwrap_or(0);
            place.set_priority(u32::try_from(level).unwrap_or(0));
        }
        levels.len()
    }
}

/// Gives the endpoints and names of a cluster their priorities, or the localities their shares. Without outlier
/// detection nothing would ever fail over, so priorities need it (Istio).
pub(crate) fn apply(
    places: &mut Places<'_>,
    has_outliers: bool,
    settings: Option<&LocalityLbSetting>,
    own: Own<'_>,
) -> LocalityPolicy {
    let empty = LocalityLbSetting::default();
    // Istio's mesh-wide default is on, without settings of its own.
    let settings = settings.unwrap_or(&empty);
    if settings.enabled == Some(false) {
        return LocalityPolicy::Off;
    }
    if !settings.distribute.is_empty() {
        return match own_rule(&settings.distribute, own.locality) {
            Some(rule) => LocalityPolicy::Distribute(distribute(places, rule)),
            None => LocalityPolicy::Off,
        };
    }
    let by_labels = has_outliers && !settings.failover_priority.is_empty();
    let by_place = has_outliers && !own.locality.is_empty();
    let priorities: Vec<_> = match (by_labels, by_place) {
        (true, _) => {
            let order = &settings.failover_priority;
            places
                .all()
                .map(|(_, labels)| self::by_labels(order, labels, own))
                .collect()
        }
        (false, true) => places
            .all()
            .map(|(place, _)| by_distance(own.locality, place.locality(), &settings.failover))
            .collect(),
        (false, false) => return LocalityPolicy::Off,
    };
    match places.prioritise(&priorities) {
        0 | 1 => LocalityPolicy::Off,
        _ => LocalityPolicy::Priority,
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
fn distribute(places: &mut Places<'_>, rule: &Distribute) -> Vec<(Arc<str>, u32)> {
    let mut weights: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for (place, _) in places.all() {
        *weights.entry(Arc::clone(place.locality())).or_default() += u64::from(place.weight());
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
    places
        .endpoints
        .retain(|(endpoint, _)| is_kept(&endpoint.locality));
    places.names.retain(|(name, _)| is_kept(&name.locality));
    shares
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
fn by_labels(order: &[String], labels: Labels<'_>, own: Own<'_>) -> u32 {
    let is_same = |label: &&String| {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label.as_str(), own.labels.get(label.as_str()).map(String::as_str)),
        };
        labels.and_then(|labels| labels.get(key)).map(String::as_str) == wanted
    };
    let same = order.iter().take_while(is_same).count();
    u32::try_from(order.len() - same).unwrap_or(u32::MAX)
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
