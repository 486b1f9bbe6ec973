//! Circuit breakers: how much of a cluster may be in use at once (Istio `ConnectionPoolSettings`).
//!
//! Counts are held once for all workers, in atomics. A worker takes a place before it acts and gives it back when the
//! guard is dropped, so a limit is never exceeded, not even for a moment: taking is one compare-and-swap loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use edge_model::{CircuitBreakers, RetryBudget};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Connections to the cluster's endpoints (`tcp.maxConnections`).
    Connections,
    /// Requests that wait for a connection (`http.http1MaxPendingRequests`).
    Pending,
    /// Requests under way (`http.http2MaxRequests`).
    Requests,
    /// Retries under way (`http.maxRetries`, and the retry budget).
    Retries,
}

/// Every resource, in the order of their counts.
const RESOURCES: [Resource; 4] = [
    Resource::Connections,
    Resource::Pending,
    Resource::Requests,
    Resource::Retries,
];

impl Resource {
    /// Name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Connections => 0,
            Self::Pending => 1,
            Self::Requests => 2,
            Self::Retries => 3,
        }
    }
}

/// What a cluster has in use, over all workers.
#[derive(Debug, Default)]
pub struct Circuit {
    in_use: [AtomicU32; RESOURCES.len()],
    overflows: [AtomicU64; RESOURCES.len()],
    recent: Recent,
}

/// Requests of about the last interval: those of the present one, and the share of the one before that a window of the
/// same length still covers. Written only where a retry budget asks for it.
#[derive(Debug, Default)]
struct Recent {
    /// Number of the present interval.
    interval: AtomicU64,
    present: AtomicU32,
    before: AtomicU32,
}

impl Recent {
    /// Turns to the interval of `now`. Of several workers one turns; what the others count in that moment may land in
    /// either interval.
    fn turn(&self, now: u64, length: u64) {
        let number = now / length;
        let last = self.interval.load(Ordering::Relaxed);
        let turned = self
            .interval
            .compare_exchange(last, number, Ordering::Relaxed, Ordering::Relaxed);
        if number > last && turned.is_ok() {
            let ended = self.present.swap(0, Ordering::Relaxed);
            let before = if number == last + 1 { ended } else { 0 };
            self.before.store(before, Ordering::Relaxed);
        }
    }

    fn count(&self, now: u64, length: u64) -> u32 {
        self.turn(now, length);
        let left = length - now % length;
        let before = u64::from(self.before.load(Ordering::Relaxed)) * left / length;
        let present = self.present.load(Ordering::Relaxed);
        present.saturating_add(u32::try_from(before).unwrap_or(u32::MAX))
    }
}

impl Circuit {
    /// Takes one place of `resource` when fewer than `limit` are taken; counts an overflow when not.
    pub fn take(self: &Arc<Self>, resource: Resource, limit: u32) -> Option<Place> {
        let count = &self.in_use[resource.index()];
        // Relaxed: the word is all there is to agree on.
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < limit).then(|| taken.saturating_add(1))
        });
        match taken {
            Ok(_) => Some(Place {
                circuit: Arc::clone(self),
                resource,
            }),
            Err(_) => {
                self.overflows[resource.index()].fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Counts a request that begins at `now` milliseconds, where the retry budget is a share of those of some time.
    pub fn began(&self, breakers: &CircuitBreakers, now: u64) {
        if let Some(length) = interval(breakers) {
            self.recent.turn(now, length);
            self.recent.present.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests that a retry budget is a share of at `now` milliseconds: those under way or, with `budgetInterval`, those
    /// that began within it, if they are more.
    #[must_use]
    pub fn requests(&self, breakers: &CircuitBreakers, now: u64) -> u32 {
        let active = self.in_use(Resource::Requests);
        interval(breakers).map_or(active, |length| active.max(self.recent.count(now, length)))
    }

    /// Places taken now.
    #[must_use]
    pub fn in_use(&self, resource: Resource) -> u32 {
        self.in_use[resource.index()].load(Ordering::Relaxed)
    }

    /// How often no place was left, by resource.
    pub fn overflows(&self) -> impl Iterator<Item = (Resource, u64)> + use<'_> {
        let load = |resource: Resource| self.overflows[resource.index()].load(Ordering::Relaxed);
        RESOURCES
            .into_iter()
            .map(move |resource| (resource, load(resource)))
    }
}

/// A place taken; given back when dropped.
#[derive(Debug)]
pub struct Place {
    circuit: Arc<Circuit>,
    resource: Resource,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.circuit.in_use[self.resource.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Milliseconds over which a retry budget counts requests.
fn interval(breakers: &CircuitBreakers) -> Option<u64> {
    let interval = breakers.retry_budget?.budget_interval?;
    Some(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Retries of a cluster that may be under way at once, while `active` requests are ([`Circuit::requests`]).
///
/// With a `retryBudget` its share of the load counts, else `maxRetries`. Where neither is set, retries add at most half
/// of the load: under a failure of everything they never double it, and the few retries of one failing endpoint among
/// good ones are not held back.
#[must_use]
pub fn retry_limit(breakers: &CircuitBreakers, active: u32) -> u32 {
    const UNLESS_SET: RetryBudget = RetryBudget {
        percent: 50.0,
        min_retry_concurrency: 64,
        budget_interval: None,
    };
    match breakers.retry_budget {
        Some(budget) => share(&budget, active),
        None if breakers.max_retries == u32::MAX => share(&UNLESS_SET, active),
        None => breakers.max_retries,
    }
}

fn share(budget: &RetryBudget, active: u32) -> u32 {
    let share = (f64::from(active) * budget.percent.clamp(0.0, 100.0) / 100.0).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a u32 is a u32"
    )]
    let share = share as u32;
    share.max(budget.min_retry_concurrency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_until_a_place_is_given_back() {
        let circuit = Arc::new(Circuit::default());
        let take = || circuit.take(Resource::Requests, 2);
        let (first, second) = (take().unwrap(), take());
        assert!(second.is_some() && take().is_none());
        assert!(
            circuit.take(Resource::Pending, 2).is_some(),
            "resources are counted apart"
        );
        drop(first);
        assert!(take().is_some());
        let overflows: Vec<_> = circuit.overflows().map(|(_, count)| count).collect();
        assert_eq!(overflows, [0, 0, 1, 0]);
    }

    #[test]
    fn a_limit_of_none_lets_nothing_pass() {
        assert!(
            Arc::new(Circuit::default())
                .take(Resource::Connections, 0)
                .is_none()
        );
    }

    #[test]
    fn workers_together_never_exceed_a_limit() {
        let circuit = Arc::new(Circuit::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let place = circuit.take(Resource::Requests, 3);
                        assert!(circuit.in_use(Resource::Requests) <= 3);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(circuit.in_use(Resource::Requests), 0);
    }

    #[test]
    fn a_budget_with_an_interval_counts_the_requests_of_that_time() {
        let breakers = CircuitBreakers {
            retry_budget: Some(RetryBudget {
                percent: 20.0,
                min_retry_concurrency: 0,
                budget_interval: Some(std::time::Duration::from_secs(10)),
            }),
            ..CircuitBreakers::default()
        };
        let circuit = Arc::new(Circuit::default());
        for at in 0..100 {
            circuit.began(&breakers, 20_000 + at);
        }
        for (now, expected) in [
            (20_100, 100),
            (29_999, 100),
            (30_000, 100),
            (35_000, 50),
            (39_000, 10),
            (40_000, 0),
        ] {
            assert_eq!(circuit.requests(&breakers, now), expected, "{now}");
        }
        let without = CircuitBreakers::default();
        circuit.began(&without, 50_000);
        let _active = circuit.take(Resource::Requests, 1);
        assert_eq!(circuit.requests(&without, 50_000), 1);
        assert_eq!(
            circuit.requests(&breakers, 90_000),
            1,
            "those under way count at least"
        );
    }

    #[test]
    fn a_retry_budget_is_a_share_of_the_load_with_a_floor() {
        let budget = |percent, min_retry_concurrency| CircuitBreakers {
            retry_budget: Some(RetryBudget {
                percent,
                min_retry_concurrency,
                budget_interval: None,
            }),
            ..CircuitBreakers::default()
        };
        let most = |max_retries| CircuitBreakers {
            max_retries,
            ..CircuitBreakers::default()
        };
        for (breakers, active, expected) in [
            (budget(20.0, 3), 0, 3),
            (budget(20.0, 3), 100, 20),
            (budget(20.0, 0), 4, 0),
            (budget(100.0, 0), 7, 7),
            (budget(250.0, 0), u32::MAX, u32::MAX),
            (most(5), 1000, 5),
            (most(u32::MAX), 1000, 500),
            (most(u32::MAX), 10, 64),
        ] {
            assert_eq!(retry_limit(&breakers, active), expected, "{breakers:?} {active}");
        }
    }
}
