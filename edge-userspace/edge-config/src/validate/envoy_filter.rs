//! EnvoyFilter: what may be patched where, and the rate limits within.

use serde_yaml::Value;

use super::{names, values};
use crate::Object;
use crate::checker::Checker;
use crate::istio::envoy_filter::rate_limit::rate_limits;
use crate::istio::envoy_filter::{
    ApplyTo, ConfigPatch, EnvoyFilter, ListenerMatch, ObjectMatch, Operation, PatchContext,
};

/// The network filter that HTTP filters are part of, by its name and its old name.
const CONNECTION_MANAGERS: [&str; 2] = [
    "envoy.filters.network.http_connection_manager",
    "envoy.http_connection_manager",
];

pub(super) fn check(check: &mut Checker<'_>, filter: &Object<EnvoyFilter>) {
    let spec = &filter.spec;
    if let Some(selector) = &spec.workload_selector {
        if selector.labels.is_empty() {
            let hint = "name labels, or remove workloadSelector";
            check.warn(
                "spec.workloadSelector",
                "without labels it applies to all workloads",
                hint,
            );
        }
        names::labels(check, "spec.workloadSelector.labels", &selector.labels);
        if !spec.target_refs.is_empty() {
            let message = "workloadSelector and targetRefs exclude each other";
            check.error("spec.targetRefs", message, "keep one of them");
        }
    }
    if spec.config_patches.is_empty() {
        check.error(
            "spec.configPatches",
            "an EnvoyFilter without patches does nothing",
            "add a patch",
        );
    }
    for (index, patch) in spec.config_patches.iter().enumerate() {
        config_patch(check, &format!("spec.configPatches[{index}]"), patch);
    }
    check.extend(rate_limits(filter).problems);
}

fn config_patch(check: &mut Checker<'_>, path: &str, config: &ConfigPatch) {
    let for_waypoint = config
        .r#match
        .as_ref()
        .filter(|scope| scope.context == PatchContext::Waypoint);
    if let Some(scope) = for_waypoint {
        // Istio's webhook looks at nothing of these.
        return waypoint_match(check, &format!("{path}.match"), scope);
    }
    if config.apply_to == ApplyTo::Invalid {
        check.error(
            &format!("{path}.applyTo"),
            "is missing",
            "name what is patched, such as HTTP_FILTER",
        );
    }
    if let Some(scope) = &config.r#match {
        scope_kind(check, &format!("{path}.match"), scope, config.apply_to);
    }
    let Some(patch) = &config.patch else {
        return check.error(&format!("{path}.patch"), "is missing", "add operation and value");
    };
    if patch.operation == Operation::Invalid {
        let hint = "name what is done, such as MERGE or INSERT_BEFORE";
        check.error(&format!("{path}.patch.operation"), "is missing", hint);
    }
    let field = format!("{path}.patch.value");
    match &patch.value {
        None if patch.operation != Operation::Remove => {
            check.error(&field, "is missing", "add the configuration that is patched in");
        }
        None => {}
        Some(value) => patch_value(check, &field, value, config.apply_to, patch.operation),
    }
}

fn patch_value(check: &mut Checker<'_>, field: &str, value: &Value, apply_to: ApplyTo, operation: Operation) {
    if !value.is_mapping() {
        return check.error(field, "a map is needed", "write Envoy's configuration as YAML");
    }
    let inner = value
        .get("fields")
        .and_then(Value::as_mapping)
        .into_iter()
        .flatten();
    let mut inner = inner.filter_map(|(_, value)| value.as_mapping());
    let is_inner_form = |map: &serde_yaml::Mapping| {
        map.keys().any(|key| {
            matches!(
                key.as_str(),
                Some("stringValue" | "structValue" | "listValue" | "numberValue")
            )
        })
    };
    if inner.any(is_inner_form) {
        let hint = "write Envoy's fields by their names, as lb_policy: RING_HASH";
        check.error(
            field,
            "this is the inner form of a protobuf Struct and not Envoy's configuration",
            hint,
        );
        return;
    }
    old_types(check, field, value);
    if value
        .get("name")
        .is_some_and(|name| !name.is_string() && !name.is_null())
    {
        check.error(&format!("{field}.name"), "text is needed", "put it in quotes");
        return;
    }
    let is_filter = matches!(
        apply_to,
        ApplyTo::HttpFilter | ApplyTo::NetworkFilter | ApplyTo::ListenerFilter
    );
    let is_whole = !matches!(
        operation,
        Operation::Merge | Operation::Remove | Operation::Invalid
    );
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
    if is_filter && is_whole && name.is_empty() {
        check.error(&format!("{field}.name"), "the filter has no name", "add name");
    }
}

/// Types of Envoy's second API, which no Envoy knows any more.
fn old_types(check: &mut Checker<'_>, field: &str, value: &Value) {
    match value {
        Value::Mapping(map) => {
            let types = ["@type", "type_url"]
                .iter()
                .filter_map(|key| map.get(*key)?.as_str());
            for old in types.filter(|name| name.contains(".v2.")) {
                let hint = "use the message of Envoy's API v3 in its place";
                check.error(field, format!("{old} is not known any more"), hint);
            }
            map.values().for_each(|inner| old_types(check, field, inner));
        }
        Value::Sequence(list) => list.iter().for_each(|inner| old_types(check, field, inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

/// Whether a match is of the kind that is patched.
fn scope_kind(check: &mut Checker<'_>, path: &str, scope: &ObjectMatch, apply_to: ApplyTo) {
    let present = [
        ("listener", scope.listener.is_some()),
        ("routeConfiguration", scope.route_configuration.is_some()),
        ("cluster", scope.cluster.is_some()),
        ("waypoint", scope.waypoint.is_some()),
    ];
    let needed = match apply_to {
        ApplyTo::Listener
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter
        | ApplyTo::ListenerFilter => "listener",
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => "routeConfiguration",
        ApplyTo::Cluster => "cluster",
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap => "",
    };
    for (field, is_present) in present {
        let fits = field == needed || needed.is_empty() || field == "waypoint";
        if is_present && !fits {
            let message = format!("a {field} match does not fit what is patched");
            check.error(&format!("{path}.{field}"), message, format!("match by {needed}"));
        }
    }
    if let Some(listener) = &scope.listener {
        listener_match(check, &format!("{path}.listener"), listener, apply_to);
    }
    waypoint_match(check, path, scope);
    if let Some(version) = scope
        .proxy
        .as_ref()
        .map(|proxy| &proxy.proxy_version)
        .filter(|v| !v.is_empty())
    {
        values::regex(check, &format!("{path}.proxy.proxyVersion"), version);
    }
}

fn listener_match(check: &mut Checker<'_>, path: &str, listener: &ListenerMatch, apply_to: ApplyTo) {
    let Some(filter) = listener
        .filter_chain
        .as_ref()
        .and_then(|chain| chain.filter.as_ref())
    else {
        return;
    };
    let path = format!("{path}.filterChain.filter");
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        let hint = "patch NETWORK_FILTER or HTTP_FILTER, or remove it";
        check.warn(&path, "has no effect on whole listeners and filter chains", hint);
    }
    if filter.name.is_empty() {
        let hint = "name the filter";
        return check.error(&format!("{path}.name"), "is missing", hint);
    }
    let Some(inner) = &filter.sub_filter else { return };
    if apply_to != ApplyTo::HttpFilter {
        let hint = "patch HTTP_FILTER, or remove it";
        check.error(
            &format!("{path}.subFilter"),
            "has an effect only on HTTP filters",
            hint,
        );
    }
    if !CONNECTION_MANAGERS.contains(&filter.name.as_str()) {
        let hint = "write name: envoy.filters.network.http_connection_manager";
        check.error(
            &format!("{path}.name"),
            "only the HTTP connection manager has filters within",
            hint,
        );
    }
    if inner.name.is_empty() {
        check.error(&format!("{path}.subFilter.name"), "is missing", "name the filter");
    }
}

fn waypoint_match(check: &mut Checker<'_>, path: &str, scope: &ObjectMatch) {
    let others = [
        ("listener", scope.listener.is_some()),
        ("routeConfiguration", scope.route_configuration.is_some()),
        ("cluster", scope.cluster.is_some()),
    ];
    if scope.context == PatchContext::Waypoint
        && let Some((name, _)) = others.into_iter().find(|(_, is_there)| *is_there)
    {
        // A rule of the resource's schema, not of the webhook.
        let message = "the context WAYPOINT takes no other match than waypoint";
        check.error(
            &format!("{path}.{name}"),
            message,
            "write waypoint, or another context",
        );
    }
    let Some(waypoint) = &scope.waypoint else { return };
    if scope.context != PatchContext::Waypoint {
        let hint = "write context: WAYPOINT, or match by listener";
        check.error(
            &format!("{path}.waypoint"),
            "fits only the context WAYPOINT",
            hint,
        );
    }
    if let Some(port) = waypoint.get("portNumber") {
        let number = port.as_u64().and_then(|number| u32::try_from(number).ok());
        values::port(
            check,
            &format!("{path}.waypoint.portNumber"),
            number.unwrap_or(u32::MAX),
        );
    }
}
