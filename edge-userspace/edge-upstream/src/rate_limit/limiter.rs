//! One local rate limit at work.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use edge_model::{DescriptorBucket, LocalRateLimit};
use fastrand::Rng;

use super::bucket::{Quota, Shape, SharedBucket, ticks};
use super::descriptor::Descriptor;
use crate::generations::Generations;

/// Locks over which the buckets of one descriptor are spread: workers that count different clients rarely meet.
const SHARDS: usize = 16;

/// Most values of a descriptor that have a bucket at one time; about 8 MB when they are addresses.
const MAX_VALUES: usize = 65_536;

/// What a limit says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The limit does not count this request: no bucket is meant for it, or `filter_enabled` left it out.
    NotCounted,
    /// A token was there.
    Allowed(Quota),
    /// No token was left.
    OverLimit {
        /// State of the bucket that had none.
        quota: Quota,
        /// Whether the request is to be refused (`filter_enforced`), or only counted.
        enforced: bool,
    },
}

/// The buckets of one [`LocalRateLimit`], shared by all workers.
#[derive(Debug)]
pub struct LocalRateLimiter {
    limit: Arc<LocalRateLimit>,
    started: Instant,
    default: Option<SharedBucket>,
    /// Slowest first: the strictest bucket decides, as in Envoy.
    descriptors: Vec<(DescriptorBucket, Shape, Buckets)>,
}

#[derive(Debug)]
enum Buckets {
    One(SharedBucket),
    /// One bucket for each value of the entries that have none fixed; what is kept is the bucket's state.
    PerValue {
        hasher: RandomState,
        shards: Box<[Mutex<Generations<String, u64>>]>,
    },
}

impl LocalRateLimiter {
    /// Full buckets for `limit`.
    #[must_use]
    pub fn new(limit: Arc<LocalRateLimit>, now: Instant) -> Self {
        let mut descriptors: Vec<_> = limit
            .descriptors
            .iter()
            .map(|bucket| {
                let shape = Shape::new(&bucket.bucket);
                (bucket.clone(), shape, Buckets::new(bucket, shape))
            })
            .collect();
        descriptors.sort_by_key(|(_, shape, _)| std::cmp::Reverse(shape.cost()));
        let default = limit
            .bucket
            .as_ref()
            .map(|bucket| SharedBucket::new(Shape::new(bucket)));
        Self {
            limit,
            started: now,
            default,
            descriptors,
        }
    }

    /// Its definition.
    #[must_use]
    pub fn limit(&self) -> &Arc<LocalRateLimit> {
        &self.limit
    }

    /// Takes a token from each bucket that is meant for a request with `descriptors`, the default bucket last
    /// (Envoy `always_consume_default_token_bucket`); the first empty one decides.
    pub fn check(&self, descriptors: &[Descriptor<'_>], now: Instant, rng: &mut Rng) -> Decision {
        if !self.limit.enabled.takes(draw(rng)) {
            return Decision::NotCounted;
        }
        let now = ticks(now.saturating_duration_since(self.started));
        match self.take(descriptors, now) {
            None => Decision::NotCounted,
            Some(Ok(quota)) => Decision::Allowed(quota),
            Some(Err(quota)) => Decision::OverLimit {
                quota,
                enforced: self.limit.enforced.takes(draw(rng)),
            },
        }
    }

    /// `None` when no bucket is meant for the request. The quota of the strictest bucket is the one that is told.
    fn take(&self, descriptors: &[Descriptor<'_>], now: u64) -> Option<Result<Quota, Quota>> {
        let mut strictest = None;
        for (bucket, shape, buckets) in &self.descriptors {
            for descriptor in descriptors.iter().filter(|descriptor| descriptor.matches(bucket)) {
                match buckets.take(&descriptor.open_values(bucket), shape, now) {
                    Ok(quota) => strictest = strictest.or(Some(quota)),
                    Err(quota) => return Some(Err(quota)),
                }
            }
        }
        match self.default.as_ref().map(|bucket| bucket.take(now)) {
            Some(Err(quota)) => Some(Err(quota)),
            Some(Ok(quota)) => Some(Ok(strictest.unwrap_or(quota))),
            None => strictest.map(Ok),
        }
    }
}

impl Buckets {
    fn new(bucket: &DescriptorBucket, shape: Shape) -> Self {
        if bucket.entries.iter().all(|entry| entry.value.is_some()) {
            return Self::One(SharedBucket::new(shape));
        }
        let shard = || Mutex::new(Generations::new(MAX_VALUES / SHARDS));
        Self::PerValue {
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    fn take(&self, value: &str, shape: &Shape, now: u64) -> Result<Quota, Quota> {
        let (hasher, shards) = match self {
            Self::One(bucket) => return bucket.take(now),
            Self::PerValue { hasher, shards } => (hasher, shards),
        };
        let shard = hasher.hash_one(value) as usize % shards.len();
        // A panic under the lock cannot leave a state half written: it is one word.
        let mut buckets = shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        buckets.with(
            value,
            || 0,
            |full_at| match shape.take(*full_at, now) {
                Some(next) => {
                    *full_at = next;
                    Ok(shape.quota(next, now))
                }
                None => Err(shape.quota(*full_at, now)),
            },
        )
    }
}

/// A draw for [`edge_model::Fraction::takes`].
fn draw(rng: &mut Rng) -> u32 {
    rng.u32(..1_000_000)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use edge_model::{Fraction, Kind, ObjectRef, RateLimitEntry, TokenBucket};
    use http::StatusCode;
    use std::time::Duration;

    /// A point in time to count from.
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    pub(crate) fn base() -> Instant {
        Instant::now()
    }

    pub(crate) fn bucket(max_tokens: u32, tokens_per_fill: u32, fill_ms: u64) -> TokenBucket {
        TokenBucket {
            max_tokens,
            tokens_per_fill,
            fill_interval: Duration::from_millis(fill_ms),
        }
    }

    /// A limit in force for all requests. A descriptor is a key, a value if one is fixed, and its bucket.
    pub(crate) fn limit(
        default: Option<TokenBucket>,
        descriptors: Vec<(&str, Option<&str>, TokenBucket)>,
    ) -> LocalRateLimit {
        let descriptor = |(key, value, bucket): (&str, Option<&str>, _)| DescriptorBucket {
            entries: vec![RateLimitEntry {
                key: key.to_owned(),
                value: value.map(str::to_owned),
            }],
            bucket,
        };
        LocalRateLimit {
            object: ObjectRef {
                kind: Kind::EnvoyFilter,
                namespace: "istio-system".into(),
                name: "limit".into(),
            },
            stat_prefix: "limit".into(),
            bucket: default,
            descriptors: descriptors.into_iter().map(descriptor).collect(),
            enabled: Fraction::ALWAYS,
            enforced: Fraction::ALWAYS,
            status: StatusCode::TOO_MANY_REQUESTS,
            response_headers: vec![],
            x_ratelimit_headers: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{base, bucket, limit};
    use super::*;
    use crate::rate_limit::descriptors;
    use edge_model::{Fraction, RateLimitAction, RateLimitDescriptor};
    use http::HeaderMap;
    use std::time::Duration;

    /// How many of `requests` from `source` are let through at once.
    fn passed(limiter: &LocalRateLimiter, source: &str, requests: usize, now: Instant) -> usize {
        let wanted = [RateLimitDescriptor {
            actions: vec![RateLimitAction::RemoteAddress],
        }];
        let headers = HeaderMap::new();
        let asked = descriptors(&wanted, source.parse().unwrap(), &headers);
        let mut rng = Rng::with_seed(9);
        (0..requests)
            .filter(|_| {
                !matches!(
                    limiter.check(&asked, now, &mut rng),
                    Decision::OverLimit { enforced: true, .. }
                )
            })
            .count()
    }

    fn limiter(limit: LocalRateLimit) -> LocalRateLimiter {
        LocalRateLimiter::new(Arc::new(limit), base())
    }

    #[test]
    fn an_entry_without_value_gives_each_value_its_own_bucket() {
        let limiter = limiter(limit(None, vec![("remote_address", None, bucket(5, 5, 1000))]));
        let now = limiter.started;
        assert_eq!(passed(&limiter, "192.0.2.1", 20, now), 5);
        assert_eq!(passed(&limiter, "192.0.2.2", 20, now), 5);
        assert_eq!(
            passed(&limiter, "192.0.2.1", 20, now + Duration::from_millis(600)),
            3
        );
    }

    #[test]
    fn a_fixed_value_limits_the_one_source_only() {
        let limiter = limiter(limit(
            None,
            vec![("remote_address", Some("192.0.2.1"), bucket(5, 5, 1000))],
        ));
        assert_eq!(passed(&limiter, "192.0.2.1", 20, limiter.started), 5);
        assert_eq!(passed(&limiter, "192.0.2.2", 20, limiter.started), 20);
    }

    #[test]
    fn the_default_bucket_counts_requests_with_descriptors_too() {
        let per_source = ("remote_address", None, bucket(5, 5, 1000));
        let limiter = limiter(limit(Some(bucket(7, 7, 1000)), vec![per_source]));
        assert_eq!(passed(&limiter, "192.0.2.1", 20, limiter.started), 5);
        assert_eq!(passed(&limiter, "192.0.2.2", 20, limiter.started), 2);
    }

    #[test]
    fn the_slowest_matching_bucket_decides_whatever_the_order() {
        let fast = ("remote_address", None, bucket(100, 100, 1000));
        let slow = ("remote_address", Some("192.0.2.1"), bucket(100, 1, 1000));
        for descriptors in [vec![fast, slow], vec![slow, fast]] {
            let limiter = limiter(limit(None, descriptors));
            passed(&limiter, "192.0.2.1", 100, limiter.started);
            assert_eq!(
                passed(
                    &limiter,
                    "192.0.2.1",
                    100,
                    limiter.started + Duration::from_secs(5)
                ),
                5
            );
        }
    }

    #[test]
    fn fractions_choose_what_is_counted_and_what_is_refused() {
        for (enabled, enforced, expected) in [
            (Fraction::ALWAYS, Fraction::NEVER, 10_000..=10_000),
            (Fraction::NEVER, Fraction::ALWAYS, 10_000..=10_000),
            (Fraction::ALWAYS, Fraction::per_million(250_000), 7_300..=7_700),
            (Fraction::per_million(500_000), Fraction::ALWAYS, 4_800..=5_200),
        ] {
            let limit = LocalRateLimit {
                enabled,
                enforced,
                ..limit(Some(bucket(1, 1, 3_600_000)), vec![])
            };
            let limiter = limiter(limit);
            let passed = passed(&limiter, "192.0.2.1", 10_000, limiter.started);
            assert!(expected.contains(&passed), "{enabled:?} {enforced:?}: {passed}");
        }
    }
}
