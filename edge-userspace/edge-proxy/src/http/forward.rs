//! Forwarding a request: an endpoint, a connection, and another try where the first one failed harmlessly.

use std::rc::Rc;

use edge_upstream::ActiveRequest;
use edge_upstream::retry::{Failure, Policy, Replay, Retries, Verdict, is_idempotent};
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use super::body::UpstreamBody;
use super::head::{Plan, is_passable, upstream_request};
use super::{Record, Reply, RequestBody};
use crate::connection::Conn;
use crate::pool::{ConnectError, Lease};
use crate::worker::{ClusterView, EndpointView};

/// A request on its way to a cluster.
pub(super) struct Forwarding<'a> {
    pub(super) conn: &'a Conn,
    pub(super) client: &'a Parts,
    pub(super) plan: Plan<'a>,
    pub(super) cluster: &'a Rc<ClusterView>,
}

/// A try that brought no response.
struct Failed {
    failure: Failure,
    /// What the client is told if this was the last try.
    reply: Reply,
    /// The body, where nothing of it was taken.
    body: Option<RequestBody>,
}

impl Forwarding<'_> {
    /// Tries until there is a response or nothing more to try.
    pub(super) async fn run(
        &self,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Response<UpstreamBody>, Reply> {
        let mut retries = Retries::new(Policy::ISTIO_DEFAULT);
        let mut body = RequestBody::new(body);
        let mut tried = Vec::new();
        let mut again_at = None;
        loop {
            let fresh = again_at.is_some();
            let Some((index, endpoint)) = self.endpoint(again_at.take(), &tried) else {
                return Err(Reply::no_healthy_upstream());
            };
            record.reached_endpoint(endpoint);
            let failed = match self.attempt(endpoint, body, fresh).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let replay = Replay {
                idempotent: is_idempotent(&self.client.method),
                body_untouched: failed.body.is_some(),
            };
            let verdict = retries.failed(failed.failure, replay, &mut self.conn.worker().rng());
            match (verdict, failed.body) {
                (Verdict::GiveUp, _) | (_, None) => return Err(failed.reply),
                (Verdict::FreshConnection, Some(untouched)) => {
                    body = untouched;
                    again_at = Some(index);
                }
                (Verdict::AnotherEndpoint { after }, Some(untouched)) => {
                    body = untouched;
                    tried.push(index);
                    tokio::time::sleep(after).await;
                }
            }
        }
    }

    /// The endpoint at `again_at`, or the balancer's choice apart from those tried.
    fn endpoint(&self, again_at: Option<usize>, tried: &[usize]) -> Option<(usize, &Rc<EndpointView>)> {
        let pick = || self.cluster.pick(tried, &mut self.conn.worker().rng());
        let index = again_at.or_else(pick)?;
        Some((index, self.cluster.endpoint(index)?))
    }

    /// One try at one endpoint.
    async fn attempt(
        &self,
        endpoint: &EndpointView,
        body: RequestBody,
        fresh: bool,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let active = ActiveRequest::begin(endpoint.load());
        let timeout = self.cluster.connect_timeout();
        let mut lease = match endpoint.pool().checkout(fresh, timeout).await {
            Ok(lease) => lease,
            Err(error) => return Err(Failed::to_connect(&error, body)),
        };
        let request_finished = body.finished();
        let is_empty = request_finished.is_none();
        let peer = self.conn.peer();
        let request = upstream_request(self.client, peer, &self.plan, body, &mut self.conn.worker().rng());
        let Some(request) = request else {
            return Err(Failed::for_good(Reply::malformed(
                "the request does not make a valid target",
            )));
        };
        match lease.sender().try_send_request(request).await {
            Ok(response) if is_passable(&response) => Ok(response.map(|body| UpstreamBody {
                body,
                lease,
                request_finished,
                timer: None,
                _active: active,
            })),
            Ok(_) => Err(Failed::for_good(Reply::upstream_protocol_error())),
            Err(mut error) => {
                let unsent = error.take_message().map(http::Request::into_body);
                Err(Failed::to_answer(&lease, error.error(), unsent, is_empty))
            }
        }
    }
}

impl Failed {
    fn to_connect(error: &ConnectError, body: RequestBody) -> Self {
        Self {
            failure: Failure::Connect,
            reply: Reply::connect_failed(error.reason()),
            body: Some(body),
        }
    }

    /// No further try could change it.
    fn for_good(reply: Reply) -> Self {
        Self {
            failure: Failure::Other,
            reply,
            body: None,
        }
    }

    /// The connection failed before a response came over it. `unsent` is the body if the request was not written.
    fn to_answer(lease: &Lease, error: &hyper::Error, unsent: Option<RequestBody>, is_empty: bool) -> Self {
        if error.is_parse() {
            return Self::for_good(Reply::upstream_protocol_error());
        }
        if error.is_user() || error.is_body_write_aborted() {
            return Self::for_good(Reply::malformed("the request's body broke off"));
        }
        let failure = match (&unsent, lease.is_reused()) {
            (Some(_), true) => Failure::Unsent,
            // The endpoint took the connection and closed it at once: as good as no connection.
            (Some(_), false) => Failure::Connect,
            (None, true) => Failure::ClosedOnReuse,
            (None, false) => Failure::Other,
        };
        Self {
            failure,
            reply: Reply::upstream_closed(),
            body: unsent.or(is_empty.then_some(RequestBody::Empty)),
        }
    }
}
