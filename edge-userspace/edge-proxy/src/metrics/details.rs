//! Statistics of single endpoints, and of routes that have a name for it (`match.statPrefix`), as Envoy's Prometheus endpoint
//! names them.
//!
//! Their number is bounded: beyond [`MOST`] of either kind the longest gone leaves, and where none is gone, further ones are
//! counted together.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::counting::Counting;
use super::requests::DURATION_BUCKETS;
use super::{counters, register};

/// Most endpoints, and most names of routes, with series of their own.
const MOST: usize = 4096;

/// What both labels say of all others.
const REST: &str = "other";

/// A kind of things that have statistics.
pub(crate) trait Kind: fmt::Debug {
    /// Handles of one thing's metrics.
    type Series;

    /// The series with these two labels.
    fn series(&self, labels: [&str; 2]) -> Self::Series;

    fn remove(&self, labels: [&str; 2]);
}

/// The two labels of a thing.
type Key = [Box<str>; 2];

/// All things of one kind that have statistics.
#[derive(Debug)]
pub(crate) struct Details<K> {
    kind: K,
    known: Mutex<Counting<Key, ()>>,
}

/// Counts for one thing while it is held.
#[derive(Debug)]
pub(crate) struct Counted<K: Kind> {
    details: Arc<Details<K>>,
    /// `None` among the rest.
    key: Option<Key>,
    pub(crate) series: K::Series,
}

impl<K: Kind> Details<K> {
    pub(super) fn new(kind: K) -> Arc<Self> {
        Arc::new(Self {
            kind,
            known: Mutex::default(),
        })
    }

    /// One more counts for the thing with these labels.
    pub(crate) fn enter(self: &Arc<Self>, labels: [&str; 2]) -> Counted<K> {
        let key = labels.map(Into::into);
        // Whoever panicked under the lock left at worst one that never leaves.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = self.enter_known(&mut known, &key);
        let details = Arc::clone(self);
        // Under the lock, so that none is removed meanwhile.
        match is_own {
            true => Counted {
                details,
                series: self.kind.series(labels),
                key: Some(key),
            },
            false => Counted {
                details,
                series: self.kind.series([REST; 2]),
                key: None,
            },
        }
    }

    /// Whether there is room for series of its own.
    fn enter_known(&self, known: &mut Counting<Key, ()>, key: &Key) -> bool {
        if !known.contains(key) && known.len() >= MOST {
            let Some((oldest, ())) = known.remove_oldest() else {
                return false;
            };
            self.kind.remove(oldest.each_ref().map(|label| &**label));
        }
        known.enter(key.clone());
        true
    }

    fn leave(&self, key: &Key) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leave(key);
    }
}

impl<K: Kind> Drop for Counted<K> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.details.leave(key);
        }
    }
}

/// Endpoints, by cluster and address.
#[derive(Debug)]
pub(crate) struct Endpoints {
    requests: IntCounterVec,
    succeeded: IntCounterVec,
    failed: IntCounterVec,
    timed_out: IntCounterVec,
    unconnected: IntCounterVec,
}

/// Series of one endpoint. What is retried counts each time.
#[derive(Debug)]
pub(crate) struct EndpointSeries {
    pub(crate) requests: IntCounter,
    /// Answered with less than 500.
    pub(crate) succeeded: IntCounter,
    /// Answered with 500 or more, or not.
    pub(crate) failed: IntCounter,
    /// Of these, given up after a timeout.
    pub(crate) timed_out: IntCounter,
    /// No connection could be had.
    pub(crate) unconnected: IntCounter,
}

impl Endpoints {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| {
            let labels = ["envoy_cluster_name", "envoy_endpoint_address"];
            counters(registry, name, help, &labels)
        };
        Ok(Self {
            requests: counter(
                "envoy_cluster_endpoint_rq_total",
                "Requests that an endpoint was given",
            )?,
            succeeded: counter(
                "envoy_cluster_endpoint_rq_success",
                "Of these, requests that were answered with less than 500",
            )?,
            failed: counter(
                "envoy_cluster_endpoint_rq_error",
                "Of these, requests that were answered with 500 or more, or not",
            )?,
            timed_out: counter(
                "envoy_cluster_endpoint_rq_timeout",
                "Of these, requests that were given up after a timeout",
            )?,
            unconnected: counter(
                "envoy_cluster_endpoint_cx_connect_fail",
                "Connections to an endpoint that could not be opened",
            )?,
        })
    }

    fn all(&self) -> [&IntCounterVec; 5] {
        [
            &self.requests,
            &self.succeeded,
            &self.failed,
            &self.timed_out,
            &self.unconnected,
        ]
    }
}

impl Kind for Endpoints {
    type Series = EndpointSeries;

    fn series(&self, labels: [&str; 2]) -> EndpointSeries {
        let [requests, succeeded, failed, timed_out, unconnected] =
            self.all().map(|counter| counter.with_label_values(&labels));
        EndpointSeries {
            requests,
            succeeded,
            failed,
            timed_out,
            unconnected,
        }
    }

    fn remove(&self, labels: [&str; 2]) {
        for counter in self.all() {
            // What is not there need not be removed.
            let _ = counter.remove_label_values(&labels);
        }
    }
}

/// Routes, by virtual host and name.
#[derive(Debug)]
pub(crate) struct Routes {
    requests: IntCounterVec,
    classes: IntCounterVec,
    retries: IntCounterVec,
    timed_out: IntCounterVec,
    durations: HistogramVec,
}

/// Series of the routes of one name.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    requests: IntCounter,
    /// By the first digit of the status, from 1 on.
    classes: [IntCounter; CLASSES.len()],
    retries: IntCounter,
    timed_out: IntCounter,
    /// Milliseconds.
    durations: Histogram,
}

const CLASSES: [&str; 5] = ["1", "2", "3", "4", "5"];

impl RouteSeries {
    /// Counts a request that went upstream: its status, 0 if the client has none, and how it came to that.
    pub(crate) fn observe(&self, code: u16, took: Duration, retries: u64, timed_out: bool) {
        self.requests.inc();
        let class = usize::from(code / 100).checked_sub(1);
        if let Some(class) = class.and_then(|class| self.classes.get(class)) {
            class.inc();
        }
        self.retries.inc_by(retries);
        self.timed_out.inc_by(u64::from(timed_out));
        self.durations.observe(took.as_secs_f64() * 1e3);
    }
}

impl Routes {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        const LABELS: [&str; 2] = ["envoy_virtual_host", "envoy_route"];
        let counter = |name, help| counters(registry, name, help, &LABELS);
        let durations = HistogramOpts::new(
            "envoy_vhost_route_upstream_rq_time",
            "Milliseconds from a request's head to the end of its response",
        );
        let durations = HistogramVec::new(durations.buckets(DURATION_BUCKETS.to_vec()), &LABELS)?;
        Ok(Self {
            requests: counter(
                "envoy_vhost_route_upstream_rq_total",
                "Requests that went upstream by a route",
            )?,
            classes: counters(
                registry,
                "envoy_vhost_route_upstream_rq_xx",
                "The same by the class of the status that they were answered with",
                &[LABELS[0], LABELS[1], "envoy_response_code_class"],
            )?,
            retries: counter(
                "envoy_vhost_route_upstream_rq_retry",
                "Further tries of these requests",
            )?,
            timed_out: counter(
                "envoy_vhost_route_upstream_rq_timeout",
                "Requests that were given up after a timeout",
            )?,
            durations: register(registry, durations)?,
        })
    }
}

impl Kind for Routes {
    type Series = RouteSeries;

    fn series(&self, labels: [&str; 2]) -> RouteSeries {
        let [host, route] = labels;
        RouteSeries {
            requests: self.requests.with_label_values(&labels),
            classes: CLASSES.map(|class| self.classes.with_label_values(&[host, route, class])),
            retries: self.retries.with_label_values(&labels),
            timed_out: self.timed_out.with_label_values(&labels),
            durations: self.durations.with_label_values(&labels),
        }
    }

    fn remove(&self, labels: [&str; 2]) {
        // What is not there need not be removed.
        for counter in [&self.requests, &self.retries, &self.timed_out] {
            let _ = counter.remove_label_values(&labels);
        }
        for class in CLASSES {
            let [host, route] = labels;
            let _ = self.classes.remove_label_values(&[host, route, class]);
        }
        let _ = self.durations.remove_label_values(&labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lab {
        registry: Registry,
        details: Arc<Details<Endpoints>>,
    }

    impl Lab {
        fn new() -> Self {
            let registry = Registry::new();
            let details = Details::new(Endpoints::new(&registry).unwrap());
            Self { registry, details }
        }

        fn count(&self, number: usize) -> Counted<Endpoints> {
            let counted = self.details.enter(["c", &number.to_string()]);
            counted.series.requests.inc();
            counted
        }

        /// Endpoints with series, and what those of one come to.
        fn seen(&self, address: &str) -> (usize, Option<u64>) {
            let families = self.registry.gather();
            let family = families
                .iter()
                .find(|family| family.name() == "envoy_cluster_endpoint_rq_total")
                .unwrap();
            let of = |metric: &prometheus::proto::Metric| metric.get_counter().get_value() as u64;
            let metrics = family.get_metric();
            let own = metrics.iter().find(|metric| {
                let mut labels = metric.get_label().iter();
                labels.any(|label| label.name() == "envoy_endpoint_address" && label.value() == address)
            });
            (metrics.len(), own.map(of))
        }
    }

    #[test]
    fn those_beyond_the_bound_are_counted_together() {
        let lab = Lab::new();
        let held: Vec<_> = (0..MOST + 10).map(|number| lab.count(number)).collect();
        assert_eq!(lab.seen(REST), (MOST + 1, Some(10)));
        let again = lab.count(3);
        assert_eq!(lab.seen("3"), (MOST + 1, Some(2)));
        drop((held, again));
        assert_eq!(lab.details.known.lock().unwrap().gone(), MOST);
    }

    #[test]
    fn the_longest_gone_gives_way_and_who_comes_back_counts_on() {
        let lab = Lab::new();
        (0..MOST).for_each(|number| drop(lab.count(number)));
        let back = lab.count(0);
        assert_eq!(lab.seen("0"), (MOST, Some(2)));
        let new = lab.count(MOST);
        assert_eq!(lab.seen("1"), (MOST, None));
        assert_eq!(lab.seen("0"), (MOST, Some(2)));
        assert_eq!(lab.seen(&MOST.to_string()), (MOST, Some(1)));
        drop((back, new));
    }
}
