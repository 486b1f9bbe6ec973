//! What a rule does besides forwarding: retries, faults, mirrors and cross-origin resource sharing.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::{ClusterName, Fraction, StringMatch};

/// When and how a request is tried again (Istio `HTTPRetry`, Envoy `RetryPolicy`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries beyond the first; 0 disables.
    pub attempts: u32,
    /// Conditions, one of which must hold.
    pub retry_on: RetryOn,
    /// Statuses that `retriable-status-codes` stands for.
    pub retriable_status_codes: Vec<StatusCode>,
    /// Time for each try; `None` leaves only that of the whole request.
    pub per_try_timeout: Option<Duration>,
    /// Interval that back-off grows from; it grows tenfold at most.
    pub base_interval: Duration,
    /// Whether endpoints that failed before are avoided, with five draws at most; off with a consistent hash.
    pub avoid_previous_hosts: bool,
    /// `retryRemoteLocalities`: further priorities are tried as the first ones fail.
    pub remote_localities: bool,
}

impl RetryPolicy {
    /// Envoy's `base_interval` unless set.
    pub const BASE_INTERVAL: Duration = Duration::from_millis(25);
    /// Envoy's `host_selection_retry_max_attempts` as Istio sets it.
    pub const HOST_SELECTION_ATTEMPTS: u32 = 5;
}

impl Default for RetryPolicy {
    /// Istio's policy of a rule without `retries` (istio `pilot/pkg/networking/core/route/retry`).
    fn default() -> Self {
        Self {
            attempts: 2,
            retry_on: RetryOn::DEFAULT,
            retriable_status_codes: vec![],
            per_try_timeout: None,
            base_interval: Self::BASE_INTERVAL,
            avoid_previous_hosts: true,
            remote_localities: false,
        }
    }
}

/// A condition of Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCondition {
    /// `5xx`: a status from 500 on, or no answer at all.
    ServerError,
    /// `gateway-error`: 502, 503 or 504.
    GatewayError,
    /// `reset`: no answer, because of a reset, a disconnect or a time limit.
    Reset,
    /// `reset-before-request`: as `reset`, before the request was sent.
    ResetBeforeRequest,
    /// `connect-failure`: no connection.
    ConnectFailure,
    /// `envoy-ratelimited`: the header x-envoy-ratelimited is there.
    RateLimited,
    /// `retriable-4xx`: 409.
    Retriable4xx,
    /// `refused-stream`: HTTP/2 REFUSED_STREAM.
    RefusedStream,
    /// `retriable-status-codes`: one of the listed ones.
    RetriableStatusCodes,
    /// `retriable-headers`: no list of them can be given by Istio's API, so it never holds.
    RetriableHeaders,
    /// `http3-post-connect-failure`: HTTP/3 is not spoken to endpoints, so it never holds.
    Http3PostConnectFailure,
    /// gRPC `cancelled` (1).
    Cancelled,
    /// gRPC `deadline-exceeded` (4).
    DeadlineExceeded,
    /// gRPC `internal` (13).
    Internal,
    /// gRPC `resource-exhausted` (8).
    ResourceExhausted,
    /// gRPC `unavailable` (14).
    Unavailable,
}

impl RetryCondition {
    /// All conditions with their names.
    pub const ALL: [(&'static str, Self); 16] = [
        ("5xx", Self::ServerError),
        ("gateway-error", Self::GatewayError),
        ("reset", Self::Reset),
        ("reset-before-request", Self::ResetBeforeRequest),
        ("connect-failure", Self::ConnectFailure),
        ("envoy-ratelimited", Self::RateLimited),
        ("retriable-4xx", Self::Retriable4xx),
        ("refused-stream", Self::RefusedStream),
        ("retriable-status-codes", Self::RetriableStatusCodes),
        ("retriable-headers", Self::RetriableHeaders),
        ("http3-post-connect-failure", Self::Http3PostConnectFailure),
        ("cancelled", Self::Cancelled),
        ("deadline-exceeded", Self::DeadlineExceeded),
        ("internal", Self::Internal),
        ("resource-exhausted", Self::ResourceExhausted),
        ("unavailable", Self::Unavailable),
    ];

    /// The condition of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find_map(|(own, condition)| (own == name).then_some(condition))
    }
}

/// A set of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

impl RetryOn {
    /// None of them.
    pub const NEVER: Self = Self(0);
    /// Istio's default: `connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes`.
    pub const DEFAULT: Self = Self::NEVER
        .with(RetryCondition::ConnectFailure)
        .with(RetryCondition::RefusedStream)
        .with(RetryCondition::Unavailable)
        .with(RetryCondition::Cancelled)
        .with(RetryCondition::RetriableStatusCodes);

    /// The set with one more condition.
    #[must_use]
    pub const fn with(self, condition: RetryCondition) -> Self {
        Self(self.0 | 1 << condition as u32)
    }

    /// Whether the condition is in the set.
    #[must_use]
    pub const fn contains(self, condition: RetryCondition) -> bool {
        self.0 & (1 << condition as u32) != 0
    }

    /// Names of the conditions in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let own = RetryCondition::ALL.into_iter();
        own.filter(move |(_, condition)| self.contains(*condition))
            .map(|(name, _)| name)
    }
}

/// Faults that are injected before a request is forwarded: the delay, then the abort (Envoy's fault filter).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// Delay.
    pub delay: Option<FaultDelay>,
    /// Abort.
    pub abort: Option<FaultAbort>,
}

/// A delay for some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// For which share of the requests.
    pub share: Fraction,
}

/// An answer in place of forwarding, for some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAbort {
    /// What is answered.
    pub status: AbortStatus,
    /// For which share of the requests.
    pub share: Fraction,
}

/// Names of gRPC's statuses by their numbers (`google.rpc.Code`).
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How an abort answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// With an HTTP status.
    Http(StatusCode),
    /// With the number of a gRPC status, an index of [`GRPC_STATUSES`].
    Grpc(u8),
}

/// A copy of the traffic, whose answers are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where the copies go.
    pub cluster: ClusterName,
    /// Share of the requests that are copied.
    pub share: Fraction,
}

/// Cross-origin resource sharing (Istio `CorsPolicy`, Envoy's CORS filter).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CorsPolicy {
    /// Origins that are allowed; `*` as an exact value allows every one.
    pub allow_origins: Vec<StringMatch>,
    /// `access-control-allow-methods`.
    pub allow_methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub allow_headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub expose_headers: Option<HeaderValue>,
    /// `access-control-max-age`, in whole seconds.
    pub max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials: true`.
    pub allow_credentials: bool,
    /// `unmatchedPreflights`: a preflight whose origin is not allowed goes to the backend (Istio's default); else it is
    /// answered by the edge, without headers that allow anything.
    pub forward_unmatched_preflights: bool,
}

impl CorsPolicy {
    /// Whether an origin is allowed.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.allow_origins.iter().any(|allowed| match allowed {
            StringMatch::Exact(text) => text == "*" || text == origin,
            StringMatch::Prefix(_) | StringMatch::Regex(_) | StringMatch::Present => allowed.matches(origin),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_conditions_are_those_of_istio() {
        let names: Vec<_> = RetryOn::DEFAULT.names().collect();
        assert_eq!(
            names,
            [
                "connect-failure",
                "refused-stream",
                "retriable-status-codes",
                "cancelled",
                "unavailable"
            ]
        );
        assert!(!RetryOn::DEFAULT.contains(RetryCondition::ServerError));
        assert_eq!(
            RetryCondition::from_name("5xx"),
            Some(RetryCondition::ServerError)
        );
        assert_eq!(RetryCondition::from_name("4xx"), None);
    }
}
