//! What a rule for HTTP holds: conditions and actions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Destination;
use crate::GoDuration;
use crate::istio::Percent;

/// One rule for HTTP.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// Name in access logs and explanations.
    pub name: String,
    /// Blocks, of which one must match; none matches all.
    pub r#match: Vec<HttpMatchRequest>,
    /// Where to, with shares.
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answer with a fixed response.
    pub direct_response: Option<HttpDirectResponse>,
    /// Another VirtualService whose rules are put here.
    pub delegate: Option<Delegate>,
    /// Replace path or authority before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// Time for the whole request, retries included; none by default.
    pub timeout: Option<GoDuration>,
    /// Retries.
    pub retries: Option<HttpRetry>,
    /// Injected delays and aborts.
    pub fault: Option<HttpFaultInjection>,
    /// Copy of the traffic.
    pub mirror: Option<Destination>,
    /// Deprecated in favour of `mirrorPercentage`.
    #[serde(alias = "mirror_percent")]
    pub mirror_percent: Option<u32>,
    /// Share of the traffic that is copied, all of it by default.
    pub mirror_percentage: Option<Percent>,
    /// Several copies of the traffic.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Cross-origin resource sharing.
    pub cors_policy: Option<CorsPolicy>,
    /// Header operations.
    pub headers: Option<Headers>,
}

/// Conditions of a block, all of which must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMatchRequest {
    /// Name of the block, appended to the rule's.
    pub name: String,
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// `:authority` as sent, with its port.
    pub authority: Option<StringMatch>,
    /// Headers that must match; `None` is a `null` in the file.
    pub headers: BTreeMap<String, Option<StringMatch>>,
    /// Port of the listener; 0 is any.
    pub port: u32,
    /// Labels of the workload the rule is for.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that the block is for, instead of the VirtualService's.
    pub gateways: Vec<String>,
    /// Query parameters that must match; `None` is a `null` in the file.
    pub query_params: BTreeMap<String, Option<StringMatch>>,
    /// Case does not count in `uri` when it is exact or a prefix.
    pub ignore_uri_case: bool,
    /// Headers that must not match; `None` is a `null` in the file.
    pub without_headers: BTreeMap<String, Option<StringMatch>>,
    /// Namespace of the workload the rule is for.
    pub source_namespace: String,
    /// Prefix of the statistics of requests that match.
    pub stat_prefix: String,
}

/// One of exact, prefix and regex; none of them asks only that the field be there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    /// The whole text.
    pub exact: Option<String>,
    /// The beginning of the text.
    pub prefix: Option<String>,
    /// The whole text by RE2 expression.
    pub regex: Option<String>,
}

/// A destination with its share.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Share relative to the other destinations; ignored when there is only one.
    pub weight: i32,
    /// Header operations of this destination.
    pub headers: Option<Headers>,
}

/// Header operations both ways.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// Before forwarding.
    pub request: Option<HeaderOperations>,
    /// Before answering.
    pub response: Option<HeaderOperations>,
}

/// Header operations one way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HeaderOperations {
    /// Overwrites.
    pub set: BTreeMap<String, String>,
    /// Appends.
    pub add: BTreeMap<String, String>,
    /// Removes.
    pub remove: Vec<String>,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRedirect {
    /// Replaces the whole path.
    pub uri: String,
    /// Replaces the matched prefix.
    pub prefix_rewrite: Option<String>,
    /// Replaces the host.
    pub authority: String,
    /// Port of the location.
    pub port: Option<u32>,
    /// How the port is derived.
    pub derive_port: Option<DerivePort>,
    /// Replaces the scheme.
    pub scheme: String,
    /// Status, 301 unless set.
    pub redirect_code: u32,
}

/// How the port of a redirect is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DerivePort {
    /// 80 for http, 443 for https.
    FromProtocolDefault,
    /// The one that the Gateway declares.
    FromRequestPort,
}

/// A fixed response.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HttpDirectResponse {
    /// Status, 200 to 599.
    pub status: u32,
    /// Body; empty when absent.
    pub body: Option<HttpBody>,
}

/// Body of a fixed response: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HttpBody {
    /// As text.
    pub string: Option<String>,
    /// In Base64.
    pub bytes: Option<String>,
}

/// Names another VirtualService.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; the root's unless set.
    pub namespace: String,
}

/// Replacements before forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRewrite {
    /// Replaces the matched prefix, or the whole path.
    pub uri: String,
    /// Replaces the host.
    pub authority: String,
    /// Replaces by expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// Replacement by expression.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// RE2 expression; every match is replaced.
    pub r#match: String,
    /// Replacement with `\0` to `\9`.
    pub rewrite: String,
}

/// Retries.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRetry {
    /// Retries beyond the first try.
    pub attempts: i32,
    /// Time for each try.
    pub per_try_timeout: Option<GoDuration>,
    /// Conditions, separated by commas.
    pub retry_on: String,
    /// Whether other localities are tried.
    pub retry_remote_localities: Option<bool>,
    /// Whether hosts that failed before are avoided.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base interval of the exponential backoff.
    pub backoff: Option<GoDuration>,
}

/// Injected faults.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct HttpFaultInjection {
    /// Delay before forwarding.
    pub delay: Option<FaultDelay>,
    /// Answer in place of forwarding.
    pub abort: Option<FaultAbort>,
}

/// Injected delay.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FaultDelay {
    /// Deprecated in favour of `percentage`.
    pub percent: i32,
    /// The delay.
    pub fixed_delay: Option<GoDuration>,
    /// Not implemented by Istio.
    pub exponential_delay: Option<GoDuration>,
    /// Share of requests.
    pub percentage: Option<Percent>,
}

/// Injected abort.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FaultAbort {
    /// HTTP status.
    pub http_status: Option<i32>,
    /// gRPC status by name.
    pub grpc_status: Option<String>,
    /// Not implemented by Istio.
    pub http2_error: Option<String>,
    /// Share of requests.
    pub percentage: Option<Percent>,
}

/// One of several mirrors.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct HttpMirrorPolicy {
    /// Where to.
    pub destination: Option<Destination>,
    /// Share of requests, all by default.
    pub percentage: Option<Percent>,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Deprecated in favour of `allowOrigins`.
    pub allow_origin: Vec<String>,
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight may be cached.
    pub max_age: Option<GoDuration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What becomes of a preflight whose origin does not match.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of a preflight whose origin does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// As `Forward`.
    #[default]
    Unspecified,
    /// It goes to the backend.
    Forward,
    /// It is answered without CORS headers.
    Ignore,
}
