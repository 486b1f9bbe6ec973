//! How a cluster's load is shared between priorities, and between the localities of one priority.
//!
//! Envoy's rules: a priority takes what its healthy endpoints can carry, overprovisioned by 140 %; what it cannot goes
//! to the next one. A locality's weight shrinks in the same way. See Envoy `LoadBalancerBase::recalculatePerPriorityState`
//! and `HostSetImpl::effectiveLocalityWeight`.

/// Overprovisioning factor in percent: a level with 72 % of its endpoints still takes all of its load.
const OVERPROVISIONING: u64 = 140;

/// Endpoints of one priority and locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) priority: u32,
    /// Weight of the locality; 0 takes nothing.
    pub(super) weight: u32,
    pub(super) healthy: u64,
    pub(super) total: u64,
}

/// What one group of endpoints gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// In proportion to the shares of all groups.
    pub(super) load: u64,
    /// Too few endpoints are healthy: all are used, as the rest would break down under the whole load.
    pub(super) panic: bool,
}

/// Percent of the members that carry load, overprovisioned.
fn health(healthy: u64, total: u64) -> u64 {
    match total {
        0 => 0,
        total => (healthy * OVERPROVISIONING / total).min(100),
    }
}

/// Shares of `groups`, which stand in the order of their priorities. A priority is in panic when less than
/// `panic_threshold` percent of its endpoints are healthy and no other can take its load; 0 never.
pub(super) fn shares(groups: &[Members], panic_threshold: u32) -> Vec<Share> {
    let mut priorities: Vec<u32> = groups.iter().map(|group| group.priority).collect();
    priorities.dedup();
    let of = |priority: u32| groups.iter().filter(move |group| group.priority == priority);
    let sums = |priority| {
        let healthy: u64 = of(priority).map(|group| group.healthy).sum();
        let total: u64 = of(priority).map(|group| group.total).sum();
        (healthy, total)
    };
    let levels: Vec<(u32, u64, u64)> = priorities
        .iter()
        .map(|priority| (*priority, sums(*priority).0, sums(*priority).1))
        .collect();
    let loads = priority_loads(&levels);
    let whole: u64 = levels
        .iter()
        .map(|(_, healthy, total)| health(*healthy, *total))
        .sum();
    let threshold = u64::from(panic_threshold);
    let in_panic: Vec<bool> = levels
        .iter()
        .map(|(_, healthy, total)| whole < 100 && threshold > 0 && healthy * 100 < threshold * total)
        .collect();
    let total_panic = whole == 0 && in_panic.iter().any(|panic| *panic);
    groups
        .iter()
        .map(|group| {
            let at = priorities
                .iter()
                .position(|priority| *priority == group.priority)
                .unwrap_or(0);
            let panic = in_panic.get(at).copied().unwrap_or(false);
            // With nobody healthy anywhere, endpoints count alike.
            let level = match total_panic {
                true => levels.get(at).map_or(0, |(_, _, total)| *total * 100),
                false => loads.get(at).copied().unwrap_or(0),
            };
            let weight = |group: &Members| match panic {
                true => u64::from(group.weight) * 100 * u64::from(group.total > 0),
                false => u64::from(group.weight) * health(group.healthy, group.total),
            };
            let sum: u64 = of(group.priority).map(weight).sum();
            // A millionth is the smallest share that is told apart.
            let load = (level * 1_000_000 * weight(group)).checked_div(sum).unwrap_or(0);
            Share { load, panic }
        })
        .collect()
}

/// Percent of the load for each priority.
fn priority_loads(levels: &[(u32, u64, u64)]) -> Vec<u64> {
    let healths: Vec<u64> = levels
        .iter()
        .map(|(_, healthy, total)| health(*healthy, *total))
        .collect();
    let whole = healths.iter().sum::<u64>().min(100);
    let mut left = 100;
    let mut loads: Vec<u64> = healths
        .iter()
        .map(|health| {
            let load = (health * 100).checked_div(whole).unwrap_or(0).min(left);
            left -= load;
            load
        })
        .collect();
    // What rounding left over goes to the first that takes anything.
    if let Some(first) = loads.iter_mut().find(|load| **load > 0) {
        *first += left;
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups as (priority, weight, healthy, total); expected loads in percent.
    #[track_caller]
    fn check(name: &str, threshold: u32, groups: &[(u32, u32, u64, u64)], expected: &[u64]) {
        let members: Vec<_> = groups
            .iter()
            .map(|(priority, weight, healthy, total)| Members {
                priority: *priority,
                weight: *weight,
                healthy: *healthy,
                total: *total,
            })
            .collect();
        let shares = shares(&members, threshold);
        let sum: u64 = shares.iter().map(|share| share.load).sum();
        let percent: Vec<_> = shares
            .iter()
            .map(|share| (share.load * 100 + sum / 2).checked_div(sum).unwrap_or(0))
            .collect();
        assert_eq!(percent, expected, "{name}");
    }

    #[test]
    fn load_flows_over_to_the_next_priority_as_endpoints_fail() {
        check("all healthy", 0, &[(0, 1, 4, 4), (1, 1, 4, 4)], &[100, 0]);
        check(
            "three of four still carry it all",
            0,
            &[(0, 1, 3, 4), (1, 1, 4, 4)],
            &[100, 0],
        );
        check("half carry 70 %", 0, &[(0, 1, 2, 4), (1, 1, 4, 4)], &[70, 30]);
        check("none", 0, &[(0, 1, 0, 4), (1, 1, 4, 4)], &[0, 100]);
        check(
            "three levels",
            0,
            &[(0, 1, 1, 4), (1, 1, 1, 4), (2, 1, 4, 4)],
            &[35, 35, 30],
        );
        check(
            "too little in all is shared in proportion",
            0,
            &[(0, 1, 1, 4), (1, 1, 1, 4)],
            &[50, 50],
        );
        check("nobody, no panic", 0, &[(0, 1, 0, 4), (1, 1, 0, 4)], &[0, 0]);
    }

    #[test]
    fn localities_share_by_weight_and_lose_with_their_endpoints() {
        check("by weight", 0, &[(0, 80, 4, 4), (0, 20, 4, 4)], &[80, 20]);
        check("half of one", 0, &[(0, 50, 2, 4), (0, 50, 4, 4)], &[41, 59]);
        check("one is empty", 0, &[(0, 80, 0, 4), (0, 20, 4, 4)], &[0, 100]);
        check(
            "weight 0 takes nothing",
            0,
            &[(0, 0, 4, 4), (0, 20, 4, 4)],
            &[0, 100],
        );
    }

    #[test]
    fn in_panic_every_endpoint_is_used() {
        check("one of four under 50 %", 50, &[(0, 1, 1, 4)], &[100]);
        check("nobody under 50 %", 50, &[(0, 1, 0, 4), (1, 1, 0, 2)], &[67, 33]);
        let alone = Members {
            priority: 0,
            weight: 1,
            healthy: 1,
            total: 4,
        };
        assert!(shares(&[alone], 50)[0].panic);
        assert!(!shares(&[alone], 25)[0].panic, "not below the threshold");
        assert!(!shares(&[alone], 0)[0].panic, "0 switches it off");
        let next = Members {
            priority: 1,
            healthy: 4,
            ..alone
        };
        assert!(
            !shares(&[alone, next], 50)[0].panic,
            "another priority takes the load"
        );
    }
}
