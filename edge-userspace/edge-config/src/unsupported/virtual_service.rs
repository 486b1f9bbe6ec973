//! VirtualService.

use super::{NoEffect, NotEnforced, Row, not_enforced, report, row};
use crate::checker::Checker;
use crate::istio::virtual_service::VirtualService;
use crate::istio::virtual_service::http::{HttpMatchRequest, HttpRedirect};
use crate::validate::CLAIM_PREFIX;

const ABOUT_THE_PROXY: &str = "Istio compares it with the proxy's own workload, not with the client";

#[rustfmt::skip] // A table: one field, one line.
const MATCH: &[Row<HttpMatchRequest>] = &[
    row("sourceLabels", |block| !block.source_labels.is_empty(), NoEffect(ABOUT_THE_PROXY)),
    row("sourceNamespace", |block| !block.source_namespace.is_empty(), NoEffect(ABOUT_THE_PROXY)),
];

#[rustfmt::skip] // A table: one field, one line.
const REDIRECT: &[Row<HttpRedirect>] = &[
    // Envoy knows no others, and Istio then leaves the route without an action.
    row("redirectCode", |redirect| !matches!(redirect.redirect_code, 0 | 301 | 302 | 303 | 307 | 308), NotEnforced("requests get 404: write 301, 302, 303, 307 or 308")),
];

pub(super) fn check(check: &mut Checker<'_>, service: &VirtualService) {
    if !service.hosts.is_empty() && !service.gateways.iter().any(|gateway| gateway != "mesh") {
        let message = "has no effect at an ingress gateway: the VirtualService is for the mesh alone";
        check.warn("spec.gateways", message, "name the Gateway that it is for");
    }
    for (index, route) in service.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        for (index, block) in route.r#match.iter().enumerate() {
            match_block(check, &format!("{path}.match[{index}]"), block);
        }
        if let Some(redirect) = &route.redirect {
            report(check, &format!("{path}.redirect"), redirect, REDIRECT);
        }
    }
}

fn match_block(check: &mut Checker<'_>, path: &str, block: &HttpMatchRequest) {
    report(check, path, block, MATCH);
    for (field, headers) in [
        ("headers", &block.headers),
        ("withoutHeaders", &block.without_headers),
    ] {
        for name in headers.keys().filter(|name| name.starts_with(CLAIM_PREFIX)) {
            let field = format!("{path}.{field}.{name}");
            let instead = "no token is read, so no request has a claim";
            not_enforced(check, &field, "claims of a token", instead);
        }
    }
}
