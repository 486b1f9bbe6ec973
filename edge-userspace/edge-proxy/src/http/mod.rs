//! One request: checked, routed, limited, forwarded or answered, and accounted for.

mod account;
mod body;
mod check;
mod cors;
mod direct;
mod fault;
mod finish;
mod flag;
mod forward;
mod grpc;
mod hash;
mod head;
mod incoming;
mod limit;
mod messages;
mod mirror;
mod pace;
mod present;
mod rebuild;
mod record;
mod reply;
mod request_body;
mod service;
mod trailers;
mod upgrade;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use edge_model::{FormatCommand, Forward, PathPolicy, Route, RouteAction, WeightedDestination};
use edge_routing::{
    Decision, RequestView, Table, choose_destination, normalize_path_by, redirect_location, rewrite,
    tls_redirect_location,
};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;

use crate::access_log::{self, Scene};
use crate::connection::Conn;
use crate::worker::View;
pub(crate) use account::{Account, Via};
pub(crate) use body::{ResponseBody, UpstreamBody};
pub(crate) use finish::has_no_body;
use finish::{Content, frame_own, tell_of_connection, told_length};
pub(crate) use flag::{Flag, Flags};
use forward::Forwarding;
pub(crate) use head::{Peer, RequestId, push_forwarded_for};
use head::{Plan, SERVICE_TIME, add_server, downstream_headers, own_length, trusted_address};
pub(crate) use incoming::{Http2Body, Incoming};
use limit::Limited;
use pace::Pace;
use present::Present;
pub(crate) use rebuild::rebuilt;
pub(crate) use record::Record;
pub(crate) use reply::Reply;
pub(crate) use request_body::{RequestBody, RequestBodyError};
pub(crate) use service::service;
pub(crate) use upgrade::Tunnel;

/// Answers a request that came over `conn`, on whose account `record` was begun.
///
/// From here on down, futures are pinned where they are awaited: an `async fn` is as large as all that it awaits, and
/// would else be moved (ARCHITECTURE.md, "What a request costs", says how that is seen).
pub(crate) async fn serve(
    conn: &Rc<Conn>,
    mut head: Box<Parts>,
    mut body: Incoming,
    mut record: Box<Record>,
) -> Response<ResponseBody> {
    let view = conn.worker().view();
    check::prepare(&mut head);
    let asked = upgrade::asked(&mut head, conn);
    let exchange = Exchange {
        conn,
        view: &view,
        table: conn.table(&view),
        head: &head,
    };
    let mut limited = Limited::default();
    let answered = pin!(exchange.answer(&mut body, &mut limited, &mut record)).await;
    let mut response = match answered {
        Ok(response) => {
            record.answered(response.status(), Flags::NONE);
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => upgrade::switched(asked, response),
                _ => response.map(Content::Upstream),
            }
        }
        Err(reply) => answered_here(conn, reply, &head, &mut record).map(Content::Own),
    };
    let status = response.status();
    let headers = response.headers_mut();
    add_server(headers);
    limited.write_headers(headers);
    tell_of_connection(conn, status, headers);
    record.log(head, headers);
    response.map(|content| content.into_body(conn, record))
}

/// The gateway's own answer, in the form that the client understands.
fn answered_here(conn: &Conn, reply: Reply, head: &Parts, record: &mut Record) -> Response<Bytes> {
    record.answered_here(reply.details);
    let flags = reply.flags;
    let mut reply = if grpc::is_grpc(&head.headers) {
        reply.for_grpc()
    } else {
        reply
    };
    record.answered(reply.status(), flags);
    record.grpc_status(reply.headers());
    let mut response = reply.into_response();
    frame_own(conn.protocol(), &head.method, &mut response);
    response
}

/// A request with what it is decided by.
struct Exchange<'a> {
    conn: &'a Rc<Conn>,
    view: &'a View,
    table: Option<Arc<Table>>,
    head: &'a Parts,
}

impl Exchange<'_> {
    async fn answer(
        &self,
        body: &mut Incoming,
        limited: &mut Limited,
        record: &mut Record,
    ) -> Result<Response<Box<UpstreamBody>>, Reply> {
        if self.conn.worker().overload().refuses_request() {
            return Err(Reply::overloaded());
        }
        let present = Present::of(&self.head.headers);
        let authority = check::check(self.head, &present, self.conn.worker().limits())?;
        if self.conn.is_misdirected(self.view, host_of(authority)) {
            return Err(Reply::misdirected());
        }
        let path = normalized(self.head, self.conn.worker().paths())?;
        if self.view.config().is_closed {
            return Err(Reply::access_denied());
        }
        let request = RequestView {
            authority,
            path_and_query: path.as_str(),
            method: self.head.method.as_str(),
            scheme: self.conn.peer().scheme,
            headers: &self.head.headers,
            claims: None,
        };
        let table = self.table.as_deref().ok_or_else(Reply::no_route)?;
        let decision = table.decide(&request);
        // CORS, faults and rate limits are filters in front of the router, in this order (Istio's gateway): they see what
        // it will answer by itself, too.
        let route = match &decision {
            Decision::Route { virtual_host, route } => {
                record.took_route(virtual_host, route);
                Some(*route)
            }
            Decision::NoVirtualHost | Decision::NoRoute { .. } | Decision::RequireTls { .. } => None,
        };
        record.has_id(self.request_id());
        if present.content_type && grpc::is_grpc(&self.head.headers) {
            record.is_grpc();
        }
        let cors = match route.and_then(|route| route.cors.as_deref()) {
            Some(policy) => cors::check(policy, self.head)?,
            None => None,
        };
        // Drawn before the filters, as what they answer is edited for its destination, too.
        let destination = route.and_then(|route| self.destination(route));
        let mut answered = pin!(self.filtered(
            table,
            &decision,
            destination,
            &request,
            (&path, &present),
            body,
            limited,
            record
        ))
        .await;
        if let (Err(reply), Some(route)) = (&mut answered, route) {
            self.edit_own(reply, route, destination, record);
        }
        match (answered, cors) {
            (answered, None) => answered,
            (Ok(mut response), Some(allowed)) => {
                allowed.write_headers(response.headers_mut());
                Ok(response)
            }
            (Err(mut reply), Some(allowed)) => {
                allowed.write_headers(reply.headers());
                Err(reply)
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one decision, taken apart only for the CORS headers around it"
    )]
    async fn filtered(
        &self,
        table: &Table,
        decision: &Decision<'_>,
        destination: Option<&WeightedDestination>,
        request: &RequestView<'_>,
        (path, present): (&PathAndQuery, &Present<'_>),
        body: &mut Incoming,
        limited: &mut Limited,
        record: &mut Record,
    ) -> Result<Response<Box<UpstreamBody>>, Reply> {
        if let Decision::Route { route, .. } = decision
            && let Some(fault) = &route.fault
        {
            fault::inject(fault, self.conn, record).await?;
        }
        *limited = self.limit(table, decision, record.started())?;
        match decision {
            Decision::NoVirtualHost | Decision::NoRoute { .. } => Err(Reply::no_route()),
            Decision::RequireTls { .. } => {
                let location = tls_redirect_location(request);
                Err(Reply::redirect(StatusCode::MOVED_PERMANENTLY, &location))
            }
            Decision::Route { route, .. } => match &route.action {
                RouteAction::Forward(forward) => {
                    let destination = destination.ok_or_else(Reply::no_cluster)?;
                    let asked = (request.authority, path, present);
                    pin!(self.forward(route, (forward, destination), asked, body, record)).await
                }
                RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => {
                    Err(answer_directly(route, request))
                }
            },
        }
    }

    /// What a command of a header operation stands for.
    fn value(
        &self,
        command: &FormatCommand,
        account: &Account,
        response: Option<&HeaderMap>,
    ) -> Option<String> {
        let scene = Scene {
            conn: self.conn,
            client: Some(self.head),
            response: response.map_or(access_log::Response::Awaited, access_log::Response::Head),
            account,
        };
        let mut value = Vec::new();
        let is_there = scene.append(command, &mut value);
        is_there.then(|| String::from_utf8_lossy(&value).into_owned())
    }

    /// The client's id of the request where it comes from a trusted proxy, else a new one.
    fn request_id(&self) -> RequestId {
        let worker = self.conn.worker();
        let trusted = worker.trusted_proxies() > 0;
        RequestId::new(trusted.then_some(&self.head.headers), &mut worker.rng())
    }

    /// The client's address as trusted proxies in front tell it; `None` without any.
    fn trusted_address(&self) -> Option<IpAddr> {
        match self.conn.worker().trusted_proxies() {
            0 => None,
            count => trusted_address(&self.head.headers, count),
        }
    }

    /// Where a request that takes a route goes, if it is forwarded.
    fn destination<'r>(&self, route: &'r Route) -> Option<&'r WeightedDestination> {
        match &route.action {
            RouteAction::Forward(forward) => choose_destination(forward, self.conn.worker().rng().u64(..)),
            RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => None,
        }
    }

    /// Edits an answer of the gateway's own as one of the route's endpoints would be (Envoy applies "route level header
    /// modifications to local replies sent on that route", its release notes say). What it says of the connection stays.
    fn edit_own(
        &self,
        reply: &mut Reply,
        route: &Route,
        destination: Option<&WeightedDestination>,
        record: &Record,
    ) {
        let values = |command: &FormatCommand| self.value(command, record.account(), None);
        let headers = reply.headers();
        let own = [CONNECTION, UPGRADE].map(|name| (headers.remove(&name), name));
        finish::edit(headers, route, destination, &values);
        for (value, name) in own {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }

    async fn forward(
        &self,
        route: &Route,
        (forward, destination): (&Forward, &WeightedDestination),
        (authority, path, present): (&str, &PathAndQuery, &Present<'_>),
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Response<Box<UpstreamBody>>, Reply> {
        let cluster = self
            .view
            .cluster(&destination.cluster)
            .ok_or_else(Reply::no_cluster)?;
        record.reached_cluster(cluster);
        let rewritten = rewrite(route, forward, destination, path.as_str());
        let (id, request_id) = (record.account().id, record.account().request_id.clone());
        let started = record.started();
        let values = |command: &FormatCommand| {
            let early = Account::new(id, started, request_id.clone());
            self.value(command, &early, None)
        };
        let told = match record.account().is_grpc {
            true => grpc::timeout(&self.head.headers),
            false => None,
        };
        let timeout = Forwarding::timeout(forward, told);
        let forwarding = Forwarding {
            conn: self.conn,
            view: self.view,
            client: self.head,
            present,
            forward,
            plan: Plan {
                route,
                destination,
                rewritten: &rewritten,
                authority,
                path,
                values: &values,
                trusted_address: self.trusted_address(),
                expected: Forwarding::expected(forward, timeout),
            },
            cluster,
            via: RefCell::default(),
        };
        if !is_settled(body) {
            settled(body, self.conn).await?;
        }
        let answered = pin!(self.within(&forwarding, timeout, body, record)).await;
        record.went_via(forwarding.via.take());
        let mut response = answered?;
        record.responded(response.headers());
        let (status, length) = (response.status(), response.body().body.size_hint().exact());
        // Formats may ask for what the upstream sent, and there are few of them.
        let sent = self.view.has_formats().then(|| response.headers().clone());
        let headers = response.headers_mut();
        let values = |command: &FormatCommand| self.value(command, record.account(), sent.as_ref());
        let asked = (&self.head.method, status);
        let told = told_length(self.conn.protocol(), asked, length, || own_length(headers));
        downstream_headers(told, headers, route, destination, &values);
        add_service_time(headers, record);
        Ok(response)
    }

    /// Runs out with 504 after the timeout of the route or the call; what is left of it goes with the response's body.
    async fn within(
        &self,
        forwarding: &Forwarding<'_>,
        timeout: Option<Duration>,
        body: &mut Incoming,
        record: &mut Record,
    ) -> Result<Response<Box<UpstreamBody>>, Reply> {
        let routed = record.routed();
        let Some(timeout) = timeout else {
            return pin!(forwarding.run(body, record)).await;
        };
        let mut timer = self.conn.worker().timers().since(routed, timeout);
        let ended = {
            let mut response = pin!(forwarding.run(body, record));
            tokio::select! {
                biased;
                response = &mut response => Some(response?),
                () = &mut timer => None,
            }
        };
        match ended {
            Some(mut response) => {
                response.body_mut().timer = Some(timer);
                Ok(response)
            }
            None => Err(forwarding.timed_out(record)),
        }
    }
}

/// The answer of a redirect or direct response.
fn answer_directly(route: &Route, request: &RequestView<'_>) -> Reply {
    match &route.action {
        RouteAction::Redirect(redirect) => {
            let location = redirect_location(redirect, &route.matcher, request);
            Reply::redirect(redirect.code, &location)
        }
        RouteAction::DirectResponse(direct) => {
            Reply::new(direct.status, Flags::NONE).with_body(direct.body.clone())
        }
        RouteAction::Forward(_) => Reply::no_route(),
    }
}

/// Whether a body has ended, or is not told to be empty.
fn is_settled(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() != Some(0)
}

/// Waits for the end of a body that is told to be empty, as HTTP/2 tells the end apart from the length: whoever sends
/// more than nothing has sent a malformed request, of which nothing may go upstream (RFC 9113 section 8.1.1).
async fn settled(body: &mut Incoming, conn: &Rc<Conn>) -> Result<(), Reply> {
    let mut pace = Pace::new(conn, true, false);
    while !body.is_end_stream() {
        let next = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => pace.poll_slow(cx).map(|()| Err(Reply::slow_body())),
        });
        match next.await? {
            Some(Ok(frame)) if frame.data_ref().is_none_or(Bytes::is_empty) => {}
            Some(Ok(_) | Err(_)) => return Err(Reply::malformed("a body beyond its length")),
            None => break,
        }
    }
    Ok(())
}

/// An authority without its port.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        Some(_) | None => authority,
    }
}

/// The path as it is matched and sent on.
fn normalized(head: &Parts, policy: PathPolicy) -> Result<PathAndQuery, Reply> {
    let invalid = || Reply::malformed("invalid path");
    let sent = head.uri.path_and_query().ok_or_else(invalid)?;
    let path = normalize_path_by(sent.as_str(), policy).map_err(|_| invalid())?;
    if path.redirects {
        return Err(Reply::redirect(StatusCode::TEMPORARY_REDIRECT, &path.text));
    }
    match path.text {
        text if *text == *sent.as_str() => Ok(sent.clone()),
        text => PathAndQuery::try_from(text.into_owned()).map_err(|_| invalid()),
    }
}

/// Milliseconds until the upstream's response head.
fn add_service_time(headers: &mut HeaderMap, record: &Record) {
    let milliseconds = u64::try_from(record.until_first_byte().as_millis()).unwrap_or(u64::MAX);
    headers.insert(SERVICE_TIME, number(milliseconds));
}

/// A number as a field value; of one digit, as most are that are written here, it costs no memory.
fn number(number: u64) -> HeaderValue {
    const DIGITS: &str = "0123456789";
    match usize::try_from(number).ok().and_then(|at| DIGITS.get(at..=at)) {
        Some(digit) => HeaderValue::from_static(digit),
        None => HeaderValue::from(number),
    }
}
