//! What is known of one request, or of one connection whose bytes are forwarded: where from metrics and the access log take it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use edge_model::ClusterName;

use super::request_body::ClientBody;
use super::{Flags, RequestId};
use crate::metrics::SeriesCache;
use crate::pool::ConnectError;
use crate::worker::{ClusterView, EndpointView, Worker};

/// What is known of a request.
pub(crate) struct Account {
    /// Its number, which no other request of the process has.
    pub(crate) id: u64,
    pub(crate) started: Instant,
    pub(crate) first_byte: Option<Instant>,
    /// When it was over.
    pub(crate) ended: Option<Instant>,
    pub(crate) code: u16,
    pub(crate) flags: Flags,
    pub(crate) details: &'static str,
    pub(crate) grpc_status: Option<u8>,
    /// Bytes of the response's body.
    pub(crate) sent: u64,
    pub(crate) attempts: u32,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) is_grpc: bool,
    pub(super) route: Option<String>,
    pub(super) cluster: Option<Rc<ClusterView>>,
    pub(super) endpoint: Option<Rc<EndpointView>>,
    via: Via,
    pub(super) received: Received,
}

/// What the client has sent.
pub(super) enum Received {
    /// A request without a body.
    Nothing,
    Body(ClientBody),
    /// So many bytes of no protocol that is known here.
    Bytes(u64),
}

/// The connection that the last try took, or would have taken.
#[derive(Debug, Default)]
pub(crate) struct Via {
    /// The gateway's own address on it.
    local: Option<Rc<str>>,
    /// Why it could not be opened.
    failure: Option<Box<str>>,
}

impl Via {
    /// A connection on which the gateway has this address.
    pub(crate) fn over(local: Option<Rc<str>>) -> Self {
        Self { local, failure: None }
    }

    /// One that could not be opened.
    pub(crate) fn failed(error: &ConnectError) -> Self {
        Self {
            local: None,
            failure: error.transport_failure().map(Into::into),
        }
    }
}

impl Account {
    /// Of a request of which nothing else is known yet.
    pub(crate) fn new(id: u64, started: Instant, request_id: Option<RequestId>) -> Self {
        Self {
            id,
            started,
            first_byte: None,
            ended: None,
            code: 0,
            flags: Flags::NONE,
            details: "",
            grpc_status: None,
            sent: 0,
            attempts: 0,
            request_id,
            is_grpc: false,
            route: None,
            cluster: None,
            endpoint: None,
            via: Via::default(),
            received: Received::Nothing,
        }
    }

    /// Time from its beginning to its end, or until now.
    pub(crate) fn took(&self) -> Duration {
        self.until_end(self.started)
    }

    /// Time from `begin` to its end, or until now.
    pub(crate) fn until_end(&self, begin: Instant) -> Duration {
        self.ended
            .unwrap_or_else(Instant::now)
            .saturating_duration_since(begin)
    }

    /// Time from its beginning until all of it was there; `None` while it is not.
    pub(crate) fn until_request_end(&self) -> Option<Duration> {
        match &self.received {
            Received::Nothing => Some(Duration::ZERO),
            Received::Body(body) => body.ended(self.started),
            Received::Bytes(_) => None,
        }
    }

    /// Bytes of the request's body, or of all that was forwarded as it is.
    pub(crate) fn received(&self) -> u64 {
        match &self.received {
            Received::Nothing => 0,
            Received::Body(body) => body.bytes(),
            Received::Bytes(count) => *count,
        }
    }

    /// So many bytes were forwarded as they are: from the client, and to it.
    pub(crate) fn moved(&mut self, received: u64, sent: u64) {
        self.received = Received::Bytes(received);
        self.sent = sent;
    }

    /// It is meant for `cluster`.
    pub(crate) fn reached_cluster(&mut self, cluster: &Rc<ClusterView>) {
        self.cluster = Some(Rc::clone(cluster));
    }

    /// It was given to `endpoint`.
    pub(crate) fn reached_endpoint(&mut self, endpoint: &Rc<EndpointView>) {
        self.endpoint = Some(Rc::clone(endpoint));
        self.attempts += 1;
    }

    /// The last try took this connection.
    pub(crate) fn went_via(&mut self, via: Via) {
        self.via = via;
    }

    /// Something out of the ordinary happened on the way.
    pub(crate) fn flag(&mut self, flags: impl Into<Flags>) {
        self.flags = self.flags.and(flags.into());
    }

    /// Address of the endpoint that the request was last given to.
    pub(crate) fn upstream(&self) -> Option<&str> {
        self.endpoint.as_ref().map(|endpoint| endpoint.address())
    }

    /// The gateway's own address on the connection to it.
    pub(crate) fn local(&self) -> Option<&str> {
        self.via.local.as_deref()
    }

    /// Why the connection to it could not be opened.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.via.failure.as_deref()
    }

    pub(crate) fn cluster(&self) -> Option<&ClusterName> {
        self.cluster.as_ref().map(|cluster| &cluster.model().name)
    }

    /// Where it is counted: with the endpoint that was tried last, with the cluster where there is none, and with neither where
    /// it took no route.
    pub(crate) fn series<'a>(&'a self, worker: &'a Worker) -> &'a SeriesCache {
        match (&self.endpoint, &self.cluster) {
            (Some(endpoint), _) => endpoint.series(),
            (None, Some(cluster)) => cluster.series(),
            (None, None) => worker.unrouted(),
        }
    }

    pub(crate) fn route_name(&self) -> Option<&str> {
        self.route.as_deref().filter(|name| !name.is_empty())
    }
}
