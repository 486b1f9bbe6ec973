//! The series that forwarded connections are counted in: those of `tcp` and `tls` routes.

use std::cell::RefCell;
use std::rc::Rc;

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::labels::{UNKNOWN, names};
use super::requests::SeriesCache;
use super::{Metrics, counters};
use crate::http::Flags;

/// What is counted of connections.
pub(super) struct TcpMetrics {
    opened: IntCounterVec,
    closed: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
}

impl TcpMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = names(&["request_protocol", "response_flags", "connection_security_policy"]);
        let counter = |name, help| counters(registry, name, help, &labels);
        Ok(Self {
            opened: counter(
                "istio_tcp_connections_opened_total",
                "Connections that were forwarded, or ended for want of an endpoint",
            )?,
            closed: counter(
                "istio_tcp_connections_closed_total",
                "Of these, connections that have ended",
            )?,
            received: counter(
                "istio_tcp_received_bytes_total",
                "Bytes that came from clients of forwarded connections",
            )?,
            sent: counter(
                "istio_tcp_sent_bytes_total",
                "Bytes that went to clients of forwarded connections",
            )?,
        })
    }
}

/// The series that a connection is counted in from its beginning to its end, so that those opened less those closed are
/// those that are open. What becomes of it later changes none of its labels (Istio's filter fixes them with the first
/// report, too).
#[derive(Debug)]
pub(crate) struct TcpSeries {
    pub(crate) opened: IntCounter,
    pub(crate) closed: IntCounter,
    /// Bytes from the client.
    pub(crate) received: IntCounter,
    /// Bytes to the client.
    pub(crate) sent: IntCounter,
}

/// Series by response flags. They are few: the gateway alone sets flags.
pub(super) type TcpSeriesCache = RefCell<Vec<(Flags, Rc<TcpSeries>)>>;

impl SeriesCache {
    /// The series of connections to the destination that have these flags when it is known where they go.
    pub(crate) fn tcp(&self, metrics: &Metrics, flags: Flags) -> Rc<TcpSeries> {
        let mut kept = self.tcp.borrow_mut();
        if let Some((_, series)) = kept.iter().find(|(own, _)| *own == flags) {
            return Rc::clone(series);
        }
        let text = flags.to_string();
        let values = self.labels.values(&["tcp", &text, UNKNOWN]);
        let metrics = &metrics.tcp;
        let series = Rc::new(TcpSeries {
            opened: metrics.opened.with_label_values(&values),
            closed: metrics.closed.with_label_values(&values),
            received: metrics.received.with_label_values(&values),
            sent: metrics.sent.with_label_values(&values),
        });
        kept.push((flags, Rc::clone(&series)));
        series
    }
}
