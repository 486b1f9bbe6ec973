//! Metrics of tier 2 under Istio's names, so that Istio's dashboards work on them, and the edge's own.

mod connections;
mod counting;
mod destinations;
mod details;
mod labels;
mod messages;
mod ongoing;
mod requests;

use std::sync::Arc;

use edge_model::{LocalRateLimit, Penalty, WorkerId};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use self::connections::TcpMetrics;
pub(crate) use self::connections::TcpSeries;
pub(crate) use self::destinations::{Destinations, SeriesCache};
pub(crate) use self::details::{Counted, Details, Endpoints, Routes};
pub(crate) use self::labels::Labels;
use self::messages::MessageMetrics;
pub(crate) use self::messages::MessageSeries;
pub(crate) use self::ongoing::{AllOngoing, Ongoing, Reported};
use self::requests::RequestMetrics;
pub(crate) use self::requests::{Kind, Observed};

/// All metrics of the proxy.
pub(crate) struct Metrics {
    destinations: Arc<Destinations>,
    endpoints: Arc<Details<Endpoints>>,
    routes: Arc<Details<Routes>>,
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
        let counters = |name, help, labels| counters(registry, name, help, labels);
        build(registry)?;
        let open = Opts::new(
            "edge_downstream_connections",
            "Connections of clients that are open",
        );
        Ok(Self {
            destinations: Destinations::new(
                RequestMetrics::new(registry)?,
                MessageMetrics::new(registry)?,
                TcpMetrics::new(registry)?,
            ),
            endpoints: Details::new(Endpoints::new(registry)?),
            routes: Details::new(Routes::new(registry)?),
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

    /// The series of requests and forwarded connections, by where those go to.
    pub(crate) fn destinations(&self) -> &Arc<Destinations> {
        &self.destinations
    }

    /// The series of single endpoints.
    pub(crate) fn endpoints(&self) -> &Arc<Details<Endpoints>> {
        &self.endpoints
    }

    /// The series of routes that have a name for it.
    pub(crate) fn routes(&self) -> &Arc<Details<Routes>> {
        &self.routes
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

/// Says which version runs, under Istio's name for it.
fn build(registry: &Registry) -> Result<(), prometheus::Error> {
    let opts = Opts::new("istio_build", "Component and version of what runs");
    let build = register(registry, IntGaugeVec::new(opts, &["component", "tag"])?)?;
    build
        .with_label_values(&["proxy", env!("CARGO_PKG_VERSION")])
        .set(1);
    Ok(())
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
