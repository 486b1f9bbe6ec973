//! The rules of Istio's admission webhook, for one resource by itself (istio `pkg/config/validation`).
//!
//! They hold whatever the source of a resource: an API server's schema alone lets three quarters of it through.

mod authorization;
mod destination_rule;
mod envoy_filter;
mod gateway;
mod http_action;
mod http_match;
mod http_resilience;
mod http_route;
mod kubernetes;
mod load_balancer;
mod names;
mod policy;
mod security;
mod server_tls;
mod service_entry;
mod values;
mod virtual_service;

use crate::unsupported::DRY_RUN;

pub use http_match::CLAIM_PREFIX;
pub use values::has_format_command;

use edge_model::Kind;

use crate::checker::Checker;
use crate::{Problem, Resource};

/// Everything that Istio's webhook would say about a resource: errors for what it refuses, warnings as it gives them; and
/// what it lets through though it fails in Envoy.
///
/// Whether the edge enforces what the resource asks for is another question; see [`crate::unsupported()`].
#[must_use]
pub fn validate(resource: &Resource) -> Vec<Problem> {
    let mut check = Checker::new(resource);
    let meta = resource.meta();
    match resource {
        Resource::Gateway(object) => gateway::check(&mut check, meta, &object.spec),
        Resource::VirtualService(object) => virtual_service::check(&mut check, meta, &object.spec),
        Resource::DestinationRule(object) => destination_rule::check(&mut check, meta, &object.spec),
        Resource::ServiceEntry(object) => service_entry::check(&mut check, meta, &object.spec),
        Resource::WorkloadEntry(object) => service_entry::check_workload(&mut check, &object.spec),
        Resource::EnvoyFilter(object) => envoy_filter::check(&mut check, object),
        Resource::AuthorizationPolicy(object) => authorization::check(&mut check, meta, &object.spec),
        Resource::RequestAuthentication(object) => security::request(&mut check, &object.spec),
        Resource::PeerAuthentication(object) => security::peer(&mut check, &object.spec),
        Resource::Service(object) => kubernetes::check_service(&mut check, &object.spec),
        Resource::EndpointSlice(object) => kubernetes::check_endpoint_slice(&mut check, &object.spec),
        Resource::Pod(object) => kubernetes::check_pod(&mut check, &object.spec),
        Resource::Namespace(_) => {}
        Resource::Secret(object) => kubernetes::check_secret(&mut check, &object.spec),
        Resource::ConfigMap(object) => kubernetes::check_config_map(&mut check, &object.spec),
    }
    names::object_name(&mut check, &meta.name);
    annotations(&mut check, resource);
    check.into_problems()
}

/// Annotations that Istio's own controllers set, or that make its webhook refuse whatever has them.
const RESERVED: [&str; 3] = [
    "internal.istio.io/webhook-always-reject",
    "internal.istio.io/parent-namespace",
    "internal.istio.io/parents",
];

/// Annotations that Istio keeps for itself, or knows on other kinds only (istio `validateMetadata`).
fn annotations(check: &mut Checker<'_>, resource: &Resource) {
    let is_istio = !matches!(
        resource.kind(),
        Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::Namespace | Kind::Secret | Kind::ConfigMap
    );
    if !is_istio {
        return;
    }
    for name in resource.meta().annotations.keys() {
        let field = format!("metadata.annotations.{name}");
        let hint = "remove the annotation";
        let is_policy = matches!(resource, Resource::AuthorizationPolicy(_));
        if name == DRY_RUN && !is_policy {
            check.error(&field, "only an AuthorizationPolicy can be tried out", hint);
        }
        if RESERVED.contains(&name.as_str()) {
            check.error(&field, "is Istio's own and not for users", hint);
        }
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it; `None` when it is none.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
