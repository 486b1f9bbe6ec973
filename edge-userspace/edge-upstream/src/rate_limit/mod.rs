//! Local rate limits (Envoy `extensions.filters.http.local_ratelimit.v3.LocalRateLimit`).
//!
//! A limit is the node's: every worker takes from the same buckets. A bucket is one atomic word, so that the count
//! is exact whatever the number of workers, and no worker ever waits for another.

mod bucket;
mod descriptor;
mod limiter;

use std::sync::Arc;
use std::time::Instant;

use edge_model::LocalRateLimit;

pub use bucket::Quota;
pub use descriptor::{Descriptor, descriptors};
pub use limiter::{Decision, LocalRateLimiter};

/// The limiters of a configuration, one for each distinct [`LocalRateLimit`].
///
/// Places that hold an equal limit of the same EnvoyFilter share its buckets, and a limit whose definition stays
/// the same keeps its buckets from one configuration to the next: a reload gives nobody fresh tokens.
#[derive(Debug, Clone, Default)]
pub struct Limiters(Vec<Arc<LocalRateLimiter>>);

impl Limiters {
    /// Limiters for the next configuration, carried over from this one where the definition is the same.
    #[must_use]
    pub fn next<'a>(&self, limits: impl IntoIterator<Item = &'a Arc<LocalRateLimit>>, now: Instant) -> Self {
        let mut next = Self::default();
        for limit in limits {
            if next.get(limit).is_none() {
                let kept = self.get(limit).cloned();
                let limiter = kept.unwrap_or_else(|| Arc::new(LocalRateLimiter::new(Arc::clone(limit), now)));
                next.0.push(limiter);
            }
        }
        next
    }

    /// The limiter of a limit that was given to [`Self::next`].
    #[must_use]
    pub fn get(&self, limit: &Arc<LocalRateLimit>) -> Option<&Arc<LocalRateLimiter>> {
        let same = |own: &Arc<LocalRateLimit>| Arc::ptr_eq(own, limit) || own == limit;
        self.0.iter().find(|limiter| same(limiter.limit()))
    }
}

#[cfg(test)]
mod tests {
    use super::limiter::testing::{base, bucket, limit};
    use super::*;

    #[test]
    fn an_unchanged_limit_keeps_its_buckets_and_a_changed_one_starts_full() {
        let (now, mut rng) = (base(), fastrand::Rng::with_seed(1));
        let same = Arc::new(limit(Some(bucket(1, 1, 60_000)), vec![]));
        let first = Limiters::default().next([&same], now);
        first.get(&same).unwrap().check(&[], now, &mut rng);

        let equal = Arc::new(LocalRateLimit::clone(&same));
        let changed = Arc::new(limit(Some(bucket(2, 1, 60_000)), vec![]));
        let second = first.next([&equal, &changed], now);
        let mut check = |limit| second.get(limit).unwrap().check(&[], now, &mut rng);
        assert!(matches!(check(&equal), Decision::OverLimit { .. }));
        assert!(matches!(check(&changed), Decision::Allowed(_)));
    }

    #[test]
    fn equal_limits_share_one_limiter() {
        let one = Arc::new(limit(Some(bucket(1, 1, 60_000)), vec![]));
        let other = Arc::new(LocalRateLimit::clone(&one));
        let limiters = Limiters::default().next([&one, &other], base());
        assert!(Arc::ptr_eq(
            limiters.get(&one).unwrap(),
            limiters.get(&other).unwrap()
        ));
    }
}
