//! Token bucket in one word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_model::TokenBucket;

/// Ticks per nanosecond. Finer than a nanosecond, so that rates of millions per second are kept without rounding
/// that anyone could measure; coarse enough that 64 bits last nine years.
const TICKS_PER_NANOSECOND: u64 = 64;

/// A point in time, in ticks since the limiter was made.
pub(super) fn ticks(elapsed: Duration) -> u64 {
    let ticks = elapsed
        .as_nanos()
        .saturating_mul(u128::from(TICKS_PER_NANOSECOND));
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// What a bucket says about a request, as the `x-ratelimit-*` headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Most tokens that the bucket holds.
    pub limit: u32,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// Time until the next token, when none is left; else zero.
    pub reset: Duration,
}

/// Size and speed of a bucket. Tokens come evenly over the fill interval, as in Envoy since 1.31, and not in one
/// heap at its end.
///
/// The state of a bucket is the tick at which it will be full again (the generic cell rate algorithm). Taking a token
/// moves that tick on by `cost`; a token is there as long as the tick is at most `depth` ahead of the present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    limit: u32,
    /// Ticks that one token takes to come, rounded up: the bucket never gives more than it should.
    cost: u64,
    /// Ticks that an empty bucket takes to fill.
    depth: u64,
}

impl Shape {
    pub(super) fn new(bucket: &TokenBucket) -> Self {
        let cost = ticks(bucket.fill_interval)
            .div_ceil(u64::from(bucket.tokens_per_fill).max(1))
            .max(1);
        Self {
            limit: bucket.max_tokens,
            cost,
            // Half of the range is left for the present. It is out of reach for a bucket that fills in four years.
            depth: cost
                .saturating_mul(u64::from(bucket.max_tokens))
                .min(u64::MAX / 2),
        }
    }

    /// Orders shapes from the slowest to the fastest.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// The state after one more token was taken; `None` when there was none.
    pub(super) fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let next = full_at.max(now).saturating_add(self.cost);
        (next <= now.saturating_add(self.depth)).then_some(next)
    }

    /// What is left in the given state.
    pub(super) fn quota(&self, full_at: u64, now: u64) -> Quota {
        let missing = full_at.saturating_sub(now);
        let left = self.depth.saturating_sub(missing) / self.cost;
        let until_next = match left {
            0 => (missing + self.cost).saturating_sub(self.depth),
            _ => 0,
        };
        Quota {
            limit: self.limit,
            remaining: u32::try_from(left).unwrap_or(u32::MAX).min(self.limit),
            reset: Duration::from_nanos(until_next.div_ceil(TICKS_PER_NANOSECOND)),
        }
    }
}

/// A bucket that all workers take from.
#[derive(Debug)]
pub(super) struct SharedBucket {
    shape: Shape,
    full_at: AtomicU64,
}

impl SharedBucket {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes a token; the quota says what is left, `Err` that there was none.
    pub(super) fn take(&self, now: u64) -> Result<Quota, Quota> {
        // Relaxed: the word is all there is to agree on.
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                self.shape.take(full_at, now)
            });
        match taken {
            Ok(before) => {
                let after = self.shape.take(before, now).unwrap_or(before);
                Ok(self.shape.quota(after, now))
            }
            Err(full_at) => Err(self.shape.quota(full_at, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, fill_ms: u64) -> TokenBucket {
        TokenBucket {
            max_tokens,
            tokens_per_fill,
            fill_interval: Duration::from_millis(fill_ms),
        }
    }

    fn shared(bucket: &TokenBucket) -> SharedBucket {
        SharedBucket::new(Shape::new(bucket))
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_depth_and_its_rate(
            max in 1u32..1000, per_fill in 1u32..1000, fill_ms in 50u64..5000,
            steps in prop::collection::vec(0u64..300_000_000, 1..400)
        ) {
            let definition = bucket(max, per_fill, fill_ms);
            let bucket = shared(&definition);
            let (mut now, mut given) = (0u64, 0u128);
            for step in steps {
                now += step;
                while given < 20_000 && bucket.take(ticks(Duration::from_nanos(now))).is_ok() {
                    given += 1;
                }
                let filled = u128::from(now) * u128::from(per_fill) / definition.fill_interval.as_nanos();
                prop_assert!(given <= u128::from(max) + filled, "{given} at {now} ns");
            }
        }

        #[test]
        fn a_bucket_that_rested_for_one_fill_gives_the_tokens_of_one_fill(
            max in 1u32..500, per_fill in 1u32..500, fill_ms in 50u64..5000
        ) {
            let bucket = shared(&bucket(max, per_fill, fill_ms));
            while bucket.take(0).is_ok() {}
            // A microsecond for the rounding of the cost, at most a tick for each token.
            let now = ticks(Duration::from_millis(fill_ms) + Duration::from_micros(1));
            let given = std::iter::repeat_with(|| bucket.take(now)).take_while(Result::is_ok).count();
            prop_assert_eq!(given, per_fill.min(max) as usize);
        }
    }

    #[test]
    fn headers_tell_what_is_left_and_when_the_next_token_comes() {
        let bucket = shared(&bucket(2, 2, 60_000));
        let take = |seconds| {
            let told = |quota: Quota| (quota.limit, quota.remaining, quota.reset.as_secs());
            let taken = bucket.take(ticks(Duration::from_secs(seconds)));
            taken.map(told).map_err(told)
        };
        assert_eq!(take(0), Ok((2, 1, 0)));
        assert_eq!(take(0), Ok((2, 0, 30)));
        assert_eq!(take(0), Err((2, 0, 30)));
        assert_eq!(take(29), Err((2, 0, 1)));
        assert_eq!(take(30), Ok((2, 0, 30)));
    }

    #[test]
    fn extreme_definitions_neither_overflow_nor_divide_by_zero() {
        for definition in [
            bucket(u32::MAX, u32::MAX, 50),
            bucket(u32::MAX, 1, u64::MAX / 2),
            bucket(1, 1, 50),
        ] {
            let bucket = shared(&definition);
            for now in [0, 1, u64::MAX / 2, u64::MAX] {
                let _ = bucket.take(now);
            }
        }
        assert!(shared(&bucket(u32::MAX, u32::MAX, 50)).take(0).is_ok());
    }

    #[test]
    fn workers_that_take_at_once_share_exactly_the_tokens_there_are() {
        let bucket = shared(&bucket(1000, 1, 60_000));
        let given: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.take(0).is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(given, 1000);
    }
}
