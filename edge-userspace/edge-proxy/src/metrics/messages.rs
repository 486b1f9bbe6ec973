//! The series that messages of gRPC are counted in.

use std::rc::Rc;

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::labels::names;
use super::requests::SeriesCache;
use super::{Metrics, counters};

/// What is counted of messages. They are counted while their calls last, so no label tells how a call ended (Istio's
/// filter adds those labels behind its last report of messages).
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
}

/// The series of one destination.
#[derive(Debug)]
pub(crate) struct MessageSeries {
    pub(crate) requests: IntCounter,
    pub(crate) responses: IntCounter,
}

impl SeriesCache {
    /// The series of messages of calls to the destination.
    pub(crate) fn messages(&self, metrics: &Metrics) -> &Rc<MessageSeries> {
        self.messages.get_or_init(|| {
            let values = self.labels.values(&[]);
            Rc::new(MessageSeries {
                requests: metrics.messages.requests.with_label_values(&values),
                responses: metrics.messages.responses.with_label_values(&values),
            })
        })
    }
}
