//! The rules of one VirtualService as routes of one Gateway port (istio `BuildHTTPRoutesForVirtualService`).

use std::sync::Arc;

use edge_config::istio::virtual_service::VirtualService;
use edge_config::istio::virtual_service::http::HttpMatchRequest;
use edge_model::{Route, RouteMatch};

use super::action::{self, Rule};
use super::context::Context;
use super::endpoints::has_all;
use super::input::Item;
use super::names::gateway_key;
use super::report::Report;
use super::{headers, matcher};

/// Translates the rules in their order, one route for each match block that can apply at the Gateway and port. What
/// stands behind a route that takes every request is dropped.
pub(crate) fn routes(
    object: &Item<'_, VirtualService>,
    gateway: &str,
    port: u16,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Vec<Arc<Route>> {
    let mut routes = vec![];
    for (index, spec) in object.spec.http.iter().enumerate() {
        // Delegates are not followed, which edge_config::unsupported reports.
        if spec.delegate.is_some() {
            continue;
        }
        let rule = Rule {
            object,
            field: format!("spec.http[{index}]"),
            spec,
            port,
        };
        let matchers = matchers(&rule, gateway, context, report);
        if matchers.is_empty() {
            continue;
        }
        let Some(template) = template(&rule, index, context, report) else {
            continue;
        };
        for (match_index, name, matcher) in matchers {
            let takes_everything = matcher.is_catch_all();
            routes.push(Arc::new(Route {
                name: route_name(&template.name, &name),
                match_index,
                matcher,
                ..template.clone()
            }));
            if takes_everything {
                return routes;
            }
        }
    }
    routes
}

/// Index, name and conditions of the rule's blocks that can apply; a rule without blocks has one that always holds.
fn matchers(
    rule: &Rule<'_, '_>,
    gateway: &str,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Vec<(Option<usize>, String, RouteMatch)> {
    if rule.spec.r#match.is_empty() {
        return vec![(None, String::new(), RouteMatch::any())];
    }
    let blocks = rule.spec.r#match.iter().enumerate();
    blocks
        .filter(|(_, block)| applies(block, rule, gateway, context))
        .filter_map(|(index, block)| {
            let field = format!("{}.match[{index}]", rule.field);
            let matcher = matcher::route_match(rule.object, &field, block, report)?;
            Some((Some(index), block.name.clone(), matcher))
        })
        .collect()
}

/// Port, gateways and source of a block are compared with the gateway itself, before any request.
fn applies(block: &HttpMatchRequest, rule: &Rule<'_, '_>, gateway: &str, context: &Context<'_, '_>) -> bool {
    let namespace = rule.object.namespace();
    let is_port = block.port == 0 || block.port == u32::from(rule.port);
    let is_gateway = block.gateways.is_empty()
        || block
            .gateways
            .iter()
            .any(|name| gateway_key(name, namespace) == gateway);
    let is_source = has_all(&context.options.gateway_labels, &block.source_labels)
        && (block.source_namespace.is_empty() || block.source_namespace == context.options.gateway_namespace);
    is_port && is_gateway && is_source
}

/// What all routes of a rule have in common.
fn template(
    rule: &Rule<'_, '_>,
    index: usize,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<Route> {
    let field = format!("{}.headers", rule.field);
    let operations = headers::operations(rule.object, &field, rule.spec.headers.as_ref(), report);
    let action = action::action(rule, operations.authority, context, report)?;
    let object = Arc::new(rule.object.name.clone());
    Some(Route {
        name: rule.spec.name.clone(),
        rule: index,
        headers: operations.ops,
        ..Route::new(object, RouteMatch::any(), action)
    })
}

/// `<rule>.<match>` when the block has a name.
fn route_name(rule: &str, block: &str) -> String {
    if block.is_empty() {
        rule.to_owned()
    } else {
        format!("{rule}.{block}")
    }
}
