//! Consistent hashing: requests with the same key go to the same endpoint (Istio `ConsistentHashLB`).
//!
//! The tables hold every endpoint, also one that is left out at the moment. A key whose endpoint is out is sent on to
//! another one, and no key of an endpoint that is in ever moves.

use edge_model::HashAlgorithm;

/// A key's hash: FNV-1a, spread over all 64 bits by the finaliser of SplitMix64. Nodes of one version agree on it.
#[must_use]
pub fn hash_key(key: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(key.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finaliser of SplitMix64: each bit of the input changes half of the output's.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Endpoints by hash; the values are positions in the list that the table was made from.
#[derive(Debug)]
pub(crate) enum Table {
    /// Points in ascending order. A hash belongs to the first point that is not below it.
    Ring(Vec<(u64, u32)>),
    Maglev(Vec<u32>),
}

/// Most points of a ring (Envoy's `maximum_ring_size`).
const MAX_RING: usize = 8 * 1024 * 1024;
/// Endpoints up to which each has as many points as the ring's minimum. With more, fewer spread as well.
const FEW: usize = 64;
/// Largest Maglev table that Envoy takes.
const MAX_MAGLEV: u64 = 5_000_011;

impl Table {
    /// A table of endpoints given by name and weight.
    pub(crate) fn new(algorithm: HashAlgorithm, endpoints: &[(String, u32)]) -> Self {
        match algorithm {
            HashAlgorithm::RingHash { minimum_ring_size } => Self::Ring(ring(minimum_ring_size, endpoints)),
            HashAlgorithm::Maglev { table_size } => {
                Self::Maglev(maglev(table_size.clamp(1, MAX_MAGLEV), endpoints))
            }
        }
    }

    /// The endpoint of a hash, or the next one that may be taken.
    pub(crate) fn find(&self, hash: u64, mut may_take: impl FnMut(usize) -> bool) -> Option<usize> {
        match self {
            Self::Ring(points) => {
                let start = points.partition_point(|(point, _)| *point < hash);
                let (before, from) = points.split_at(start.min(points.len()));
                let mut owners = from.iter().chain(before).map(|(_, owner)| *owner as usize);
                owners.find(|owner| may_take(*owner))
            }
            Self::Maglev(slots) => {
                let size = u64::try_from(slots.len()).ok().filter(|size| *size > 0)?;
                // Further hashes spread the keys of one endpoint that is out over all others.
                let hashes = std::iter::successors(Some(hash), |hash| Some(mix(hash.wrapping_add(1))));
                let slot = |hash: u64| slots.get(usize::try_from(hash % size).unwrap_or(0));
                let drawn = hashes
                    .take(MAGLEV_DRAWS)
                    .filter_map(slot)
                    .map(|owner| *owner as usize);
                let mut found = drawn.filter(|owner| may_take(*owner));
                let first = found.next();
                drop(found);
                // Nearly all are out: the first in the table that is not.
                first.or_else(|| {
                    slots
                        .iter()
                        .map(|owner| *owner as usize)
                        .find(|owner| may_take(*owner))
                })
            }
        }
    }
}

/// Hashes tried before the table is searched: with half of the endpoints out, one in 65,536 keys needs the search.
const MAGLEV_DRAWS: usize = 16;

/// Each endpoint has points of its own that depend on nothing but its name and its share of the largest weight, so that
/// one more or less moves no key between others.
fn ring(minimum: u64, endpoints: &[(String, u32)]) -> Vec<(u64, u32)> {
    let full = usize::try_from(minimum).unwrap_or(MAX_RING).max(1);
    let full = if endpoints.len() > FEW {
        full.div_ceil(4)
    } else {
        full
    };
    let full = full.min(MAX_RING / endpoints.len().max(1)).max(1);
    let largest = endpoints
        .iter()
        .map(|(_, weight)| *weight)
        .max()
        .unwrap_or(1)
        .max(1);
    let mut points = Vec::new();
    for (owner, (name, weight)) in (0u32..).zip(endpoints) {
        let share = u64::try_from(full)
            .unwrap_or(u64::MAX)
            .saturating_mul(u64::from(*weight));
        let count = (share / u64::from(largest)).max(1);
        let seed = hash_key(name.as_bytes());
        points.extend((0..count).map(|at| (mix(seed ^ mix(at.wrapping_add(1))), owner)));
    }
    points.sort_unstable();
    points
}

/// Maglev's table (Eisenbud et al., NSDI 2016, section 3.4), weighted as in Envoy: an endpoint takes a slot in the rounds
/// that its share of the largest weight gives it.
fn maglev(slots: u64, endpoints: &[(String, u32)]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let largest = endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if largest == 0 {
        return Vec::new();
    }
    let mut wishes: Vec<_> = endpoints
        .iter()
        .map(|(name, weight)| {
            let seed = hash_key(name.as_bytes());
            let skip = mix(seed ^ 0x5bd1_e995) % slots.saturating_sub(1).max(1) + 1;
            Wish {
                next: seed % slots,
                skip,
                weight: u64::from(*weight),
                credit: 0,
            }
        })
        .collect();
    let mut table = vec![FREE; usize::try_from(slots).unwrap_or(0)];
    let mut left = table.len();
    while left > 0 {
        for (owner, wish) in (0u32..).zip(&mut wishes) {
            wish.credit += wish.weight;
            if wish.credit < u64::from(largest) || left == 0 {
                continue;
            }
            wish.credit -= u64::from(largest);
            // The table's size is a prime, so the steps visit every slot and come upon a free one.
            for _ in 0..table.len() {
                let slot = table.get_mut(usize::try_from(wish.next).unwrap_or(0));
                wish.next = (wish.next + wish.skip) % slots;
                if let Some(slot) = slot.filter(|slot| **slot == FREE) {
                    *slot = owner;
                    left -= 1;
                    break;
                }
            }
        }
    }
    table
}

/// An endpoint's order of slots, and how near it is to its next turn.
struct Wish {
    next: u64,
    skip: u64,
    weight: u64,
    credit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: HashAlgorithm = HashAlgorithm::RingHash {
        minimum_ring_size: 1024,
    };
    const MAGLEV: HashAlgorithm = HashAlgorithm::Maglev { table_size: 65_537 };
    const KINDS: [HashAlgorithm; 2] = [RING, MAGLEV];

    fn named(weights: &[u32]) -> Vec<(String, u32)> {
        let name = |(at, weight): (usize, &u32)| (format!("192.0.2.{at}:8080"), *weight);
        weights.iter().enumerate().map(name).collect()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..20_000u32).map(|user| hash_key(format!("user-{user}").as_bytes()))
    }

    #[test]
    fn keys_are_shared_in_proportion_to_weights() {
        for kind in KINDS {
            for weights in [vec![1, 1, 1, 1], vec![1, 2, 5], vec![1; 100]] {
                let table = Table::new(kind, &named(&weights));
                let mut counts = vec![0f64; weights.len()];
                keys().for_each(|key| counts[table.find(key, |_| true).unwrap()] += 1.0);
                let sum: u32 = weights.iter().sum();
                for (count, weight) in counts.iter().zip(&weights) {
                    let expected = 20_000.0 * f64::from(*weight) / f64::from(sum);
                    // A ring of n points has a relative spread of about 1/sqrt(n) for each endpoint.
                    assert!(
                        (count - expected).abs() < expected * 0.4,
                        "{kind:?} {weights:?} {counts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_key_of_an_endpoint_that_is_in_moves_when_another_is_out() {
        for kind in KINDS {
            let table = Table::new(kind, &named(&[1, 1, 1, 1]));
            let mut taken_over = [0; 4];
            for key in keys() {
                let before = table.find(key, |_| true).unwrap();
                let after = table.find(key, |owner| owner != 2).unwrap();
                assert!(before == after || before == 2, "{kind:?}");
                taken_over[after] += usize::from(before == 2);
            }
            assert!(
                [0, 1, 3].iter().all(|at| taken_over[*at] > 500),
                "{kind:?} {taken_over:?}"
            );
        }
    }

    #[test]
    fn few_keys_of_other_endpoints_move_when_one_is_removed_from_the_list() {
        for kind in KINDS {
            let all = named(&[1; 8]);
            let fewer: Vec<_> = all
                .iter()
                .filter(|(name, _)| *name != all[3].0)
                .cloned()
                .collect();
            let (before, after) = (Table::new(kind, &all), Table::new(kind, &fewer));
            let moved = keys().filter(|key| {
                let was = &all[before.find(*key, |_| true).unwrap()].0;
                let is = &fewer[after.find(*key, |_| true).unwrap()].0;
                *was != all[3].0 && was != is
            });
            // None on a ring; Maglev trades a little for its even shares.
            let bound = if kind == RING { 0 } else { 600 };
            assert!(moved.count() <= bound, "{kind:?}");
        }
    }

    #[test]
    fn the_last_endpoint_that_is_in_takes_everything_and_none_takes_nothing() {
        for kind in KINDS {
            let table = Table::new(kind, &named(&[1; 40]));
            assert!(
                keys()
                    .take(500)
                    .all(|key| table.find(key, |owner| owner == 7) == Some(7))
            );
            assert_eq!(table.find(1, |_| false), None);
            assert_eq!(Table::new(kind, &[]).find(1, |_| true), None);
        }
    }

    #[test]
    fn odd_sizes_do_no_harm() {
        for kind in [
            HashAlgorithm::RingHash { minimum_ring_size: 0 },
            HashAlgorithm::RingHash {
                minimum_ring_size: u64::MAX,
            },
            HashAlgorithm::Maglev { table_size: 0 },
        ] {
            let table = Table::new(kind, &named(&[1, u32::MAX]));
            assert!(table.find(u64::MAX, |_| true).is_some(), "{kind:?}");
        }
    }
}
