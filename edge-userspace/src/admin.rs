//! The admin address: readiness, metrics, status and the configuration in force, over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::TextEncoder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Receiver;

use crate::events;
use crate::flows;

/// What the admin address shows. The running app is one; each call is answered from its state at that moment.
pub(crate) trait Inspect: Send + Sync + 'static {
    /// Whether new connections are welcome: configured, listening, and not draining.
    fn ready(&self) -> bool;
    /// Metric families of both tiers.
    fn metrics(&self) -> Vec<prometheus::proto::MetricFamily>;
    /// State for `edge status`, as JSON.
    fn status(&self) -> serde_json::Result<String>;
    /// Remembered flows, as JSON.
    fn flows(&self, query: &flows::Query) -> serde_json::Result<String>;
    /// Samples of dropped packets, from now on: one JSON object a line.
    fn samples(&self) -> Receiver<Arc<str>>;
    /// The configuration in force, as JSON.
    fn config_dump(&self) -> serde_json::Result<String>;
}

/// A client that does not finish its request is let go after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds the admin address.
///
/// # Errors
/// When the address is taken or not of this machine.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on the admin address {address}"))
}

/// Answers until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, app: Arc<dyn Inspect>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(&app)));
            }
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would only burn the core.
                tracing::warn!(%error, "admin address: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, app: Arc<dyn Inspect>) {
    let service = hyper::service::service_fn(move |request| {
        let app = Arc::clone(&app);
        // Off the thread that does everything else: reading the connection table takes a while.
        tokio::task::spawn_blocking(move || answer_to(&request, app.as_ref()))
    });
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection ended");
    }
}

/// The answer: a page, or the samples, which have no end.
fn answer_to<B>(request: &Request<B>, app: &dyn Inspect) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    if request.method() == Method::GET && request.uri().path() == EVENTS {
        let mut response = Response::new(events::body(app.samples()).boxed_unsync());
        let lines = hyper::header::HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(CONTENT_TYPE, lines);
        return response;
    }
    respond(request, app).map(BodyExt::boxed_unsync)
}

/// Path of the samples.
const EVENTS: &str = "/events";

fn respond<B>(request: &Request<B>, app: &dyn Inspect) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz/ready" if app.ready() => text(StatusCode::OK, "ready\n"),
        "/healthz/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        "/stats/prometheus" => metrics(app),
        "/status" => json(app.status()),
        "/config_dump" => json(app.config_dump()),
        "/flows" => match flows::Query::parse(request.uri().query().unwrap_or_default()) {
            Ok(query) => json(app.flows(&query)),
            Err(problem) => text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
        },
        "/" => text(
            StatusCode::OK,
            "/healthz/ready\n/stats/prometheus\n/status\n/flows\n/config_dump\n/events\n",
        ),
        _ => text(StatusCode::NOT_FOUND, "no such page; / lists them\n"),
    }
}

fn metrics(app: &dyn Inspect) -> Response<Full<Bytes>> {
    match TextEncoder::new().encode_to_string(&app.metrics()) {
        Ok(body) => answer(StatusCode::OK, prometheus::TEXT_FORMAT, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn json(body: serde_json::Result<String>) -> Response<Full<Bytes>> {
    match body {
        Ok(mut body) => {
            body.push('\n');
            answer(StatusCode::OK, "application/json", body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed {
        ready: bool,
    }

    impl Inspect for Fixed {
        fn ready(&self) -> bool {
            self.ready
        }

        fn metrics(&self) -> Vec<prometheus::proto::MetricFamily> {
            prometheus::gather()
        }

        fn samples(&self) -> Receiver<Arc<str>> {
            tokio::sync::broadcast::channel(1).1
        }

        fn status(&self) -> serde_json::Result<String> {
            serde_json::to_string(&serde_json::json!({"ready": self.ready}))
        }

        fn flows(&self, query: &flows::Query) -> serde_json::Result<String> {
            serde_json::to_string(&query.limit)
        }

        fn config_dump(&self) -> serde_json::Result<String> {
            serde_json::from_str::<serde_json::Value>("{").map(|value| value.to_string())
        }
    }

    #[track_caller]
    fn check(ready: bool, method: Method, path: &str, expected: u16) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        assert_eq!(
            respond(&request, &Fixed { ready }).status().as_u16(),
            expected,
            "{path}"
        );
    }

    #[test]
    fn readiness_follows_the_app() {
        check(true, Method::GET, "/healthz/ready", 200);
        check(false, Method::GET, "/healthz/ready", 503);
    }

    #[test]
    fn pages_answer_get_only_and_errors_are_told() {
        check(true, Method::GET, "/", 200);
        check(true, Method::GET, "/stats/prometheus", 200);
        check(true, Method::HEAD, "/status", 200);
        check(true, Method::POST, "/status", 405);
        check(true, Method::GET, "/nowhere", 404);
        check(true, Method::GET, "/flows?limit=1", 200);
        check(true, Method::GET, "/flows?limit=x", 400);
        check(true, Method::GET, "/config_dump", 500);
    }
}
