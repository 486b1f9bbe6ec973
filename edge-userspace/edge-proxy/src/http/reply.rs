//! Responses that the gateway gives by itself.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::Flag;

/// A response of the gateway's own, with the flag that it is counted under.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) flag: Flag,
    /// Boxed: it is the error of functions that hardly ever fail.
    response: Box<Response<Bytes>>,
}

impl Reply {
    /// Without headers and body.
    pub(crate) fn new(status: StatusCode, flag: Flag) -> Self {
        let mut response = Box::new(Response::new(Bytes::new()));
        *response.status_mut() = status;
        Self { flag, response }
    }

    fn text(status: StatusCode, flag: Flag, text: &'static str) -> Self {
        Self::new(status, flag).with_body(Bytes::from_static(text.as_bytes()))
    }

    /// A request that is not well formed. The connection is closed, as nobody can say where the next one begins.
    pub(crate) fn malformed(reason: &'static str) -> Self {
        let reply = Self::text(StatusCode::BAD_REQUEST, Flag::DownstreamProtocolError, reason);
        reply.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// HTTP/1.0, which Istio's gateways do not serve unless told to (`PILOT_HTTP10`).
    pub(crate) fn upgrade_required() -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, Flag::DownstreamProtocolError)
            .with_header(UPGRADE, HeaderValue::from_static("HTTP/1.1"))
            .with_header(CONNECTION, HeaderValue::from_static("upgrade, close"))
    }

    /// CONNECT: this is no forward proxy.
    pub(crate) fn connect_refused() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Flag::DownstreamProtocolError)
            .with_header(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            )
            .with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// An expectation other than 100-continue (RFC 9110 section 10.1.1).
    pub(crate) fn expectation_failed() -> Self {
        Self::new(StatusCode::EXPECTATION_FAILED, Flag::DownstreamProtocolError)
            .with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// A security policy does not let the request in; the words are those of Envoy's filter `rbac`.
    pub(crate) fn access_denied() -> Self {
        Self::text(StatusCode::FORBIDDEN, Flag::None, "RBAC: access denied")
    }

    /// No virtual host or no route.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, Flag::NoRoute)
    }

    /// The route's cluster does not exist.
    pub(crate) fn no_cluster() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Flag::NoCluster)
    }

    /// The cluster has no endpoint.
    pub(crate) fn no_healthy_upstream() -> Self {
        Self::text(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::NoHealthyUpstream,
            "no healthy upstream",
        )
    }

    /// No endpoint could be connected to. `reason` says in what way, and nothing of the inside of the network.
    pub(crate) fn connect_failed(reason: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Flag::UpstreamConnectionFailure).with_body(Bytes::from(
            format!("upstream connect error before headers. reset reason: {reason}"),
        ))
    }

    /// The upstream closed before it answered.
    pub(crate) fn upstream_closed() -> Self {
        Self::text(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectionTermination,
            "upstream disconnect before headers. reset reason: connection termination",
        )
    }

    /// The upstream's answer could not be understood, or may not be passed on.
    pub(crate) fn upstream_protocol_error() -> Self {
        Self::text(
            StatusCode::BAD_GATEWAY,
            Flag::UpstreamProtocolError,
            "upstream reset before headers. reset reason: protocol error",
        )
    }

    /// The route's timeout ran out.
    pub(crate) fn timeout() -> Self {
        Self::text(
            StatusCode::GATEWAY_TIMEOUT,
            Flag::UpstreamRequestTimeout,
            "upstream request timeout",
        )
    }

    /// A redirect; one whose location cannot stand in a header is answered as malformed.
    pub(crate) fn redirect(status: StatusCode, location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(location) => Self::new(status, Flag::None).with_header(LOCATION, location),
            Err(_) => Self::malformed("the request does not make a valid location"),
        }
    }

    pub(crate) fn with_body(mut self, body: Bytes) -> Self {
        if !body.is_empty() {
            self.headers()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        *self.response.body_mut() = body;
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers().append(name, value);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }

    pub(crate) fn into_response(self) -> Response<Bytes> {
        *self.response
    }
}
