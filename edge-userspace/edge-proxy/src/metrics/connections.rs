//! The series that forwarded connections are counted in: those of `tcp` and `tls` routes.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::labels::{UNKNOWN, names};
use super::{Labels, counters};
use crate::http::Flags;

/// What is counted of connections.
#[derive(Debug)]
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

    /// The series of connections to a destination that have these flags when it is known where they go.
    pub(super) fn series(&self, labels: &Labels, flags: Flags) -> TcpSeries {
        let text = flags.to_string();
        let values = labels.values(&["tcp", &text, UNKNOWN]);
        TcpSeries {
            opened: self.opened.with_label_values(&values),
            closed: self.closed.with_label_values(&values),
            received: self.received.with_label_values(&values),
            sent: self.sent.with_label_values(&values),
        }
    }

    pub(super) fn remove(&self, labels: &Labels, flags: Flags) {
        let text = flags.to_string();
        let values = labels.values(&["tcp", &text, UNKNOWN]);
        for counter in [&self.opened, &self.closed, &self.received, &self.sent] {
            // What is not there need not be removed.
            let _ = counter.remove_label_values(&values);
        }
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
