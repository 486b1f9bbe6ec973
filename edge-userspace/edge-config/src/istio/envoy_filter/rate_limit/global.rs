//! `envoy.extensions.filters.http.ratelimit.v3.RateLimit`: the filter that asks a rate limit service. It is read and
//! checked whole, though no service is asked.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Value;

use super::Reader;
use super::message::{GLOBAL_RATE_LIMIT_TYPE, HeaderValueOption, HttpStatus, XRateLimitHeaders};
use super::message::{is_typed_struct, message_type};
use crate::GoDuration;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGlobalLimit {
    #[serde(rename = "@type")]
    _type: IgnoredAny,
    domain: String,
    stage: u32,
    #[serde(rename = "request_type")]
    _request_type: RequestType,
    #[serde(rename = "timeout")]
    _timeout: Option<GoDuration>,
    #[serde(rename = "failure_mode_deny")]
    _failure_mode_deny: bool,
    #[serde(rename = "failure_mode_deny_percent")]
    _failure_mode_deny_percent: IgnoredAny,
    #[serde(rename = "rate_limited_as_resource_exhausted")]
    _rate_limited_as_resource_exhausted: bool,
    rate_limit_service: Option<RawService>,
    #[serde(rename = "enable_x_ratelimit_headers")]
    _enable_x_ratelimit_headers: XRateLimitHeaders,
    #[serde(rename = "disable_x_envoy_ratelimited_header")]
    _disable_x_envoy_ratelimited_header: bool,
    rate_limited_status: Option<HttpStatus>,
    #[serde(rename = "status_on_error")]
    _status_on_error: Option<HttpStatus>,
    #[serde(rename = "response_headers_to_add")]
    _response_headers_to_add: Vec<HeaderValueOption>,
    #[serde(rename = "stat_prefix")]
    _stat_prefix: String,
    #[serde(rename = "filter_enabled")]
    _filter_enabled: IgnoredAny,
    #[serde(rename = "filter_enforced")]
    _filter_enforced: IgnoredAny,
    #[serde(rename = "rate_limits")]
    _rate_limits: Vec<IgnoredAny>,
}

/// `envoy.config.ratelimit.v3.RateLimitServiceConfig`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawService {
    grpc_service: Option<RawGrpcService>,
    #[serde(rename = "transport_api_version")]
    _transport_api_version: TransportApiVersion,
}

/// `envoy.config.core.v3.GrpcService`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGrpcService {
    envoy_grpc: Option<RawEnvoyGrpc>,
    google_grpc: Option<IgnoredAny>,
    #[serde(rename = "timeout")]
    _timeout: Option<GoDuration>,
    #[serde(rename = "initial_metadata")]
    _initial_metadata: Vec<IgnoredAny>,
    #[serde(rename = "retry_policy")]
    _retry_policy: IgnoredAny,
}

/// `envoy.config.core.v3.GrpcService.EnvoyGrpc`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEnvoyGrpc {
    cluster_name: String,
    #[serde(rename = "authority")]
    _authority: String,
    #[serde(rename = "retry_policy")]
    _retry_policy: IgnoredAny,
    #[serde(rename = "max_receive_message_length")]
    _max_receive_message_length: Option<u32>,
    #[serde(rename = "skip_envoy_headers")]
    _skip_envoy_headers: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RequestType {
    #[default]
    #[serde(rename = "")]
    Unset,
    Internal,
    External,
    Both,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum TransportApiVersion {
    #[default]
    Auto,
    V2,
    V3,
}

impl Reader<'_> {
    /// Checks a `typed_config`, direct or in a TypedStruct.
    pub(super) fn global_rate_limit(&mut self, config: &Value, path: &str) {
        if message_type(config) != Some(GLOBAL_RATE_LIMIT_TYPE) {
            let hint = format!("write \"@type\": type.googleapis.com/{GLOBAL_RATE_LIMIT_TYPE}");
            let message = "the message type is missing or not the filter's";
            return self.error(&format!("{path}.@type"), message, &hint);
        }
        if is_typed_struct(config) {
            let (key, value) = super::field(config, "value").unwrap_or(("value", &Value::Null));
            self.check_global(value, &format!("{path}.{key}"));
        } else {
            self.check_global(config, path);
        }
    }

    fn check_global(&mut self, value: &Value, path: &str) {
        let Some(raw) = self.read::<RawGlobalLimit>(value, path) else {
            return;
        };
        if raw.domain.is_empty() {
            let hint = "name the domain of the service's configuration";
            self.error(&format!("{path}.domain"), "must not be empty", hint);
        }
        if raw.stage > 10 {
            self.error(
                &format!("{path}.stage"),
                "is not from 0 to 10",
                "correct the stage",
            );
        }
        if raw.rate_limited_status.is_some_and(|status| status.code > 599) {
            let hint = "write 429, or another code from 400 to 599";
            self.error(
                &format!("{path}.rate_limited_status.code"),
                "is not an HTTP status",
                hint,
            );
        }
        let at = format!("{path}.rate_limit_service");
        let Some(service) = raw.rate_limit_service else {
            return self.error(
                &at,
                "is missing",
                "name the service under grpc_service.envoy_grpc",
            );
        };
        let at = format!("{at}.grpc_service");
        match service.grpc_service {
            Some(RawGrpcService {
                envoy_grpc: Some(grpc),
                ..
            }) => {
                if grpc.cluster_name.is_empty() {
                    let hint = "write outbound|8081||ratelimit.default.svc.cluster.local or another cluster";
                    self.error(
                        &format!("{at}.envoy_grpc.cluster_name"),
                        "must not be empty",
                        hint,
                    );
                }
            }
            Some(RawGrpcService {
                google_grpc: Some(_), ..
            }) => {}
            _ => self.error(&at, "names no service", "name it under envoy_grpc.cluster_name"),
        }
    }
}
