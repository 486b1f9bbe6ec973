//! The local rate limits that an EnvoyFilter sets, as Istio's task "Enabling Rate Limits using Envoy" writes them.
//!
//! Understood are the HTTP filter `envoy.filters.http.local_ratelimit` itself, and on routes, virtual hosts and route
//! configurations its `typed_per_filter_config` and the `rate_limits` that name descriptors. The global
//! rate limit is checked and reported as not enforced. Any other patch has no effect here and gets a warning.

use edge_model::{LocalRateLimit, ObjectRef, RateLimitDescriptor};
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::{
    ApplyTo, ConfigPatch, EnvoyFilter, ListenerMatch, Operation, PatchContext, RouteConfigurationMatch,
};
use crate::yaml::{self, Style, UnknownFields};
use crate::{Object, ObjectName, Problem, Severity};

mod bucket;
mod descriptor;
mod filter;
mod global;
mod message;
#[cfg(test)]
mod tests;

/// Name of the filter, in a filter chain and in `typed_per_filter_config`.
pub const LOCAL_RATE_LIMIT_FILTER: &str = "envoy.filters.http.local_ratelimit";

/// What an EnvoyFilter says about rate limits.
#[derive(Debug, Default)]
pub struct RateLimits {
    /// Patches that are understood, in the order of the file.
    pub patches: Vec<RateLimitPatch>,
    /// What is wrong, and warnings about patches without effect.
    pub problems: Vec<Problem>,
    /// Right, but not enforced: warnings.
    pub unsupported: Vec<Problem>,
}

/// A patch that sets a local rate limit, or the descriptors that one looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitPatch {
    /// Index into `spec.configPatches`.
    pub index: usize,
    /// What it is for.
    pub target: PatchTarget,
    /// The limit; on routes, virtual hosts and route configurations it takes effect where the filter is inserted.
    pub limit: Option<LocalRateLimit>,
    /// Descriptors that requests carry to the limit.
    pub descriptors: Vec<RateLimitDescriptor>,
}

/// What a patch is for. A match that is absent in the file matches everything.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchTarget {
    /// Listeners: the filter is inserted into their filter chains.
    Listener(ListenerMatch),
    /// Whole route configurations.
    RouteConfiguration(RouteConfigurationMatch),
    /// Virtual hosts.
    VirtualHost(RouteConfigurationMatch),
    /// Single routes.
    Route(RouteConfigurationMatch),
}

/// Reads the patches of an EnvoyFilter.
#[must_use]
pub fn rate_limits(filter: &Object<EnvoyFilter>) -> RateLimits {
    let mut found = RateLimits::default();
    for (index, patch) in filter.spec.config_patches.iter().enumerate() {
        let path = format!("spec.configPatches[{index}]");
        let mut reader = Reader::new(filter, &mut found);
        if let Some((target, limit, descriptors)) = reader.patch(patch, &path) {
            found.patches.push(RateLimitPatch {
                index,
                target,
                limit,
                descriptors,
            });
        }
    }
    found
}

type Understood = (PatchTarget, Option<LocalRateLimit>, Vec<RateLimitDescriptor>);

/// What is being read, and where its problems go.
struct Reader<'a> {
    filter: &'a Object<EnvoyFilter>,
    object: ObjectRef,
    found: &'a mut RateLimits,
}

impl<'a> Reader<'a> {
    fn new(filter: &'a Object<EnvoyFilter>, found: &'a mut RateLimits) -> Self {
        let (namespace, name) = (filter.meta.namespace.clone(), filter.meta.name.clone());
        let object = ObjectRef {
            kind: edge_model::Kind::EnvoyFilter,
            namespace,
            name,
        };
        Self {
            filter,
            object,
            found,
        }
    }

    fn patch(&mut self, config: &ConfigPatch, path: &str) -> Option<Understood> {
        let no_match = super::ObjectMatch::default();
        let scope = config.r#match.as_ref().unwrap_or(&no_match);
        if !matches!(scope.context, PatchContext::Any | PatchContext::Gateway) {
            self.no_effect(
                &format!("{path}.match.context"),
                "the patch is for sidecars or waypoints",
            );
            return None;
        }
        if scope.proxy.is_some() {
            self.no_effect(&format!("{path}.match.proxy"), "the condition is not looked at");
        }
        let patch = config.patch.as_ref()?;
        let value = patch.value.as_ref()?;
        let at = format!("{path}.patch.value");
        let routes = scope.route_configuration.clone().unwrap_or_default();
        match (config.apply_to, patch.operation) {
            (
                ApplyTo::HttpFilter,
                Operation::Add | Operation::InsertBefore | Operation::InsertAfter | Operation::InsertFirst,
            ) => {
                let limit = self.http_filter(value, &at)?;
                let target = PatchTarget::Listener(scope.listener.clone().unwrap_or_default());
                Some((target, Some(limit), vec![]))
            }
            (ApplyTo::RouteConfiguration, Operation::Merge) => {
                let (limit, _) = self.merged(value, &at, &[])?;
                Some((PatchTarget::RouteConfiguration(routes), limit, vec![]))
            }
            (ApplyTo::VirtualHost, Operation::Merge) => {
                let (limit, descriptors) = self.merged(value, &at, &["rate_limits"])?;
                Some((PatchTarget::VirtualHost(routes), limit, descriptors))
            }
            (ApplyTo::HttpRoute, Operation::Merge) => {
                let (limit, descriptors) = self.merged(value, &at, &["rate_limits", "route"])?;
                Some((PatchTarget::Route(routes), limit, descriptors))
            }
            _ => {
                self.no_effect(path, "the edge does not understand this patch");
                None
            }
        }
    }

    /// The value of a patch that inserts an HTTP filter.
    fn http_filter(&mut self, value: &Value, path: &str) -> Option<LocalRateLimit> {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
        let config = field(value, "typed_config");
        let message_type = config
            .and_then(|(_, config)| message::message_type(config))
            .unwrap_or_default();
        if name == LOCAL_RATE_LIMIT_FILTER || message_type == message::LOCAL_RATE_LIMIT_TYPE {
            let Some((key, config)) = config else {
                self.error(
                    path,
                    "the filter has no typed_config",
                    "add typed_config with @type and token_bucket",
                );
                return None;
            };
            return self.local_rate_limit(config, &format!("{path}.{key}"));
        }
        if name == "envoy.filters.http.ratelimit" || message_type == message::GLOBAL_RATE_LIMIT_TYPE {
            match config {
                Some((key, config)) => self.global_rate_limit(config, &format!("{path}.{key}")),
                None => self.error(
                    path,
                    "the filter has no typed_config",
                    "add typed_config with @type and domain",
                ),
            }
            self.unsupported(
                path,
                "the global rate limit filter envoy.filters.http.ratelimit",
                "no service is asked: limit locally, with envoy.filters.http.local_ratelimit",
            );
        } else {
            self.no_effect(path, "the edge does not have this filter");
        }
        None
    }

    /// The value of a patch that is merged into a route, virtual host or route configuration. `known` are the fields
    /// that mean something there, besides `typed_per_filter_config`.
    fn merged(
        &mut self,
        value: &Value,
        path: &str,
        known: &[&str],
    ) -> Option<(Option<LocalRateLimit>, Vec<RateLimitDescriptor>)> {
        let (mut limit, mut descriptors, mut understood) = (None, vec![], false);
        for (key, field) in fields(value) {
            let at = format!("{path}.{key}");
            match yaml::snake_case(key).as_str() {
                "typed_per_filter_config" => {
                    limit = self.per_filter_config(field, &at);
                    understood |= limit.is_some();
                }
                "rate_limits" if known.contains(&"rate_limits") => {
                    descriptors.extend(self.descriptors(field, &at));
                    understood = true;
                }
                "route" if known.contains(&"route") => {
                    let (_, more) = self.merged(field, &at, &["rate_limits"]).unwrap_or_default();
                    understood |= !more.is_empty();
                    descriptors.extend(more);
                }
                "name" => {}
                _ => self.no_effect(&at, "the edge does not understand this field"),
            }
        }
        understood.then_some((limit, descriptors))
    }

    fn per_filter_config(&mut self, value: &Value, path: &str) -> Option<LocalRateLimit> {
        let mut limit = None;
        for (name, config) in fields(value) {
            let at = format!("{path}.{name}");
            if name == LOCAL_RATE_LIMIT_FILTER {
                limit = self.local_rate_limit(config, &at);
            } else {
                self.no_effect(&at, "the edge does not have this filter");
            }
        }
        limit
    }

    /// Reads a message of Envoy's.
    fn read<T: DeserializeOwned>(&mut self, value: &Value, path: &str) -> Option<T> {
        let style = Style {
            unknown: UnknownFields::Refused,
            envoy: true,
        };
        let (message, findings) = yaml::read(value, path, style);
        for finding in findings {
            let problem = self.problem(finding.severity, &finding.field, finding.message, &finding.hint);
            self.found.problems.push(problem);
        }
        message
    }

    fn no_effect(&mut self, path: &str, why: &str) {
        let hint = "only local rate limits take effect from an EnvoyFilter";
        let problem = self.problem(Severity::Warning, path, format!("has no effect: {why}"), hint);
        self.found.problems.push(problem);
    }

    fn error(&mut self, path: &str, message: &str, hint: &str) {
        let problem = self.problem(Severity::Error, path, message.to_owned(), hint);
        self.found.problems.push(problem);
    }

    fn unsupported(&mut self, path: &str, what: &str, hint: &str) {
        let problem = self.problem(Severity::Warning, path, format!("not enforced: {what}"), hint);
        self.found.unsupported.push(problem);
    }

    fn problem(&self, severity: Severity, path: &str, message: String, hint: &str) -> Problem {
        let object = ObjectName::from(&self.object);
        self.filter
            .source
            .problem(severity, Some(object), path, message, hint)
    }
}

/// The entries of a map that have text as their key.
fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = value.as_mapping().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.as_str()?, value)))
}

/// A field of a message of Envoy's with its key as the file spells it: `snake_case` or camelCase.
fn field<'v>(value: &'v Value, name: &str) -> Option<(&'v str, &'v Value)> {
    fields(value).find(|(key, _)| *key == name || yaml::snake_case(key) == name)
}
