//! The filter's configuration: from Envoy's message to a limit.

use edge_model::{DescriptorBucket, Fraction, LocalRateLimit, RateLimitEntry};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_yaml::Value;

use super::bucket::RawFraction;
use super::message::{
    AppendAction, HeaderValueOption, HttpStatus, LOCAL_RATE_LIMIT_TYPE, RawDescriptor, RawLimit,
    XRateLimitHeaders, is_typed_struct, message_type,
};
use super::{Reader, field};
use crate::{Problem, Severity};

impl Reader<'_> {
    /// Reads a `typed_config`, direct or in a TypedStruct.
    pub(super) fn local_rate_limit(&mut self, config: &Value, path: &str) -> Option<LocalRateLimit> {
        if message_type(config) != Some(LOCAL_RATE_LIMIT_TYPE) {
            let hint = format!("write \"@type\": type.googleapis.com/{LOCAL_RATE_LIMIT_TYPE}");
            self.error(
                &format!("{path}.@type"),
                "the message type is missing or not the filter's",
                &hint,
            );
            return None;
        }
        if !is_typed_struct(config) {
            return self.limit(config, path);
        }
        let (key, value) = field(config, "value").unwrap_or(("value", &Value::Null));
        self.limit(value, &format!("{path}.{key}"))
    }

    fn limit(&mut self, value: &Value, path: &str) -> Option<LocalRateLimit> {
        let problems_before = self.found.problems.len();
        let raw: RawLimit = self.read(value, path)?;
        for field in raw.unhonoured() {
            self.unsupported(&format!("{path}.{field}"), field, "remove it");
        }
        if raw.stat_prefix.is_empty() {
            let hint = "name the limit, for its statistics";
            self.error(&format!("{path}.stat_prefix"), "must not be empty", hint);
        }
        let bucket = raw.token_bucket.as_ref();
        let share = |raw: &Option<RawFraction>| raw.as_ref().map_or(Fraction::NEVER, RawFraction::fraction);
        let limit = LocalRateLimit {
            object: self.object.clone(),
            bucket: bucket.and_then(|bucket| self.bucket(bucket, &format!("{path}.token_bucket"))),
            descriptors: self.descriptor_buckets(&raw.descriptors, &format!("{path}.descriptors")),
            enabled: share(&raw.filter_enabled),
            enforced: share(&raw.filter_enforced),
            status: self.status(raw.status.as_ref(), path),
            response_headers: self.headers(&raw.response_headers_to_add, path),
            x_ratelimit_headers: raw.enable_x_ratelimit_headers == XRateLimitHeaders::DraftVersion03,
            stat_prefix: raw.stat_prefix,
        };
        let is_wrong = self
            .found
            .problems
            .iter()
            .skip(problems_before)
            .any(Problem::is_error);
        self.warn_when_never_enforced(&limit, path);
        (!is_wrong).then_some(limit)
    }

    fn status(&mut self, status: Option<&HttpStatus>, path: &str) -> StatusCode {
        let default = StatusCode::TOO_MANY_REQUESTS;
        match status.map(|status| status.code) {
            // Envoy takes every code below 400 for 429.
            None | Some(..400) => default,
            Some(code @ 400..600) => StatusCode::from_u16(code).unwrap_or(default),
            Some(600..) => {
                let hint = "write 429, or another code from 400 to 599";
                self.error(&format!("{path}.status.code"), "is not an HTTP status", hint);
                default
            }
        }
    }

    fn descriptor_buckets(&mut self, raw: &[RawDescriptor], path: &str) -> Vec<DescriptorBucket> {
        let mut buckets = Vec::new();
        for (index, descriptor) in raw.iter().enumerate() {
            let at = format!("{path}[{index}]");
            let nameless = descriptor.entries.iter().any(|entry| entry.key.is_empty());
            if descriptor.entries.is_empty() || nameless {
                let hint = "name what the bucket is for, as key: remote_address";
                self.error(
                    &format!("{at}.entries"),
                    "at least one entry is needed, each with a key",
                    hint,
                );
            }
            let entries = descriptor.entries.iter().map(|entry| RateLimitEntry {
                key: entry.key.clone(),
                value: Some(entry.value.clone()).filter(|value| !value.is_empty()),
            });
            let entries = entries.collect();
            if let Some(bucket) = self.bucket(&descriptor.token_bucket, &format!("{at}.token_bucket")) {
                buckets.push(DescriptorBucket { entries, bucket });
            }
        }
        buckets
    }

    fn headers(&mut self, raw: &[HeaderValueOption], path: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (index, option) in raw.iter().enumerate() {
            let at = format!("{path}.response_headers_to_add[{index}]");
            if option.header.value.contains('%') {
                let hint = "write the text that is to be sent";
                self.unsupported(
                    &format!("{at}.header.value"),
                    "Envoy's format commands (%NAME%)",
                    hint,
                );
            }
            if option.append_action == AppendAction::OverwriteIfExists {
                let hint = "leave it out: refusals have no headers to overwrite";
                self.unsupported(&format!("{at}.append_action"), "OVERWRITE_IF_EXISTS", hint);
            }
            let name = HeaderName::from_bytes(option.header.key.as_bytes());
            match (name, HeaderValue::from_str(&option.header.value)) {
                (Ok(name), Ok(value)) => headers.push((name, value)),
                (Err(_), _) => {
                    let hint = "use letters, digits and dashes";
                    self.error(&format!("{at}.header.key"), "is not a header name", hint);
                }
                (_, Err(_)) => {
                    let hint = "use visible ASCII characters";
                    self.error(&format!("{at}.header.value"), "is not a header value", hint);
                }
            }
        }
        headers
    }

    /// Both shares are 0 % unless set, which many do not expect: the filter then lets everything through.
    fn warn_when_never_enforced(&mut self, limit: &LocalRateLimit, path: &str) {
        let limits_something = limit.bucket.is_some() || !limit.descriptors.is_empty();
        for (field, share) in [
            ("filter_enabled", limit.enabled),
            ("filter_enforced", limit.enforced),
        ] {
            if share == Fraction::NEVER && limits_something {
                let message = format!("{field} is 0 %, so nothing is ever refused");
                let hint = "set default_value: {numerator: 100, denominator: HUNDRED}";
                let problem = self.problem(Severity::Warning, &format!("{path}.{field}"), message, hint);
                self.found.problems.push(problem);
            }
        }
    }
}
