use super::testing::{assert_fits, cluster, epoch};
use super::*;
use crate::{ActiveRequest, outlier};
use edge_model::{ConsistentHash, HashAlgorithm, HashKey, LocalityPolicy, OutlierDetection, SlowStart};
use proptest::prelude::{ProptestConfig, prop, prop_assert, proptest};
use std::time::Duration;

const POLICIES: [LoadBalancer; 3] = [
    LoadBalancer::RoundRobin,
    LoadBalancer::LeastRequest,
    LoadBalancer::Random,
];

fn hashing() -> LoadBalancer {
    LoadBalancer::ConsistentHash(ConsistentHash {
        key: HashKey::SourceIp,
        algorithm: HashAlgorithm::RingHash {
            minimum_ring_size: 1024,
        },
    })
}

fn balancer_of(cluster: Cluster, rng: &mut Rng) -> Balancer {
    let load = ClusterLoad::new(&cluster, None, epoch());
    Balancer::new(&Arc::new(cluster), load, 0, rng)
}

fn balancer(policy: LoadBalancer, weights: &[u32], rng: &mut Rng) -> Balancer {
    balancer_of(cluster(policy, weights), rng)
}

fn at(now: u64) -> Pick<'static> {
    Pick {
        now,
        ..Pick::default()
    }
}

fn counts_at(balancer: &mut Balancer, now: u64, picks: usize, rng: &mut Rng) -> Vec<u64> {
    let mut counts = vec![0; balancer.cluster.endpoints.len()];
    for _ in 0..picks {
        counts[balancer.pick(at(now), rng).unwrap()] += 1;
    }
    counts
}

fn counts(policy: LoadBalancer, weights: &[u32], picks: usize, seed: u64) -> Vec<u64> {
    let mut rng = Rng::with_seed(seed);
    counts_at(&mut balancer(policy, weights, &mut rng), 0, picks, &mut rng)
}

/// Ejects an endpoint for a second.
fn eject(balancer: &Balancer, index: usize, now: u64) {
    let policy = OutlierDetection {
        consecutive_5xx: Some(1),
        base_ejection_time: Duration::from_secs(1),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    outlier::report(
        &policy,
        balancer.load(),
        index,
        outlier::Outcome::Status(500),
        now,
    )
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_idle_cluster_is_shared_by_weight_under_every_policy(
        weights in prop::collection::vec(1u32..20, 2..8), seed: u64
    ) {
        for policy in POLICIES.into_iter().chain([hashing()]) {
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
            let pick = Pick { tried: &tried, ..Pick::default() };
            let picked = balancer(policy.clone(), &weights, &mut rng).pick(pick, &mut rng).unwrap();
            prop_assert!(picked < weights.len());
            prop_assert!(!fresh || !tried.contains(&picked), "{policy:?} took {picked}");
        }
    }
}

#[test]
fn a_cluster_without_endpoints_gives_none() {
    for policy in POLICIES.into_iter().chain([hashing()]) {
        let mut rng = Rng::with_seed(1);
        let picked = balancer(policy.clone(), &[], &mut rng).pick(at(0), &mut rng);
        assert_eq!(picked, None, "{policy:?}");
    }
}

#[test]
fn round_robin_gives_each_of_equal_endpoints_its_turn() {
    assert_eq!(
        counts(LoadBalancer::RoundRobin, &[1, 1, 1], 300, 7),
        [100, 100, 100]
    );
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
    assert_eq!(
        counts_at(&mut balancer, 0, 1000, &mut rng)[2],
        0,
        "two distinct endpoints are compared, so the busy one never wins"
    );
    drop(busy);
    assert!(counts_at(&mut balancer, 0, 1000, &mut rng)[2] > 0);
}

#[test]
fn least_request_shares_by_weight_over_requests_under_way() {
    // Weights, requests under way, and the shares that are left by Envoy's formula: weight / (active + 1).
    for (weights, active, shares) in [
        (&[3, 1][..], &[0, 0][..], &[3, 1][..]),
        (&[3, 1], &[2, 0], &[1, 1]),
        (&[3, 1], &[0, 1], &[6, 1]),
        (&[1, 2, 4], &[0, 3, 3], &[2, 1, 2]),
        // One small endpoint that is idle does not take what a large one with a single request could.
        (&[99, 1], &[1, 0], &[99, 2]),
    ] {
        let mut rng = Rng::with_seed(5);
        let mut balancer = balancer(LoadBalancer::LeastRequest, weights, &mut rng);
        let begin = |(index, active): (usize, &usize)| {
            let load = balancer.load().get(index).unwrap();
            (0..*active)
                .map(|_| ActiveRequest::begin(load))
                .collect::<Vec<_>>()
        };
        let held: Vec<_> = active.iter().enumerate().map(begin).collect();
        let rounds = 100;
        let picks = rounds * shares.iter().sum::<usize>();
        for (count, share) in counts_at(&mut balancer, 0, picks, &mut rng)
            .into_iter()
            .zip(shares)
        {
            // Turns are exact but for where each endpoint's first one falls.
            let expected = u64::try_from(rounds * share).unwrap();
            assert!(
                count.abs_diff(expected) <= 1 + expected / 50,
                "{weights:?} {active:?}: {count}"
            );
        }
        drop(held);
    }
}

#[test]
fn least_request_with_one_ejected_still_compares_two_of_the_rest() {
    let mut rng = Rng::with_seed(4);
    let mut balancer = balancer(LoadBalancer::LeastRequest, &[1, 1, 1], &mut rng);
    eject(&balancer, 0, 0);
    let _busy = ActiveRequest::begin(balancer.load().get(1).unwrap());
    assert_eq!(counts_at(&mut balancer, 1, 100, &mut rng), [0, 0, 100]);
}

#[test]
fn an_ejected_endpoint_gets_nothing_until_its_time_is_over() {
    for policy in POLICIES.into_iter().chain([hashing()]) {
        let mut rng = Rng::with_seed(2);
        let mut balancer = balancer(policy.clone(), &[1, 1, 1], &mut rng);
        eject(&balancer, 1, 500);
        assert_eq!(counts_at(&mut balancer, 500, 300, &mut rng)[1], 0, "{policy:?}");
        assert_eq!(counts_at(&mut balancer, 1499, 300, &mut rng)[1], 0, "{policy:?}");
        assert!(
            counts_at(&mut balancer, 1500, 300, &mut rng)[1] > 50,
            "{policy:?}"
        );
    }
}

#[test]
fn with_every_endpoint_ejected_there_is_none_unless_panic_is_allowed() {
    let mut rng = Rng::with_seed(2);
    for (min_health_percent, expected) in [(0, None), (50, Some(0))] {
        let mut cluster = cluster(LoadBalancer::RoundRobin, &[1]);
        cluster.outlier_detection = Some(OutlierDetection {
            min_health_percent,
            ..OutlierDetection::default()
        });
        let mut balancer = balancer_of(cluster, &mut rng);
        eject(&balancer, 0, 0);
        assert_eq!(balancer.pick(at(1), &mut rng), expected, "{min_health_percent} %");
    }
}

#[test]
fn a_key_stays_with_its_endpoint_and_comes_back_to_it() {
    let mut rng = Rng::with_seed(2);
    let mut balancer = balancer(hashing(), &[1, 1, 1, 1], &mut rng);
    let mut pick = |balancer: &mut Balancer, user: u32, now| {
        let hash = Some(hash_key(&user.to_be_bytes()));
        let pick = Pick {
            now,
            hash,
            ..Pick::default()
        };
        balancer.pick(pick, &mut rng).unwrap()
    };
    let homes: Vec<_> = (0..500).map(|user| pick(&mut balancer, user, 0)).collect();
    eject(&balancer, 2, 0);
    for (user, home) in (0..).zip(&homes) {
        let now = pick(&mut balancer, user, 10);
        assert!(now == *home || *home == 2 && now != 2, "user {user}");
        assert_eq!(
            pick(&mut balancer, user, 1000),
            *home,
            "user {user} after the ejection"
        );
        eject_again(&balancer);
    }
}

/// Wakes the balancer's look at health without a change of it.
fn eject_again(balancer: &Balancer) {
    balancer.load().health_changed();
}

#[test]
fn priorities_are_used_in_order_and_overflow() {
    let mut rng = Rng::with_seed(9);
    let mut cluster = cluster(LoadBalancer::Random, &[1; 6]);
    cluster.locality = LocalityPolicy::Priority;
    for (endpoint, priority) in cluster.endpoints.iter_mut().zip([1, 1, 0, 0, 0, 0]) {
        endpoint.priority = priority;
    }
    let mut balancer = balancer_of(cluster, &mut rng);
    assert_eq!(counts_at(&mut balancer, 0, 1000, &mut rng)[..2], [0, 0]);
    eject(&balancer, 2, 0);
    assert_eq!(
        counts_at(&mut balancer, 1, 1000, &mut rng)[..2],
        [0, 0],
        "three of four still carry it all"
    );
    eject(&balancer, 3, 1);
    let counts = counts_at(&mut balancer, 2, 20_000, &mut rng);
    assert_fits(&[counts[0] + counts[1], counts[4] + counts[5]], &[30, 70]);
}

#[test]
fn localities_share_as_distributed() {
    let mut rng = Rng::with_seed(9);
    let mut cluster = cluster(LoadBalancer::RoundRobin, &[1, 1, 3, 1]);
    cluster.locality = LocalityPolicy::Distribute(vec![("r/a".into(), 80), ("r/b".into(), 20)]);
    for (endpoint, zone) in cluster.endpoints.iter_mut().zip(["r/a", "r/b", "r/b", "r/a"]) {
        endpoint.locality = zone.into();
    }
    let mut balancer = balancer_of(cluster, &mut rng);
    let counts = counts_at(&mut balancer, 0, 20_000, &mut rng);
    assert_fits(&[counts[0] + counts[3], counts[1] + counts[2]], &[80, 20]);
    assert!(
        (2.7..3.3).contains(&(counts[2] as f64 / counts[1] as f64)),
        "{counts:?}"
    );
}

#[test]
fn a_retry_leaves_its_priority_when_all_of_it_was_tried() {
    let mut rng = Rng::with_seed(9);
    let mut cluster = cluster(LoadBalancer::Random, &[1, 1, 1]);
    cluster.locality = LocalityPolicy::Distribute(vec![("a".into(), 1), ("b".into(), 1)]);
    for (endpoint, zone) in cluster.endpoints.iter_mut().zip(["a", "a", "b"]) {
        endpoint.locality = zone.into();
    }
    let mut balancer = balancer_of(cluster, &mut rng);
    for _ in 0..50 {
        let pick = Pick {
            tried: &[0, 1],
            ..Pick::default()
        };
        assert_eq!(balancer.pick(pick, &mut rng), Some(2));
    }
}

#[test]
fn a_new_endpoint_takes_its_share_little_by_little() {
    let start = epoch();
    let mut rng = Rng::with_seed(6);
    for policy in [LoadBalancer::RoundRobin, LoadBalancer::LeastRequest] {
        let slow = |weights: &[u32]| Cluster {
            slow_start: Some(SlowStart {
                duration: Duration::from_secs(10),
                minimum_percent: 10.0,
                aggression: 1.0,
            }),
            ..cluster(policy.clone(), weights)
        };
        let before = ClusterLoad::new(&slow(&[1]), None, start);
        let grown = slow(&[1, 1]);
        let load = ClusterLoad::new(&grown, Some(&before), start + Duration::from_secs(20));
        let mut balancer = Balancer::new(&Arc::new(grown), load, 20_000, &mut rng);
        for (now, weights) in [(20_000, [10, 1]), (25_000, [2, 1]), (40_000, [1, 1])] {
            assert_fits(&counts_at(&mut balancer, now, 20_000, &mut rng), &weights);
        }
    }
}

#[test]
fn priorities_in_which_tries_have_failed_are_left_for_others_where_it_is_asked_for() {
    let mut own = cluster(LoadBalancer::Random, &[1; 5]);
    own.locality = LocalityPolicy::Priority;
    for (endpoint, priority) in own.endpoints.iter_mut().zip([0, 0, 0, 1, 2]) {
        endpoint.priority = priority;
    }
    let mut rng = Rng::with_seed(5);
    let mut balancer = balancer_of(own, &mut rng);
    let rows: [(bool, &[usize], &[usize]); 6] = [
        (true, &[], &[0, 1, 2]),
        (true, &[0], &[1, 2]),
        (true, &[0, 1], &[3]),
        (true, &[0, 1, 3], &[2]),
        (true, &[0, 1, 3, 2], &[4]),
        (false, &[0, 1], &[2]),
    ];
    for (leave_priorities, tried, expected) in rows {
        for _ in 0..50 {
            let pick = Pick {
                tried,
                leave_priorities,
                ..Pick::default()
            };
            let picked = balancer.pick(pick, &mut rng).unwrap();
            assert!(
                expected.contains(&picked),
                "{leave_priorities} {tried:?}: {picked}"
            );
        }
    }
}
