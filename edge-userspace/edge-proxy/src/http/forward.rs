//! Forwarding a request: an endpoint, a connection, and another try where the policy asks for one.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use edge_model::{Forward, LoadBalancer};
use edge_upstream::circuit::{Resource, retry_limit};
use edge_upstream::outlier::Outcome;
use edge_upstream::retry::{Answer, Ended, Replay, Retries, Verdict, is_idempotent};
use edge_upstream::{ActiveRequest, Pick};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::body::{Places, UpstreamBody};
use super::hash::hashed;
use super::head::{Plan, is_passable, upstream_request};
use super::pace::Pace;
use super::reply::Reset;
use super::request_body::ClientBody;
use super::trailers::has_blank_ends;
use super::{
    Flag, Incoming, Present, Record, Reply, RequestBody, RequestId, Via, direct, grpc, mirror, upgrade,
};
use crate::connection::Conn;
use crate::pool::{Asked, ConnectError, EndpointBody, Lease, SendError, Sender, Want};
use crate::protocol::Protocol;
use crate::worker::{Asker, ClusterView, EndpointView, View};

/// A request on its way to a cluster.
pub(super) struct Forwarding<'a> {
    pub(super) conn: &'a Rc<Conn>,
    pub(super) view: &'a View,
    pub(super) client: &'a Parts,
    pub(super) present: &'a Present<'a>,
    pub(super) forward: &'a Forward,
    pub(super) plan: Plan<'a>,
    pub(super) cluster: &'a Rc<ClusterView>,
    /// The connection of the last try, for the request's account.
    pub(super) via: RefCell<Via>,
}

/// What came of a try.
struct Tried {
    ended: Ended,
    result: Result<Response<Box<UpstreamBody>>, Failure>,
}

/// A try without a response.
enum Failure {
    Reset(Reset),
    PerTryTimeout,
    /// No further try could change it.
    ForGood(Box<Reply>),
}

/// Where the next try goes.
enum Next {
    Pick,
    /// The same endpoint, over a connection that is opened for it.
    Fresh(usize),
}

impl Forwarding<'_> {
    /// Tries until there is a response or nothing more to try.
    pub(super) async fn run(
        &self,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Response<Box<UpstreamBody>>, Reply> {
        let policy = &*self.forward.retries;
        let hashed = self.hash();
        let is_grpc = record.account().is_grpc;
        let body = ClientBody::new(std::mem::take(body), policy.attempts > 0, is_grpc, |is_told| {
            // The connection's own pace is that of HTTP/1.1's one body.
            let is_stream = self.conn.protocol() == Protocol::Http2;
            is_stream.then(|| Pace::new(self.conn, is_told, is_grpc))
        });
        record.has_body(&body);
        let request_id = record.account().request_id.clone();
        let request_id = request_id.unwrap_or(RequestId::Trusted(HeaderValue::from_static("")));
        self.mirror(&body, &request_id);
        let mut places = Places {
            request: self.take(
                Resource::Requests,
                self.cluster.model().circuit_breakers.max_requests,
            ),
            retry: None,
        };
        if places.request.is_none() {
            return Err(Reply::overflow(false));
        }
        let breakers = &self.cluster.model().circuit_breakers;
        let circuit = self.cluster.load().circuit();
        circuit.began(breakers, self.cluster.clock(record.routed()));
        let mut retries = Retries::new(policy);
        let mut tried = Vec::new();
        let mut next = Next::Pick;
        let mut now = record.routed();
        loop {
            let pick = Pick {
                now: self.cluster.clock(now),
                tried: if policy.avoid_previous_hosts { &tried } else { &[] },
                hash: hashed.hash,
                leave_priorities: policy.remote_localities,
            };
            let want = match (&next, is_idempotent(&self.client.method)) {
                (Next::Fresh(_), _) => Want::Fresh,
                (Next::Pick, true) => Want::Any,
                (Next::Pick, false) => Want::Open,
            };
            let Some((index, endpoint)) = self.endpoint(&next, pick) else {
                return Err(Reply::no_healthy_upstream().with_flags(self.cluster.why_no_endpoint()));
            };
            record.reached_endpoint(endpoint);
            // Pinned here: it is large, and would be moved each time that it is handed on.
            let attempt = pin!(self.attempt(endpoint, &body, want, retries.done() + 1, &request_id));
            let Tried { ended, result } = self.within_try(attempt, now).await;
            self.report(index, ended, &result);
            if body.is_slow() {
                return Err(Reply::slow_body());
            }
            if body.is_broken() {
                return Err(Reply::malformed("the request's body broke off"));
            }
            if result.is_ok() {
                body.answered();
            }
            let replay = Replay {
                idempotent: is_idempotent(&self.client.method),
                body_whole: body.is_whole(),
            };
            let verdict = retries.ended(ended, replay, &mut self.conn.worker().rng());
            match verdict {
                Verdict::FreshConnection => next = Next::Fresh(index),
                Verdict::Again { after } => {
                    // The place of the last retry is given back before the next one is taken.
                    places.retry = None;
                    let active = circuit.requests(breakers, self.cluster.clock(Instant::now()));
                    let limit = retry_limit(breakers, active);
                    places.retry = self.take(Resource::Retries, limit);
                    if places.retry.is_none() {
                        record.flag(Flag::UpstreamOverflow);
                        return self.last(result, retries.done() > 1, places, hashed.cookie);
                    }
                    drop(result);
                    tried.push(index);
                    self.conn.worker().timers().after(after).await;
                    now = Instant::now();
                    next = Next::Pick;
                }
                Verdict::GiveUp { exhausted } => {
                    if exhausted {
                        record.flag(Flag::UpstreamRetryLimitExceeded);
                    }
                    return self.last(result, retries.done() > 0, places, hashed.cookie);
                }
            }
        }
    }

    /// What the client gets of the last try.
    fn last(
        &self,
        result: Result<Response<Box<UpstreamBody>>, Failure>,
        retried: bool,
        places: Places,
        cookie: Option<HeaderValue>,
    ) -> Result<Response<Box<UpstreamBody>>, Reply> {
        match result {
            Ok(mut response) => {
                response.body_mut()._places = places;
                if let Some(cookie) = cookie {
                    response.headers_mut().append(http::header::SET_COOKIE, cookie);
                }
                Ok(response)
            }
            Err(Failure::Reset(reset)) => Err(Reply::no_response(reset, retried)),
            Err(Failure::PerTryTimeout) => Err(Reply::timeout("upstream_per_try_timeout")),
            Err(Failure::ForGood(reply)) => Err(*reply),
        }
    }

    fn hash(&self) -> super::hash::Hashed {
        match &self.cluster.model().load_balancer {
            LoadBalancer::ConsistentHash(hash) => hashed(
                &hash.key,
                &self.client.headers,
                self.plan.path.query(),
                self.plan.trusted_address.unwrap_or(self.conn.peer().address),
                &mut self.conn.worker().rng(),
            ),
            LoadBalancer::LeastRequest | LoadBalancer::RoundRobin | LoadBalancer::Random => {
                super::hash::Hashed::default()
            }
        }
    }

    fn take(&self, resource: Resource, limit: u32) -> Option<edge_upstream::circuit::Place> {
        self.cluster.load().circuit().take(resource, limit)
    }

    /// Sends the copies that fall to this request.
    fn mirror(&self, body: &ClientBody, request_id: &RequestId) {
        if self.forward.mirrors.is_empty() || upgrade::is_asked(self.client) {
            return;
        }
        for (_, cluster) in mirror::drawn(&self.forward.mirrors, self.conn, self.view) {
            let request = upstream_request(
                self.client,
                self.conn.peer(),
                &self.plan,
                body.copy(),
                1,
                request_id,
            );
            if let Some(request) = request {
                mirror::send(self.conn, cluster, request, self.forward.timeout);
            }
        }
    }

    fn endpoint(&self, next: &Next, pick: Pick<'_>) -> Option<(usize, &Rc<EndpointView>)> {
        let index = match next {
            Next::Fresh(index) => *index,
            Next::Pick => self.cluster.pick(pick, &mut self.conn.worker().rng())?,
        };
        Some((index, self.cluster.endpoint(index)?))
    }

    /// Ends a try after `perTryTimeout`.
    async fn within_try(&self, attempt: Pin<&mut impl Future<Output = Tried>>, begin: Instant) -> Tried {
        let Some(time) = self.forward.retries.per_try_timeout else {
            return attempt.await;
        };
        let timer = self.conn.worker().timers().since(begin, time);
        tokio::select! {
            biased;
            tried = attempt => tried,
            () = timer => Tried {
                ended: Ended::PerTryTimeout,
                result: Err(Failure::PerTryTimeout),
            },
        }
    }

    /// One try at one endpoint.
    async fn attempt(
        &self,
        endpoint: &EndpointView,
        body: &ClientBody,
        want: Want,
        number: u32,
        request_id: &RequestId,
    ) -> Tried {
        let active = ActiveRequest::begin(endpoint.load());
        let mut checked_out = self.checkout(endpoint, want).await;
        if let Err(ConnectError::Io(error)) = &checked_out
            && is_out_of_files(error)
        {
            // What others have left idle is worth less than what is asked for.
            self.conn.worker().close_idle_upstreams();
            // A connection of HTTP/2 is closed by its task, and that by hyper's.
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            checked_out = self.checkout(endpoint, want).await;
        }
        let mut lease = match checked_out {
            Ok(lease) => lease,
            Err(error) => {
                self.via.replace(Via::failed(&error));
                return Tried::to_connect(&error);
            }
        };
        self.via.replace(Via::over(lease.local()));
        let peer = self.conn.peer();
        let sent = body.next_try();
        let answer = match lease.sender() {
            Some(Sender::Http1(link)) if self.is_plain() => {
                let (plan, id) = (&self.plan, request_id.as_bytes());
                let asked = Asked {
                    no_body: self.client.method == Method::HEAD,
                    upgrade: false,
                };
                let write_head = |sent: &RequestBody, text: &mut Vec<u8>| {
                    direct::write_head(self.client, self.present, peer, plan, sent, number, id, text);
                };
                let response = link.exchange(asked, write_head, sent).await;
                response.map(|response| response.map(EndpointBody::Http1))
            }
            None => Err(SendError::Unsent),
            Some(sender) => {
                let request = upstream_request(self.client, peer, &self.plan, sent, number, request_id);
                let Some(request) = request else {
                    return Tried::for_good(Reply::malformed("the request does not make a valid target"));
                };
                // Boxed: it is larger than all else of a try, and most requests go the way above.
                Box::pin(sender.send(request)).await
            }
        };
        match answer {
            Ok(response) if is_well_formed(&response) || self.agrees(&response) => Tried {
                ended: Ended::Response(Answer::new(response.status(), response.headers())),
                // Boxed here: it is passed on through many hands, and is large.
                result: Ok(response.map(|incoming| {
                    Box::new(UpstreamBody {
                        body: incoming,
                        lease,
                        timer: None,
                        _active: active,
                        _places: Places::default(),
                    })
                })),
            },
            Ok(_) => Tried::reset(Ended::ForGood, Reset::Protocol),
            Err(error) => Tried::to_answer(&error, lease.is_reused()),
        }
    }

    /// A connection to the endpoint.
    async fn checkout(&self, endpoint: &EndpointView, want: Want) -> Result<Lease, ConnectError> {
        let (asker, authority) = (Asker::Client(self.conn), self.plan.final_authority());
        self.cluster.checkout(endpoint, asker, authority, want).await
    }

    /// Whether its head can be written without a map of fields.
    fn is_plain(&self) -> bool {
        !self.present.upgrade && direct::is_plain(&self.plan) && !upgrade::is_asked(self.client)
    }

    /// Whether the endpoint has agreed to the protocol that the client asks for.
    fn agrees(&self, response: &Response<EndpointBody>) -> bool {
        let is_http2 = match response.body() {
            EndpointBody::Http1(_) => false,
            EndpointBody::Http2Tunnel(_) => true,
            EndpointBody::Http2(_) => return false,
        };
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && upgrade::is_agreed(self.client, response.headers(), is_http2)
    }

    /// Says what came of a try, where that says something of the endpoint.
    fn report(&self, index: usize, ended: Ended, result: &Result<Response<Box<UpstreamBody>>, Failure>) {
        let outcome = match (ended, result) {
            (Ended::Response(answer), _) => Outcome::Status(match answer.grpc_status {
                Some(code) if answer.status.is_success() => grpc::to_http(code).as_u16(),
                Some(_) | None => answer.status.as_u16(),
            }),
            (Ended::ConnectFailure, _) => Outcome::ConnectFailure,
            (Ended::PerTryTimeout, _) => Outcome::Timeout,
            (Ended::Reset | Ended::RefusedStream, _) => Outcome::Reset,
            (Ended::ForGood, Err(Failure::Reset(Reset::Protocol))) => Outcome::Status(502),
            // Whoever closes an idle connection is not ill, and a client's fault is not the endpoint's.
            (Ended::Unsent | Ended::ClosedOnReuse | Ended::ForGood, _) => return,
        };
        self.count(index, outcome);
    }

    /// Counts what came of a try, and tells outlier detection.
    fn count(&self, index: usize, outcome: Outcome) {
        if let Some(endpoint) = self.cluster.endpoint(index) {
            endpoint.count(self.conn.worker().metrics(), outcome);
        }
        self.cluster.report(index, outcome);
    }

    /// The route's timeout ran out while a try was under way.
    pub(super) fn timed_out(&self, record: &Record) -> Reply {
        if let Some(index) = record
            .endpoint()
            .and_then(|endpoint| self.cluster.position(endpoint))
        {
            self.count(index, Outcome::Timeout);
        }
        Reply::timeout("upstream_response_timeout")
    }

    /// Time for all tries. Clients of gRPC have `told` theirs, which the route's bounds (Istio sets Envoy's
    /// `max_grpc_timeout` to the route's timeout).
    pub(super) fn timeout(forward: &Forward, told: Option<Duration>) -> Option<Duration> {
        match (told, forward.timeout) {
            (Some(told), Some(most)) => Some(told.min(most)),
            (told, most) => told.or(most),
        }
    }

    /// Time that the upstream is told it has.
    pub(super) fn expected(forward: &Forward, timeout: Option<Duration>) -> Option<Duration> {
        match (timeout, forward.retries.per_try_timeout) {
            (Some(whole), Some(each)) => Some(whole.min(each)),
            (whole, each) => whole.or(each),
        }
    }
}

/// Whether a response may be passed on. Of HTTP/1.1, white space around values is none of them; in HTTP/2 it is malformed.
fn is_well_formed(response: &Response<EndpointBody>) -> bool {
    match response.body() {
        // Its parser takes no coding but `chunked`.
        EndpointBody::Http1(_) => !response.status().is_informational(),
        EndpointBody::Http2(_) => is_passable(response) && !has_blank_ends(response.headers()),
        EndpointBody::Http2Tunnel(_) => is_passable(response),
    }
}

impl Tried {
    fn reset(ended: Ended, reset: Reset) -> Self {
        Self {
            ended,
            result: Err(Failure::Reset(reset)),
        }
    }

    /// No further try could change it.
    fn for_good(reply: Reply) -> Self {
        Self {
            ended: Ended::ForGood,
            result: Err(Failure::ForGood(Box::new(reply))),
        }
    }

    fn to_connect(error: &ConnectError) -> Self {
        let reset = match error {
            ConnectError::Overflow => return Self::for_good(Reply::overflow(false)),
            // The fault is not the endpoint's, and another one could not be reached either.
            ConnectError::Io(error) if is_starved(error) => return Self::for_good(Reply::overloaded()),
            ConnectError::Timeout => Reset::ConnectTimeout,
            ConnectError::Io(_) | ConnectError::NoTls => Reset::ConnectFailure,
            ConnectError::Http(_) => Reset::Termination,
        };
        Self::reset(Ended::ConnectFailure, reset)
    }

    /// The connection failed before a response came over it.
    fn to_answer(error: &SendError, reused: bool) -> Self {
        match (error, reused) {
            (SendError::Malformed(_), _) => Self::reset(Ended::ForGood, Reset::Protocol),
            (SendError::Body(_), _) => Self::for_good(Reply::malformed("the request's body broke off")),
            // No sign that the endpoint is ill, though it would reset the stream.
            (SendError::NoConnect, _) => Self::for_good(Reply::no_response(Reset::Remote, false)),
            (SendError::Unsent, true) => Self::reset(Ended::Unsent, Reset::Termination),
            // The endpoint took the connection and closed it at once: as good as no connection.
            (SendError::Unsent, false) => Self::reset(Ended::ConnectFailure, Reset::Termination),
            (SendError::Refused, _) => Self::reset(Ended::RefusedStream, Reset::RemoteRefused),
            (SendError::ResetHere, _) => Self::reset(Ended::Reset, Reset::Local),
            (SendError::Reset, _) => Self::reset(Ended::Reset, Reset::Remote),
            (SendError::Closed, true) => Self::reset(Ended::ClosedOnReuse, Reset::Termination),
            (SendError::Closed, false) | (SendError::Cut, _) => Self::reset(Ended::Reset, Reset::Termination),
        }
    }
}

/// Whether this process has run out of descriptors, memory or local ports.
fn is_starved(error: &std::io::Error) -> bool {
    let is_other = || {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOMEM | libc::ENOBUFS | libc::EADDRNOTAVAIL)
        )
    };
    is_out_of_files(error) || is_other()
}

/// Whether there are no descriptors left. They are there again once something is closed, which local ports are not
/// (TIME-WAIT, RFC 9293 section 3.6.1).
fn is_out_of_files(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
