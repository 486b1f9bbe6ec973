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

/// Retries of a cluster that may be under way at once, while `active` requests are.
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
