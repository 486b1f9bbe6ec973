//! The series that messages of gRPC are counted in.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::labels::names;
use super::{Labels, counters};

/// What is counted of messages. They are counted while their calls last, so no label tells how a call ended (Istio's
/// filter adds those labels behind its last report of messages).
#[derive(Debug)]
pub(super) struct MessageMetrics {
    requests: IntCounterVec,
    responses: IntCounterVec,
}

impl MessageMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| counters(registry, name, help, &names(&[]));
        Ok(Self {
            requests: counter("istio_request_messages_total", "Messages of gRPC from clients")?,
            responses: counter("istio_response_messages_total", "Messages of gRPC to clients")?,
        })
    }

    pub(super) fn series(&self, labels: &Labels) -> MessageSeries {
        let values = labels.values(&[]);
        MessageSeries {
            requests: self.requests.with_label_values(&values),
            responses: self.responses.with_label_values(&values),
        }
    }

    pub(super) fn remove(&self, labels: &Labels) {
        let values = labels.values(&[]);
        for counter in [&self.requests, &self.responses] {
            // What is not there need not be removed.
            let _ = counter.remove_label_values(&values);
        }
    }
}

/// The series of one destination.
#[derive(Debug)]
pub(crate) struct MessageSeries {
    pub(crate) requests: IntCounter,
    pub(crate) responses: IntCounter,
}
