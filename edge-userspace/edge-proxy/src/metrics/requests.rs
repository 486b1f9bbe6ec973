//! The series that requests are counted in.

use std::cell::RefCell;
use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::{Labels, Metrics};
use crate::http::Flags;

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

/// The series of one destination, found once for each key and kept: a look-up by 25 labels is dearer than all else that
/// is done to count a request. Belongs to one worker.
#[derive(Debug)]
pub(crate) struct SeriesCache {
    labels: Labels,
    series: RefCell<Vec<(Key, Series)>>,
}

#[derive(Debug, Clone)]
struct Series {
    requests: IntCounter,
    durations: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl Series {
    fn new(metrics: &Metrics, labels: &Labels, (code, flags, kind): Key) -> Self {
        let (code, flags) = (code.to_string(), flags.to_string());
        let (protocol, status) = match kind {
            Kind::Http => ("http", String::new()),
            Kind::Grpc(status) => (
                "grpc",
                status.map(|status| status.to_string()).unwrap_or_default(),
            ),
        };
        let values = labels.values(&code, &flags, (protocol, &status));
        Self {
            requests: metrics.requests.with_label_values(&values),
            durations: metrics.durations.with_label_values(&values),
            request_bytes: metrics.request_bytes.with_label_values(&values),
            response_bytes: metrics.response_bytes.with_label_values(&values),
        }
    }

    fn observe(&self, observed: &Observed) {
        self.requests.inc();
        self.durations.observe(observed.took.as_secs_f64() * 1e3);
        #[expect(clippy::cast_precision_loss, reason = "sums of petabytes need not be exact")]
        let sizes = (observed.received as f64, observed.sent as f64);
        self.request_bytes.observe(sizes.0);
        self.response_bytes.observe(sizes.1);
    }
}

impl SeriesCache {
    /// Most series of one destination that a worker counts in. A backend that answers in more ways than this gets the
    /// others counted under code 0, so that no backend can fill the memory with its statuses.
    const MAX: usize = 128;

    pub(crate) fn new(labels: Labels) -> Self {
        Self {
            labels,
            series: RefCell::default(),
        }
    }

    /// Counts one request.
    pub(crate) fn observe(&self, metrics: &Metrics, key: Key, observed: &Observed) {
        let mut kept = self.series.borrow_mut();
        if let Some((_, series)) = kept.iter().find(|(own, _)| *own == key) {
            series.observe(observed);
            return;
        }
        let is_full = kept.len() >= Self::MAX;
        let key = if is_full {
            (0, Flags::NONE, Kind::Http)
        } else {
            key
        };
        let series = Series::new(metrics, &self.labels, key);
        series.observe(observed);
        if !is_full {
            kept.push((key, series));
        }
    }
}
