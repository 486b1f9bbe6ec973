//! Metrics of tier 2 under Istio's names, so that Istio's dashboards work on them, and the edge's own.

use std::cell::RefCell;
use std::time::Duration;

use edge_model::{Cluster, LocalRateLimit, Penalty, WorkerId, WorkloadMeta};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::http::Flags;

/// Upper bounds in bytes (Envoy's defaults, in powers of ten here).
const SIZE_BUCKETS: [f64; 9] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// Labels of Istio's standard metrics, in the order of [`Labels::values`].
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// Upper bounds in milliseconds, Envoy's defaults.
const DURATION_BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// Istio's word for what is not known.
const UNKNOWN: &str = "unknown";

/// How this gateway calls itself as the source of requests to backends.
const SELF: &str = "edge";

/// All metrics of the proxy.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    log_dropped: IntCounter,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    handshakes_failed: IntCounterVec,
    connections_cut: IntCounterVec,
    rate_limited: IntCounterVec,
    penalties: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name, help, labels| register(registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let open = Opts::new(
            "edge_downstream_connections",
            "Connections of clients that are open",
        );
        Ok(Self {
            requests: counters("istio_requests_total", "Requests answered", &LABELS)?,
            durations: register(registry, durations()?)?,
            request_bytes: register(registry, sizes("istio_request_bytes", "Bytes of request bodies")?)?,
            response_bytes: register(
                registry,
                sizes("istio_response_bytes", "Bytes of response bodies")?,
            )?,
            log_dropped: register(
                registry,
                IntCounter::new(
                    "edge_access_log_dropped_total",
                    "Lines of the access log that could not be written",
                )?,
            )?,
            connections: register(registry, IntGaugeVec::new(open, &["worker"])?)?,
            connections_total: counters(
                "edge_downstream_connections_total",
                "Connections of clients that were accepted",
                &["worker"],
            )?,
            handshakes_failed: counters(
                "edge_tls_handshakes_failed_total",
                "TLS handshakes that did not end in a connection",
                &["reason"],
            )?,
            connections_cut: counters(
                "edge_downstream_connections_cut_total",
                "Connections of clients that were cut for what the client did, or did not do in time",
                &["reason"],
            )?,
            rate_limited: counters(
                "edge_rate_limited_total",
                "Requests over a local rate limit, refused or (enforced=false) only counted",
                &["limit", "enforced"],
            )?,
            penalties: counters(
                "edge_penalties_issued_total",
                "Sources that tier 1 was asked to drop",
                &["reason"],
            )?,
        })
    }

    /// Handles of one worker's connection metrics: open now, and accepted ever.
    pub(crate) fn connections(&self, worker: WorkerId) -> (IntGauge, IntCounter) {
        let label = worker.0.to_string();
        (
            self.connections.with_label_values(&[&label]),
            self.connections_total.with_label_values(&[&label]),
        )
    }

    /// Counts lines of the access log that were lost.
    pub(crate) fn log_dropped(&self) -> IntCounter {
        self.log_dropped.clone()
    }

    /// Counts a failed handshake.
    pub(crate) fn handshake_failed(&self, reason: &str) {
        self.handshakes_failed.with_label_values(&[reason]).inc();
    }

    /// Counts a connection that was cut.
    pub(crate) fn connection_cut(&self, reason: &str) {
        self.connections_cut.with_label_values(&[reason]).inc();
    }

    /// Counts requests over a limit.
    pub(crate) fn rate_limited(&self, limit: &LocalRateLimit, enforced: bool) -> IntCounter {
        let name = format!("{}/{}", limit.object.namespace, limit.object.name);
        let enforced = if enforced { "true" } else { "false" };
        self.rate_limited.with_label_values(&[name.as_str(), enforced])
    }

    /// Counts a penalty.
    pub(crate) fn penalty(&self, penalty: &Penalty) {
        self.penalties.with_label_values(&[penalty.reason.name()]).inc();
    }
}

fn durations() -> Result<HistogramVec, prometheus::Error> {
    let help = "Time from the request's head to the end of its response";
    let opts = HistogramOpts::new("istio_request_duration_milliseconds", help);
    HistogramVec::new(opts.buckets(DURATION_BUCKETS.to_vec()), &LABELS)
}

fn sizes(name: &str, help: &str) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(SIZE_BUCKETS.to_vec()),
        &LABELS,
    )
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Where requests go to, as the metrics tell it.
#[derive(Debug, Clone)]
pub(crate) struct Labels([String; 11]);

impl Labels {
    /// Of requests that got no further than this gateway.
    pub(crate) fn none() -> Self {
        Self([const { String::new() }; 11].map(|_| UNKNOWN.to_owned()))
    }

    /// Of requests to a cluster, and to the workload of one of its endpoints once that was picked.
    pub(crate) fn new(cluster: &Cluster, workload: Option<&WorkloadMeta>) -> Self {
        let of = |field: fn(&WorkloadMeta) -> &String| {
            workload.map_or(UNKNOWN, |workload| field(workload).as_str())
        };
        // `<service>.<namespace>.svc.<cluster domain>`, whatever the domain is.
        let name = match cluster.host.split_once(".svc.") {
            Some((in_cluster, _)) => in_cluster.split('.').next().unwrap_or(in_cluster),
            None => &cluster.host,
        };
        Self(
            [
                of(|workload| &workload.workload),
                of(|workload| &workload.namespace),
                UNKNOWN,
                of(|workload| &workload.app),
                of(|workload| &workload.version),
                &cluster.host,
                name,
                &cluster.namespace,
                of(|workload| &workload.canonical_service),
                of(|workload| &workload.canonical_revision),
                UNKNOWN,
            ]
            .map(str::to_owned),
        )
    }

    fn values<'a>(&'a self, code: &'a str, flags: &'a str, kind: (&'a str, &'a str)) -> [&'a str; 25] {
        let mut values = [UNKNOWN; 25];
        values[..9].copy_from_slice(&[
            "source", SELF, SELF, UNKNOWN, UNKNOWN, UNKNOWN, SELF, UNKNOWN, UNKNOWN,
        ]);
        for (slot, value) in values[9..20].iter_mut().zip(&self.0) {
            *slot = value;
        }
        // Whether the way to the backend is secured is for the backend's side to report (Istio's metric definition).
        values[20..].copy_from_slice(&[kind.0, code, kind.1, flags, UNKNOWN]);
        values
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
