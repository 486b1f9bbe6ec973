//! `envoy.config.route.v3.RateLimit`: the descriptors that a route's requests carry.

use edge_model::{RateLimitAction, RateLimitDescriptor};
use http::HeaderName;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Value;

use super::Reader;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRateLimit {
    actions: Vec<RawAction>,
    // Not honoured: refused unless they have their default.
    stage: u32,
    disable_key: String,
    limit: Option<IgnoredAny>,
    hits_addend: Option<IgnoredAny>,
    apply_on_stream_done: bool,
}

/// One of its fields is set.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAction {
    remote_address: Option<Empty>,
    generic_key: Option<GenericKey>,
    request_headers: Option<RequestHeaders>,
    // Not honoured.
    source_cluster: Option<IgnoredAny>,
    destination_cluster: Option<IgnoredAny>,
    header_value_match: Option<IgnoredAny>,
    dynamic_metadata: Option<IgnoredAny>,
    metadata: Option<IgnoredAny>,
    extension: Option<IgnoredAny>,
    masked_remote_address: Option<IgnoredAny>,
    query_parameters: Option<IgnoredAny>,
    query_parameter_value_match: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Empty {}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GenericKey {
    descriptor_value: String,
    descriptor_key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestHeaders {
    header_name: String,
    descriptor_key: String,
    skip_if_absent: bool,
}

impl Reader<'_> {
    /// Reads a `rate_limits` list.
    pub(super) fn descriptors(&mut self, value: &Value, path: &str) -> Vec<RateLimitDescriptor> {
        let raw: Vec<RawRateLimit> = self.read(value, path).unwrap_or_default();
        let mut descriptors = Vec::new();
        for (index, limit) in raw.iter().enumerate() {
            let at = format!("{path}[{index}]");
            self.refuse_unhonoured_fields(limit, &at);
            if limit.actions.is_empty() {
                let hint = "say what requests are told apart by, as remote_address: {}";
                self.error(&format!("{at}.actions"), "at least one action is needed", hint);
            }
            let mut actions = Vec::new();
            for (index, action) in limit.actions.iter().enumerate() {
                actions.push(self.action(action, &format!("{at}.actions[{index}]")));
            }
            // A descriptor that lacks one of its entries would limit other requests than those that were meant.
            if let Some(actions) = actions.into_iter().collect() {
                descriptors.push(RateLimitDescriptor { actions });
            }
        }
        descriptors
    }

    fn refuse_unhonoured_fields(&mut self, limit: &RawRateLimit, path: &str) {
        let fields = [
            ("stage", limit.stage != 0),
            ("disable_key", !limit.disable_key.is_empty()),
            ("limit", limit.limit.is_some()),
            ("hits_addend", limit.hits_addend.is_some()),
            ("apply_on_stream_done", limit.apply_on_stream_done),
        ];
        for (field, used) in fields {
            if used {
                self.unsupported(&format!("{path}.{field}"), field, "remove it");
            }
        }
    }

    fn action(&mut self, raw: &RawAction, path: &str) -> Option<RateLimitAction> {
        match (&raw.remote_address, &raw.generic_key, &raw.request_headers) {
            (Some(Empty {}), None, None) => Some(RateLimitAction::RemoteAddress),
            (None, Some(generic), None) => self.generic_key(generic, &format!("{path}.generic_key")),
            (None, None, Some(header)) => self.request_header(header, &format!("{path}.request_headers")),
            (None, None, None) => {
                self.unhonoured_action(raw, path);
                None
            }
            _ => {
                self.error(
                    path,
                    "an action does one thing",
                    "begin each action with its own dash",
                );
                None
            }
        }
    }

    fn generic_key(&mut self, raw: &GenericKey, path: &str) -> Option<RateLimitAction> {
        if raw.descriptor_value.is_empty() {
            let hint = "set the value that the descriptor's entry gets";
            self.error(&format!("{path}.descriptor_value"), "must not be empty", hint);
            return None;
        }
        let key = if raw.descriptor_key.is_empty() {
            "generic_key"
        } else {
            &raw.descriptor_key
        };
        Some(RateLimitAction::GenericKey {
            key: key.to_owned(),
            value: raw.descriptor_value.clone(),
        })
    }

    fn request_header(&mut self, raw: &RequestHeaders, path: &str) -> Option<RateLimitAction> {
        if raw.header_name.starts_with(':') {
            let hint = "take a header, or match in the VirtualService and use generic_key";
            self.unsupported(&format!("{path}.header_name"), "pseudo-headers", hint);
            return None;
        }
        let header = HeaderName::from_bytes(raw.header_name.as_bytes());
        if header.is_err() {
            self.error(
                &format!("{path}.header_name"),
                "is not a header name",
                "name a header, such as x-user",
            );
        }
        if raw.descriptor_key.is_empty() {
            self.error(
                &format!("{path}.descriptor_key"),
                "must not be empty",
                "name the descriptor's entry",
            );
            return None;
        }
        let (key, skip_if_absent) = (raw.descriptor_key.clone(), raw.skip_if_absent);
        header.ok().map(|header| RateLimitAction::RequestHeader {
            header,
            key,
            skip_if_absent,
        })
    }

    fn unhonoured_action(&mut self, raw: &RawAction, path: &str) {
        let actions = [
            ("source_cluster", &raw.source_cluster),
            ("destination_cluster", &raw.destination_cluster),
            ("header_value_match", &raw.header_value_match),
            ("dynamic_metadata", &raw.dynamic_metadata),
            ("metadata", &raw.metadata),
            ("extension", &raw.extension),
            ("masked_remote_address", &raw.masked_remote_address),
            ("query_parameters", &raw.query_parameters),
            ("query_parameter_value_match", &raw.query_parameter_value_match),
        ];
        let hint = "use remote_address, request_headers or generic_key";
        match actions.iter().find(|(_, action)| action.is_some()) {
            Some((name, _)) => self.unsupported(&format!("{path}.{name}"), name, hint),
            None => self.error(path, "the action is empty", hint),
        }
    }
}
