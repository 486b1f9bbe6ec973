//! Responses that the gateway gives by itself.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{Flag, Flags, grpc};

/// Told to clients of a cluster whose circuit breaker is open.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Told to clients whose request the edge itself is too busy for.
const LOCAL_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-local-overloaded");

/// Why no response came (Envoy `StreamResetReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The endpoint refused the connection, or could not be reached.
    ConnectFailure,
    /// The endpoint did not answer to the attempt to connect.
    ConnectTimeout,
    /// The connection ended.
    Termination,
    /// The gateway reset the stream, for what the endpoint did to it.
    Local,
    /// The endpoint reset the stream.
    Remote,
    /// The endpoint refused the stream.
    RemoteRefused,
    /// The answer was not understood, or may not be passed on.
    Protocol,
    /// A circuit breaker was open.
    Overflow,
}

impl Reset {
    /// Status, flag, reason and details. The reason says nothing of the inside of the network.
    fn told(self) -> (StatusCode, Flag, &'static str, &'static str) {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::ConnectFailure => (
                unavailable,
                Flag::UpstreamConnectionFailure,
                "remote connection failure",
                "upstream_reset_before_response_started{remote_connection_failure}",
            ),
            Self::ConnectTimeout => (
                unavailable,
                Flag::UpstreamConnectionFailure,
                "connection timeout",
                "upstream_reset_before_response_started{connection_timeout}",
            ),
            Self::Termination => (
                unavailable,
                Flag::UpstreamConnectionTermination,
                "connection termination",
                "upstream_reset_before_response_started{connection_termination}",
            ),
            Self::Local => (
                unavailable,
                Flag::LocalReset,
                "local reset",
                "upstream_reset_before_response_started{local_reset}",
            ),
            Self::Remote => (
                unavailable,
                Flag::UpstreamRemoteReset,
                "remote reset",
                "upstream_reset_before_response_started{remote_reset}",
            ),
            Self::RemoteRefused => (
                unavailable,
                Flag::UpstreamRemoteReset,
                "remote refused stream reset",
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
            ),
            Self::Protocol => (
                StatusCode::BAD_GATEWAY,
                Flag::UpstreamProtocolError,
                "protocol error",
                "upstream_reset_before_response_started{protocol_error}",
            ),
            Self::Overflow => (
                unavailable,
                Flag::UpstreamOverflow,
                "overflow",
                "upstream_reset_before_response_started{overflow}",
            ),
        }
    }
}

/// A response of the gateway's own, with the flag that it is counted under.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) flags: Flags,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: &'static str,
    /// gRPC status for clients of gRPC, where it does not follow from the status.
    grpc_status: Option<u8>,
    /// Boxed: it is the error of functions that hardly ever fail.
    response: Box<Response<Bytes>>,
}

impl Reply {
    /// Without headers and body.
    pub(crate) fn new(status: StatusCode, flags: impl Into<Flags>) -> Self {
        let mut response = Box::new(Response::new(Bytes::new()));
        *response.status_mut() = status;
        Self {
            flags: flags.into(),
            details: "direct_response",
            grpc_status: None,
            response,
        }
    }

    fn text(status: StatusCode, flags: impl Into<Flags>, text: &'static str) -> Self {
        Self::new(status, flags).with_body(Bytes::from_static(text.as_bytes()))
    }

    /// A request that is not well formed. The connection is closed, as nobody can say where the next one begins.
    pub(crate) fn malformed(reason: &'static str) -> Self {
        let reply = Self::text(StatusCode::BAD_REQUEST, Flag::DownstreamProtocolError, reason);
        reply
            .details("codec_error")
            .with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// A head that is larger than allowed in one of its measures.
    pub(crate) fn too_large(status: StatusCode) -> Self {
        Self::new(status, Flag::DownstreamProtocolError)
            .with_header(CONNECTION, HeaderValue::from_static("close"))
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
        Self::text(StatusCode::FORBIDDEN, Flags::NONE, "RBAC: access denied").details("rbac_access_denied")
    }

    /// The connection was opened for another server (RFC 9110 section 15.5.20): the client tries again over one of its
    /// own.
    pub(crate) fn misdirected() -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, Flag::NoRoute)
    }

    /// No virtual host or no route.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, Flag::NoRoute).details("route_not_found")
    }

    /// The route's cluster does not exist.
    pub(crate) fn no_cluster() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Flag::NoCluster).details("cluster_not_found")
    }

    /// The cluster has no endpoint that may be used.
    pub(crate) fn no_healthy_upstream() -> Self {
        Self::text(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::NoHealthyUpstream,
            "no healthy upstream",
        )
        .details("no_healthy_upstream")
    }

    /// No response came of the last try. `retried` says whether it was not the first one.
    pub(crate) fn no_response(reset: Reset, retried: bool) -> Self {
        let (status, flag, reason, details) = reset.told();
        let retried = if retried { "retried and the latest " } else { "" };
        let text = format!(
            "upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}"
        );
        Self::new(status, flag)
            .with_body(Bytes::from(text))
            .details(details)
    }

    /// A circuit breaker is open.
    pub(crate) fn overflow(retried: bool) -> Self {
        Self::no_response(Reset::Overflow, retried).with_header(OVERLOADED, HeaderValue::from_static("true"))
    }

    /// The edge is at a bound of its own (Envoy's overload manager). The connection goes with it, as it costs memory.
    pub(crate) fn overloaded() -> Self {
        Self::text(
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::OverloadManager,
            "envoy overloaded",
        )
        .details("overload")
        .with_header(LOCAL_OVERLOADED, HeaderValue::from_static("true"))
        .with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// The route's timeout ran out, or that of the last try.
    pub(crate) fn timeout(details: &'static str) -> Self {
        Self::text(
            StatusCode::GATEWAY_TIMEOUT,
            Flag::UpstreamRequestTimeout,
            "upstream request timeout",
        )
        .details(details)
    }

    /// The request's body came too slowly, or stopped.
    pub(crate) fn slow_body() -> Self {
        Self::text(
            StatusCode::REQUEST_TIMEOUT,
            Flag::StreamIdleTimeout,
            "stream timeout",
        )
        .details("stream_idle_timeout")
    }

    /// A redirect; one whose location cannot stand in a header is answered as malformed.
    pub(crate) fn redirect(status: StatusCode, location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(location) => Self::new(status, Flags::NONE).with_header(LOCATION, location),
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

    pub(crate) fn details(mut self, details: &'static str) -> Self {
        self.details = details;
        self
    }

    pub(crate) fn with_flags(mut self, flags: Flags) -> Self {
        self.flags = self.flags.and(flags);
        self
    }

    pub(crate) fn with_grpc_status(mut self, status: Option<u8>) -> Self {
        self.grpc_status = status;
        self
    }

    /// The answer in the form that clients of gRPC understand: status 200, no body, and all that is to be said in
    /// headers (Envoy `Utility::prepareLocalReply`).
    pub(crate) fn for_grpc(mut self) -> Self {
        let status = self.grpc_status.unwrap_or_else(|| grpc::from_http(self.status()));
        let body = std::mem::take(self.response.body_mut());
        let headers = self.headers();
        headers.insert(CONTENT_TYPE, grpc::MEDIA_TYPE);
        headers.insert(grpc::STATUS, HeaderValue::from(u16::from(status)));
        if let Some(message) = grpc::message(&body).filter(|message| !message.is_empty()) {
            headers.insert(grpc::MESSAGE, message);
        }
        *self.response.status_mut() = StatusCode::OK;
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
