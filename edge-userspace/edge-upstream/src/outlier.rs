//! Outlier detection: endpoints that keep failing are left out for a while (Istio `OutlierDetection`).
//!
//! Counts are atomics of the endpoint, shared by all workers. Nothing runs in the background: an ejection is a point in
//! time until which the endpoint is left out, and what Envoy does at each `interval` (it lets the next ejection be
//! shorter again after a time without one) is worked out from the time that has passed when it matters.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use edge_model::OutlierDetection;

use crate::ClusterLoad;

/// How a try at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response with this status (of gRPC: its HTTP equivalent).
    Status(u16),
    /// No connection could be made.
    ConnectFailure,
    /// No answer in time.
    Timeout,
    /// The connection ended before a response.
    Reset,
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Responses 5xx in a row.
    Consecutive5xx,
    /// Responses 502, 503 or 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures without a response in a row.
    ConsecutiveLocalOriginFailure,
}

impl Cause {
    /// Envoy's name, as in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
        }
    }
}

/// An endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: Cause,
    /// For how long.
    pub lasts: Duration,
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Record {
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// End of the last ejection in milliseconds of the cluster's clock; 0 when there was none.
    ejected_until: AtomicU64,
    /// How often the base time is multiplied for the last ejection.
    multiplier: AtomicU32,
    /// Ejections ever.
    ejections: AtomicU64,
}

impl Record {
    pub(crate) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Acquire)
    }

    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }
}

/// Takes account of a try at the endpoint at `index`, at `now` milliseconds of the cluster's clock.
///
/// Without a policy nothing is counted; a success where nothing had failed before writes nothing to shared memory.
pub fn report(
    policy: &OutlierDetection,
    load: &ClusterLoad,
    index: usize,
    outcome: Outcome,
    now: u64,
) -> Option<Ejection> {
    let record = &load.get(index)?.outlier;
    let cause = count(policy, record, outcome)?;
    eject(policy, load, index, now).map(|lasts| Ejection { cause, lasts })
}

/// Counts; the cause when a threshold was reached.
fn count(policy: &OutlierDetection, record: &Record, outcome: Outcome) -> Option<Cause> {
    let status = match outcome {
        Outcome::Status(status) => {
            if policy.split_external_local_origin_errors {
                reset(&record.local_failures);
            }
            status
        }
        // Envoy's `DetectorHostMonitorImpl::localOriginFailureNoSplit` takes these for the statuses they lead to.
        Outcome::Timeout if !policy.split_external_local_origin_errors => 504,
        Outcome::ConnectFailure | Outcome::Reset if !policy.split_external_local_origin_errors => 503,
        Outcome::ConnectFailure | Outcome::Timeout | Outcome::Reset => {
            let reached = is_reached(&record.local_failures, policy.consecutive_local_origin_failures);
            return reached.then_some(Cause::ConsecutiveLocalOriginFailure);
        }
    };
    let gateway = match status {
        502..=504 => is_reached(&record.gateway_errors, policy.consecutive_gateway_errors),
        _ => {
            reset(&record.gateway_errors);
            false
        }
    };
    let is_server_error = match policy.error_codes.as_slice() {
        [] => (500..=599).contains(&status),
        codes => codes.iter().any(|code| code.as_u16() == status),
    };
    let server = if is_server_error {
        is_reached(&record.server_errors, policy.consecutive_5xx)
    } else {
        reset(&record.server_errors);
        false
    };
    match (gateway, server) {
        (true, _) => Some(Cause::ConsecutiveGatewayFailure),
        (false, true) => Some(Cause::Consecutive5xx),
        (false, false) => None,
    }
}

/// One more in a row. The count begins anew once the threshold is reached, whether or not an ejection follows.
fn is_reached(count: &AtomicU32, threshold: Option<u32>) -> bool {
    let Some(threshold) = threshold.filter(|threshold| *threshold > 0) else {
        return false;
    };
    let reached = count.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= threshold;
    if reached {
        reset(count);
    }
    reached
}

fn reset(count: &AtomicU32) {
    // Reads first: a line that is only read stays in every worker's cache.
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}

/// Leaves the endpoint out, unless too many are out already or it is.
fn eject(policy: &OutlierDetection, load: &ClusterLoad, index: usize, now: u64) -> Option<Duration> {
    let record = &load.get(index)?.outlier;
    let last_end = record.ejected_until();
    if last_end > now {
        return None;
    }
    let out = load
        .all()
        .filter(|other| other.outlier.ejected_until() > now)
        .count();
    let share_after = (out + 1) * 100;
    if out > 0 && share_after > load.len() * usize::try_from(policy.max_ejection_percent).unwrap_or(100) {
        return None;
    }
    let multiplier = next_multiplier(policy, record, last_end, now);
    let longest = policy.max_ejection_time.max(policy.base_ejection_time);
    let lasts = policy.base_ejection_time.saturating_mul(multiplier).min(longest);
    let until = now.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
    // Whoever of several workers comes first ejects; the others saw the same failures.
    record
        .ejected_until
        .compare_exchange(last_end, until, Ordering::AcqRel, Ordering::Acquire)
        .ok()?;
    record.multiplier.store(multiplier, Ordering::Relaxed);
    record.ejections.fetch_add(1, Ordering::Relaxed);
    load.health_changed();
    Some(lasts)
}

/// One more than last time, less one for each whole interval that the endpoint has been back.
fn next_multiplier(policy: &OutlierDetection, record: &Record, last_end: u64, now: u64) -> u32 {
    let interval = policy.interval.as_millis().max(1);
    let back_for = u128::from(now.saturating_sub(last_end));
    let intervals = u32::try_from(back_for / interval).unwrap_or(u32::MAX);
    let last = record.multiplier.load(Ordering::Relaxed);
    last.saturating_sub(intervals).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{cluster, epoch};
    use edge_model::LoadBalancer;

    fn one_second() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: Some(3),
            consecutive_local_origin_failures: Some(2),
            interval: Duration::from_secs(1),
            base_ejection_time: Duration::from_secs(1),
            max_ejection_time: Duration::from_secs(3),
            max_ejection_percent: 50,
            ..OutlierDetection::default()
        }
    }

    fn load(endpoints: usize) -> ClusterLoad {
        ClusterLoad::new(&cluster(LoadBalancer::Random, &vec![1; endpoints]), None, epoch())
    }

    /// The ejections that a row of outcomes at endpoint 0 brings, as (number of the outcome, cause).
    fn ejections(policy: &OutlierDetection, outcomes: &[Outcome]) -> Vec<(usize, Cause)> {
        let load = load(4);
        let report = |(at, outcome): (usize, &Outcome)| {
            report(policy, &load, 0, *outcome, 10).map(|ejection| (at + 1, ejection.cause))
        };
        outcomes.iter().enumerate().filter_map(report).collect()
    }

    /// Name, policy, outcomes, ejections.
    type Row<'a> = (&'a str, &'a OutlierDetection, &'a [Outcome], &'a [(usize, Cause)]);

    #[test]
    fn errors_count_only_in_a_row_and_by_their_kind() {
        use Outcome::{ConnectFailure, Reset, Status, Timeout};
        let plain = one_second();
        let gateway = OutlierDetection {
            consecutive_5xx: None,
            consecutive_gateway_errors: Some(2),
            ..one_second()
        };
        let split = OutlierDetection {
            split_external_local_origin_errors: true,
            ..one_second()
        };
        let off = OutlierDetection {
            consecutive_5xx: Some(0),
            ..one_second()
        };
        let coded = OutlierDetection {
            error_codes: vec![http::StatusCode::TOO_MANY_REQUESTS],
            ..one_second()
        };
        let rows: [Row<'_>; 12] = [
            (
                "three 5xx eject",
                &plain,
                &[Status(500), Status(503), Status(599)],
                &[(3, Cause::Consecutive5xx)],
            ),
            (
                "a success begins the count anew",
                &plain,
                &[Status(500), Status(500), Status(404), Status(500), Status(500)],
                &[],
            ),
            (
                "failures to connect, resets and timeouts count as 5xx",
                &plain,
                &[ConnectFailure, Reset, Timeout],
                &[(3, Cause::Consecutive5xx)],
            ),
            (
                "gateway errors are 502 to 504",
                &gateway,
                &[Status(502), Status(504)],
                &[(2, Cause::ConsecutiveGatewayFailure)],
            ),
            (
                "500 is no gateway error",
                &gateway,
                &[Status(502), Status(500), Status(503)],
                &[],
            ),
            (
                "a failure to connect is a gateway error",
                &gateway,
                &[ConnectFailure, Timeout],
                &[(2, Cause::ConsecutiveGatewayFailure)],
            ),
            (
                "split, failures without a response have a count of their own",
                &split,
                &[ConnectFailure, Reset],
                &[(2, Cause::ConsecutiveLocalOriginFailure)],
            ),
            (
                "split, they are no 5xx",
                &split,
                &[Status(500), ConnectFailure, Status(500)],
                &[],
            ),
            (
                "split, any response ends their row",
                &split,
                &[Timeout, Status(500), Timeout],
                &[],
            ),
            (
                "given codes stand in place of the 5xx",
                &coded,
                &[Status(500), Status(429), Status(429), Status(429)],
                &[(4, Cause::Consecutive5xx)],
            ),
            ("zero switches a threshold off", &off, &[Status(500); 50], &[]),
            (
                "an endpoint that is out is not ejected again",
                &plain,
                &[Status(500); 9],
                &[(3, Cause::Consecutive5xx)],
            ),
        ];
        for (name, policy, outcomes, expected) in rows {
            assert_eq!(ejections(policy, outcomes), expected, "{name}");
        }
    }

    fn fail(policy: &OutlierDetection, load: &ClusterLoad, index: usize, now: u64) -> Option<u64> {
        let mut last = (0..3).filter_map(|_| report(policy, load, index, Outcome::Status(500), now));
        last.next_back().map(|ejection| ejection.lasts.as_secs())
    }

    #[test]
    fn each_ejection_lasts_a_base_time_longer_up_to_the_longest() {
        let (load, plain) = (load(2), one_second());
        let mut now = 0;
        for expected in [1, 2, 3, 3] {
            assert_eq!(fail(&plain, &load, 0, now), Some(expected), "at {now}");
            assert!(load.is_ejected(0, now) && load.is_ejected(0, now + expected * 1000 - 1));
            now += expected * 1000;
            assert!(!load.is_ejected(0, now));
        }
        assert_eq!(load.get(0).unwrap().ejections(), 4);
    }

    #[test]
    fn intervals_without_an_ejection_make_the_next_one_shorter() {
        let (load, plain) = (load(2), one_second());
        assert_eq!(fail(&plain, &load, 0, 0), Some(1));
        assert_eq!(fail(&plain, &load, 0, 1000), Some(2));
        assert_eq!(fail(&plain, &load, 0, 4000), Some(2), "back for one interval");
        assert_eq!(fail(&plain, &load, 0, 60_000), Some(1), "back for many intervals");
    }

    #[test]
    fn only_a_share_of_the_endpoints_is_out_at_once_and_one_always_may_be() {
        for (endpoints, percent, expected) in [
            (4, 50, 2),
            (10, 10, 1),
            (3, 10, 1),
            (1, 0, 1),
            (4, 100, 4),
            (5, 50, 2),
        ] {
            let policy = OutlierDetection {
                max_ejection_percent: percent,
                ..one_second()
            };
            let load = load(endpoints);
            let out = (0..endpoints).filter(|index| fail(&policy, &load, *index, 5).is_some());
            assert_eq!(out.count(), expected, "{percent} % of {endpoints}");
        }
    }

    #[test]
    fn of_workers_that_see_the_same_failures_one_ejects() {
        let (load, plain) = (load(4), one_second());
        let ejected: usize = std::thread::scope(|scope| {
            let worker = || {
                (0..300)
                    .filter(|_| report(&plain, &load, 0, Outcome::Reset, 1).is_some())
                    .count()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(ejected, 1);
    }
}
