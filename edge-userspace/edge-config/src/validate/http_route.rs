//! Rules for HTTP: what may stand together, and in which order.

use super::http_resilience as resilience;
use super::virtual_service::{destination, weights};
use super::{http_action, http_match, values};
use crate::checker::Checker;
use crate::istio::virtual_service::http::{HttpMatchRequest, HttpRoute};

/// The VirtualService that a rule stands in.
#[derive(Clone, Copy)]
pub(super) struct Root {
    /// It has no hosts: another VirtualService names it.
    pub(super) is_delegate: bool,
    /// It names a gateway other than `mesh`.
    pub(super) at_gateway: bool,
}

pub(super) fn check(check: &mut Checker<'_>, path: &str, route: &HttpRoute, root: Root) {
    conflicts(check, path, route, root.is_delegate);
    for (index, block) in route.r#match.iter().enumerate() {
        http_match::check(check, &format!("{path}.match[{index}]"), block, root);
    }
    destinations(check, path, route);
    http_action::headers(check, &format!("{path}.headers"), route.headers.as_ref());
    if let Some(redirect) = &route.redirect {
        http_action::redirect(check, &format!("{path}.redirect"), redirect, &route.r#match);
    }
    if let Some(response) = &route.direct_response {
        http_action::direct_response(check, &format!("{path}.directResponse"), response);
    }
    if let Some(rewrite) = &route.rewrite {
        http_action::rewrite(check, &format!("{path}.rewrite"), rewrite);
    }
    http_action::authority(check, path, route);
    values::duration(check, &format!("{path}.timeout"), route.timeout);
    if let Some(retries) = &route.retries {
        resilience::retries(check, &format!("{path}.retries"), retries);
    }
    if let Some(fault) = &route.fault {
        resilience::fault(check, &format!("{path}.fault"), fault);
    }
    if let Some(cors) = &route.cors_policy {
        resilience::cors(check, &format!("{path}.corsPolicy"), cors);
    }
    mirrors(check, path, route);
}

fn destinations(check: &mut Checker<'_>, path: &str, route: &HttpRoute) {
    let path = format!("{path}.route");
    for (index, target) in route.route.iter().enumerate() {
        destination(
            check,
            &format!("{path}[{index}].destination"),
            target.destination.as_ref(),
        );
        http_action::headers(
            check,
            &format!("{path}[{index}].headers"),
            target.headers.as_ref(),
        );
    }
    weights(check, &path, route.route.iter().map(|target| target.weight));
}

fn mirrors(check: &mut Checker<'_>, path: &str, route: &HttpRoute) {
    if let Some(mirror) = &route.mirror {
        destination(check, &format!("{path}.mirror"), Some(mirror));
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{index}]");
        destination(check, &format!("{path}.destination"), mirror.destination.as_ref());
        values::percent(check, &format!("{path}.percentage"), mirror.percentage);
    }
    values::percent(
        check,
        &format!("{path}.mirrorPercentage"),
        route.mirror_percentage,
    );
    if let Some(percent) = route.mirror_percent {
        let field = format!("{path}.mirrorPercent");
        values::percent_value(check, &field, f64::from(percent));
        check.warn(&field, "is deprecated", "write mirrorPercentage: {value: ...}");
    }
}

/// Which actions exclude each other. A rule of a root that delegates must only have no route and no redirect: what else
/// it has is inherited by the delegate's rules.
fn conflicts(check: &mut Checker<'_>, path: &str, route: &HttpRoute, is_delegate: bool) {
    let has = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
        ("rewrite", route.rewrite.is_some()),
        ("fault", route.fault.is_some()),
        ("mirror", route.mirror.is_some()),
        ("mirrors", !route.mirrors.is_empty()),
    ];
    let has = |name: &str| has.contains(&(name, true));
    const EXCLUSIVE: [(&str, &str); 10] = [
        ("delegate", "route"),
        ("delegate", "redirect"),
        ("redirect", "route"),
        ("redirect", "fault"),
        ("redirect", "rewrite"),
        ("redirect", "directResponse"),
        ("directResponse", "route"),
        ("directResponse", "fault"),
        ("directResponse", "rewrite"),
        ("mirrors", "mirror"),
    ];
    let is_root = has("delegate") && !is_delegate;
    for (one, other) in EXCLUSIVE {
        if has(one) && has(other) && (one == "delegate" || !is_root) {
            let message = format!("{one} and {other} exclude each other");
            check.error(
                &format!("{path}.{one}"),
                message,
                "keep one of them, or make two rules",
            );
        }
    }
    if is_delegate && has("delegate") {
        let hint = "give the VirtualService hosts, or name the last one directly";
        check.error(
            &format!("{path}.delegate"),
            "a delegate cannot delegate further",
            hint,
        );
    }
    if !["route", "redirect", "directResponse", "delegate"]
        .into_iter()
        .any(has)
    {
        let hint = "add route, redirect or directResponse";
        check.error(path, "the rule does nothing", hint);
    }
    if route
        .delegate
        .as_ref()
        .is_some_and(|delegate| delegate.name.is_empty())
    {
        let hint = "name a VirtualService without hosts";
        check.warn(&format!("{path}.delegate.name"), "is missing", hint);
    }
}

/// Warns of rules behind one that matches every request.
pub(super) fn unreachable(check: &mut Checker<'_>, routes: &[HttpRoute]) {
    let Some(catch_all) = routes.iter().position(matches_everything) else {
        return;
    };
    for index in catch_all + 1..routes.len() {
        let message = format!("is never used: spec.http[{catch_all}] matches every request");
        check.warn(&format!("spec.http[{index}]"), message, "put the rule before it");
    }
}

fn matches_everything(route: &HttpRoute) -> bool {
    route.r#match.is_empty() || route.r#match.iter().any(is_catch_all)
}

fn is_catch_all(block: &HttpMatchRequest) -> bool {
    let any_path = block.uri.as_ref().is_none_or(|uri| {
        uri.exact.is_none() && (uri.prefix.as_deref() == Some("/") || uri.regex.as_deref() == Some(".*"))
    });
    let without_path = HttpMatchRequest {
        uri: None,
        name: String::new(),
        stat_prefix: String::new(),
        ignore_uri_case: false,
        ..block.clone()
    };
    any_path && without_path == HttpMatchRequest::default()
}
