//! One request: checked, routed, limited, forwarded or answered, and accounted for.

mod body;
mod check;
mod flag;
mod forward;
mod head;
mod limit;
mod record;
mod reply;

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use edge_model::{Forward, Route, RouteAction};
use edge_routing::{
    Decision, RequestView, Table, apply_response_ops, choose_destination, normalize_path, redirect_location,
    rewrite, tls_redirect_location,
};
use http::header::CONNECTION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::connection::Conn;
use crate::worker::View;
pub(crate) use body::{RequestBody, ResponseBody, UpstreamBody};
pub(crate) use flag::Flag;
use forward::Forwarding;
pub(crate) use head::Peer;
use head::{Plan, SERVICE_TIME, add_server, downstream_headers};
use limit::Limited;
pub(crate) use record::Record;
pub(crate) use reply::Reply;

/// What hyper calls with each request of a connection.
pub(crate) struct Service(pub(crate) Rc<Conn>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    /// Boxed: hyper keeps room for one such future in every connection, idle ones too, and it is some kilobytes.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let conn = Rc::clone(&self.0);
        let record = Record::begin(&conn);
        Box::pin(async move { Ok(serve(&conn, request, record).await) })
    }
}

async fn serve(conn: &Conn, request: Request<Incoming>, mut record: Record) -> Response<ResponseBody> {
    let view = conn.worker().view();
    let (head, body) = request.into_parts();
    let exchange = Exchange {
        conn,
        view: &view,
        table: conn.table(&view),
        head: &head,
    };
    let mut limited = Limited::default();
    let mut response = match exchange.answer(body, &mut limited, &mut record).await {
        Ok(response) => {
            record.answered(response.status(), Flag::None);
            response.map(|body| ResponseBody::upstream(body, record))
        }
        Err(reply) => {
            record.answered(reply.status(), reply.flag);
            reply
                .into_response()
                .map(|body| ResponseBody::local(body, record))
        }
    };
    let headers = response.headers_mut();
    add_server(headers);
    limited.write_headers(headers);
    if conn.closes_after_response() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request with what it is decided by.
struct Exchange<'a> {
    conn: &'a Conn,
    view: &'a View,
    table: Option<Arc<Table>>,
    head: &'a Parts,
}

impl Exchange<'_> {
    async fn answer(
        &self,
        body: Incoming,
        limited: &mut Limited,
        record: &mut Record,
    ) -> Result<Response<UpstreamBody>, Reply> {
        let authority = check::check(self.head)?;
        let path = normalized(self.head)?;
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
        // Rate limits are filters in front of the router: they count what it will answer by itself, too.
        *limited = self.limit(table, &decision, record.started())?;
        match decision {
            Decision::NoVirtualHost | Decision::NoRoute { .. } => Err(Reply::no_route()),
            Decision::RequireTls { .. } => {
                let location = tls_redirect_location(&request);
                Err(Reply::redirect(StatusCode::MOVED_PERMANENTLY, &location))
            }
            Decision::Route { route, .. } => match &route.action {
                RouteAction::Forward(forward) => {
                    self.forward(route, forward, authority, &path, body, record).await
                }
                RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => {
                    Err(self.answer_directly(route, &request))
                }
            },
        }
    }

    /// The answer of a redirect or direct response, with the route's header operations.
    fn answer_directly(&self, route: &Route, request: &RequestView<'_>) -> Reply {
        let mut reply = match &route.action {
            RouteAction::Redirect(redirect) => {
                let location = redirect_location(redirect, &route.matcher, request);
                Reply::redirect(redirect.code, &location)
            }
            RouteAction::DirectResponse(direct) => {
                Reply::new(direct.status, Flag::None).with_body(direct.body.clone())
            }
            RouteAction::Forward(_) => Reply::no_route(),
        };
        apply_response_ops(reply.headers(), route, None);
        reply
    }

    async fn forward(
        &self,
        route: &Route,
        forward: &Forward,
        authority: &str,
        path: &PathAndQuery,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Response<UpstreamBody>, Reply> {
        let draw = self.conn.worker().rng().u64(..);
        let destination = choose_destination(forward, draw).ok_or_else(Reply::no_cluster)?;
        let cluster = self
            .view
            .cluster(&destination.cluster)
            .ok_or_else(Reply::no_cluster)?;
        record.reached_cluster(cluster);
        let rewritten = rewrite(route, forward, destination, path.as_str());
        let forwarding = Forwarding {
            conn: self.conn,
            client: self.head,
            plan: Plan {
                route,
                destination,
                rewritten: &rewritten,
                authority,
                path,
            },
            cluster,
        };
        let mut response = within(forward.timeout, forwarding.run(body, record)).await?;
        let status = response.status();
        let headers = response.headers_mut();
        downstream_headers(&self.head.method, status, headers, route, destination);
        add_service_time(headers, record);
        Ok(response)
    }
}

/// Runs out with 504 after the route's timeout; what is left of it goes with the response's body.
async fn within(
    timeout: Option<Duration>,
    forwarding: impl Future<Output = Result<Response<UpstreamBody>, Reply>>,
) -> Result<Response<UpstreamBody>, Reply> {
    let Some(timeout) = timeout else {
        return forwarding.await;
    };
    let mut timer = Box::pin(tokio::time::sleep(timeout));
    let mut response = tokio::select! {
        biased;
        response = forwarding => response?,
        () = timer.as_mut() => return Err(Reply::timeout()),
    };
    response.body_mut().timer = Some(timer);
    Ok(response)
}

/// The path as it is matched and sent on.
fn normalized(head: &Parts) -> Result<PathAndQuery, Reply> {
    let invalid = || Reply::malformed("invalid path");
    let sent = head.uri.path_and_query().ok_or_else(invalid)?;
    match normalize_path(sent.as_str()).map_err(|_| invalid())? {
        path if *path == *sent.as_str() => Ok(sent.clone()),
        path => PathAndQuery::try_from(path.into_owned()).map_err(|_| invalid()),
    }
}

/// Milliseconds until the upstream's response head.
fn add_service_time(headers: &mut HeaderMap, record: &Record) {
    let milliseconds = u64::try_from(record.started().elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(SERVICE_TIME, HeaderValue::from(milliseconds));
}
