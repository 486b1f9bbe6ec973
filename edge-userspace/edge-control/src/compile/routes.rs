//! The rules of one VirtualService as routes of one Gateway port (istio `BuildHTTPRoutesForVirtualService`).

use std::sync::Arc;

use edge_config::istio::virtual_service::VirtualService;
use edge_config::istio::virtual_service::http::HttpMatchRequest;
use edge_model::{Route, RouteMatch};

use super::action::{self, Rule};
use super::context::Context;
use super::delegates::EffectiveRule;
use super::endpoints::has_all;
use super::input::Item;
use super::names::gateway_key;
use super::report::Report;
use super::{headers, matcher, route_policy};

/// Translates the rules in their order, one route for each match block that can apply at the Gateway and port. What
/// stands behind a route that takes every request is dropped.
pub(crate) fn routes(
    root: &Item<'_, VirtualService>,
    gateway: &str,
    port: u16,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Vec<Arc<Route>> {
    let mut routes = vec![];
    for effective in context.delegates.rules(root, report) {
        let rule = Rule {
            object: &effective.object,
            field: format!("spec.http[{}]", effective.index),
            spec: &effective.spec,
            port,
        };
        let blocks = blocks(&rule, &effective, gateway, context, report);
        if blocks.is_empty() {
            continue;
        }
        let Some(template) = template(&rule, effective.index, context, report) else {
            continue;
        };
        for block in blocks {
            let takes_everything = block.matcher.is_catch_all();
            routes.push(Arc::new(Route {
                name: route_name(&template.name, block.name),
                match_index: block.index,
                stat_prefix: block.stat_prefix.to_owned(),
                matcher: block.matcher,
                ..template.clone()
            }));
            if takes_everything {
                return routes;
            }
        }
    }
    routes
}

/// A match block that can apply.
struct Block<'t> {
    index: Option<usize>,
    name: &'t str,
    stat_prefix: &'t str,
    matcher: RouteMatch,
}

/// The rule's blocks that can apply; a rule without blocks has one that always holds.
fn blocks<'t>(
    rule: &Rule<'t, '_>,
    effective: &EffectiveRule<'_, '_>,
    gateway: &str,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Vec<Block<'t>> {
    if rule.spec.r#match.is_empty() {
        return vec![Block {
            index: None,
            name: "",
            stat_prefix: "",
            matcher: RouteMatch::any(),
        }];
    }
    let blocks = rule.spec.r#match.iter().zip(&effective.match_indexes);
    blocks
        .filter(|(block, _)| applies(block, rule, gateway, context))
        .filter_map(|(block, index)| {
            let field = match index {
                Some(index) => format!("{}.match[{index}]", rule.field),
                None => rule.field.clone(),
            };
            Some(Block {
                index: *index,
                name: &block.name,
                stat_prefix: &block.stat_prefix,
                matcher: matcher::route_match(rule.object, &field, block, report)?,
            })
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
    let object = Arc::clone(&rule.object.name);
    Some(Route {
        name: rule.spec.name.clone(),
        rule: index,
        headers: operations.ops,
        fault: route_policy::fault(rule, report),
        cors: route_policy::cors(rule, report),
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
