//! The series that requests are counted in.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::labels::{UNKNOWN, names};
use super::{Labels, counters, register};
use crate::http::Flags;

/// Upper bounds in bytes (Envoy's defaults, in powers of ten here).
const SIZE_BUCKETS: [f64; 9] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// Upper bounds in milliseconds, Envoy's defaults.
pub(super) const DURATION_BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// What is counted of requests.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
}

impl RequestMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = names(&[
            "request_protocol",
            "response_code",
            "grpc_response_status",
            "response_flags",
            "connection_security_policy",
        ]);
        let histogram = |name, help, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(registry, HistogramVec::new(opts, &labels)?)
        };
        Ok(Self {
            requests: counters(registry, "istio_requests_total", "Requests answered", &labels)?,
            durations: histogram(
                "istio_request_duration_milliseconds",
                "Time from the request's head to the end of its response",
                &DURATION_BUCKETS,
            )?,
            request_bytes: histogram("istio_request_bytes", "Bytes of request bodies", &SIZE_BUCKETS)?,
            response_bytes: histogram("istio_response_bytes", "Bytes of response bodies", &SIZE_BUCKETS)?,
        })
    }

    pub(super) fn series(&self, labels: &Labels, key: Key) -> Series {
        named(labels, key, |values| Series {
            requests: self.requests.with_label_values(values),
            durations: self.durations.with_label_values(values),
            request_bytes: self.request_bytes.with_label_values(values),
            response_bytes: self.response_bytes.with_label_values(values),
        })
    }

    pub(super) fn remove(&self, labels: &Labels, key: Key) {
        named(labels, key, |values| {
            // What is not there need not be removed.
            let _ = self.requests.remove_label_values(values);
            for histogram in [&self.durations, &self.request_bytes, &self.response_bytes] {
                let _ = histogram.remove_label_values(values);
            }
        });
    }
}

/// What is spoken, and for gRPC how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Http,
    Grpc(Option<u8>),
}

/// What is added to the series of a request.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) took: Duration,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the response's body.
    pub(crate) sent: u64,
}

/// Status, flags and kind: what the series of one destination differ in.
pub(crate) type Key = (u16, Flags, Kind);

/// The series of one destination and key.
#[derive(Debug, Clone)]
pub(super) struct Series {
    requests: IntCounter,
    durations: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// Calls `then` with the values of a series' labels.
fn named<R>(labels: &Labels, (code, flags, kind): Key, then: impl FnOnce(&[&str]) -> R) -> R {
    let (code, flags) = (code.to_string(), flags.to_string());
    let (protocol, status) = match kind {
        Kind::Http => ("http", String::new()),
        Kind::Grpc(status) => (
            "grpc",
            status.map(|status| status.to_string()).unwrap_or_default(),
        ),
    };
    // Whether the way to the backend is secured is for the backend's side to report (Istio's metric definition).
    then(&labels.values(&[protocol, &code, &status, &flags, UNKNOWN]))
}

impl Series {
    pub(super) fn observe(&self, observed: &Observed) {
        self.requests.inc();
        self.durations.observe(observed.took.as_secs_f64() * 1e3);
        #[expect(clippy::cast_precision_loss, reason = "sums of petabytes need not be exact")]
        let sizes = (observed.received as f64, observed.sent as f64);
        self.request_bytes.observe(sizes.0);
        self.response_bytes.observe(sizes.1);
    }
}
