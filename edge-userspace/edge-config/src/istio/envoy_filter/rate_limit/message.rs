//! `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit` as it stands in the file.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Value;

use super::bucket::{RawFraction, RawTokenBucket};
use super::field;

/// Message type of the local rate limit.
pub(super) const LOCAL_RATE_LIMIT_TYPE: &str =
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// Message type of the global rate limit.
pub(super) const GLOBAL_RATE_LIMIT_TYPE: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";

/// Messages that carry another one in `type_url` and `value`.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// Type of a `typed_config` without its URL's host; that of the inner message for a TypedStruct.
pub(super) fn message_type(config: &Value) -> Option<&str> {
    if is_typed_struct(config) {
        let (_, inner) = field(config, "type_url")?;
        return inner.as_str().map(last_part);
    }
    config.get("@type")?.as_str().map(last_part)
}

pub(super) fn is_typed_struct(config: &Value) -> bool {
    let outer = config.get("@type").and_then(Value::as_str).map(last_part);
    outer.is_some_and(|outer| TYPED_STRUCTS.contains(&outer))
}

fn last_part(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLimit {
    #[serde(rename = "@type")]
    _type: IgnoredAny,
    pub(super) stat_prefix: String,
    pub(super) status: Option<HttpStatus>,
    pub(super) token_bucket: Option<RawTokenBucket>,
    pub(super) filter_enabled: Option<RawFraction>,
    pub(super) filter_enforced: Option<RawFraction>,
    pub(super) response_headers_to_add: Vec<HeaderValueOption>,
    pub(super) descriptors: Vec<RawDescriptor>,
    pub(super) enable_x_ratelimit_headers: XRateLimitHeaders,
    // Not honoured: refused unless they have their default.
    request_headers_to_add_when_not_enforced: Vec<IgnoredAny>,
    stage: u32,
    local_rate_limit_per_downstream_connection: bool,
    local_cluster_rate_limit: Option<IgnoredAny>,
    vh_rate_limits: VhRateLimits,
    always_consume_default_token_bucket: Option<bool>,
    rate_limited_as_resource_exhausted: bool,
    rate_limits: Vec<IgnoredAny>,
    max_dynamic_descriptors: Option<u32>,
}

impl RawLimit {
    /// Fields that ask for something that is not honoured.
    pub(super) fn unhonoured(&self) -> impl Iterator<Item = &'static str> {
        let fields = [
            (
                "request_headers_to_add_when_not_enforced",
                !self.request_headers_to_add_when_not_enforced.is_empty(),
            ),
            ("stage", self.stage != 0),
            (
                "local_rate_limit_per_downstream_connection",
                self.local_rate_limit_per_downstream_connection,
            ),
            (
                "local_cluster_rate_limit",
                self.local_cluster_rate_limit.is_some(),
            ),
            ("vh_rate_limits", self.vh_rate_limits != VhRateLimits::Override),
            (
                "always_consume_default_token_bucket",
                self.always_consume_default_token_bucket == Some(false),
            ),
            (
                "rate_limited_as_resource_exhausted",
                self.rate_limited_as_resource_exhausted,
            ),
            ("rate_limits", !self.rate_limits.is_empty()),
            ("max_dynamic_descriptors", self.max_dynamic_descriptors.is_some()),
        ];
        fields
            .into_iter()
            .filter_map(|(field, used)| used.then_some(field))
    }
}

/// `envoy.type.v3.HttpStatus`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HttpStatus {
    pub(super) code: u16,
}

/// `envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawDescriptor {
    pub(super) entries: Vec<RawEntry>,
    pub(super) token_bucket: RawTokenBucket,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawEntry {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) enum XRateLimitHeaders {
    #[default]
    #[serde(rename = "OFF")]
    Off,
    #[serde(rename = "DRAFT_VERSION_03")]
    DraftVersion03,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum VhRateLimits {
    #[default]
    Override,
    Include,
    Ignore,
}

/// `envoy.config.core.v3.HeaderValueOption`. A refusal has no headers yet, so all ways to add are the same but one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HeaderValueOption {
    pub(super) header: RawHeader,
    #[serde(rename = "append")]
    _append: Option<bool>,
    pub(super) append_action: AppendAction,
    #[serde(rename = "keep_empty_value")]
    _keep_empty_value: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawHeader {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum AppendAction {
    #[default]
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}
