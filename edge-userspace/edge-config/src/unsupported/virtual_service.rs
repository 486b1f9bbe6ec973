//! VirtualService.

use super::{NoEffect, NotEnforced, Row, not_enforced, report, row};
use crate::checker::Checker;
use crate::istio::virtual_service::VirtualService;
use crate::istio::virtual_service::http::{Headers, HttpMatchRequest, HttpRedirect, HttpRoute};
use crate::validate::{CLAIM_PREFIX, has_format_command};

#[rustfmt::skip] // A table: one field, one line.
const SERVICE: &[Row<VirtualService>] = &[
    row("tls", |service| !service.tls.is_empty(), NotEnforced("TLS connections are not passed through, nothing listens for them")),
    row("tcp", |service| !service.tcp.is_empty(), NotEnforced("TCP connections are not routed, nothing listens for them")),
];

#[rustfmt::skip] // A table: one field, one line.
const ROUTE: &[Row<HttpRoute>] = &[
    row("retries", retries, NotEnforced("nothing is tried again")),
    row("fault", |route| route.fault.is_some(), NotEnforced("no faults are injected")),
    row("mirror", |route| route.mirror.is_some(), NotEnforced("nothing is mirrored")),
    row("mirrors", |route| !route.mirrors.is_empty(), NotEnforced("nothing is mirrored")),
    row("corsPolicy", |route| route.cors_policy.is_some(), NotEnforced("preflights go to the backend like other requests")),
];

const ABOUT_THE_PROXY: &str = "Istio compares it with the proxy's own workload, not with the client";

#[rustfmt::skip] // A table: one field, one line.
const MATCH: &[Row<HttpMatchRequest>] = &[
    row("statPrefix", |block| !block.stat_prefix.is_empty(), NotEnforced("routes have no statistics of their own")),
    row("sourceLabels", |block| !block.source_labels.is_empty(), NoEffect(ABOUT_THE_PROXY)),
    row("sourceNamespace", |block| !block.source_namespace.is_empty(), NoEffect(ABOUT_THE_PROXY)),
];

#[rustfmt::skip] // A table: one field, one line.
const REDIRECT: &[Row<HttpRedirect>] = &[
    // Envoy knows no others, and Istio then leaves the route without an action.
    row("redirectCode", |redirect| !matches!(redirect.redirect_code, 0 | 301 | 302 | 303 | 307 | 308), NotEnforced("requests get 404: write 301, 302, 303, 307 or 308")),
];

/// Without retries is how the edge forwards.
fn retries(route: &HttpRoute) -> bool {
    route
        .retries
        .as_ref()
        .is_some_and(|retries| retries.attempts != 0)
}

pub(super) fn check(check: &mut Checker<'_>, service: &VirtualService) {
    report(check, "spec", service, SERVICE);
    if !service.hosts.is_empty() && !service.gateways.iter().any(|gateway| gateway != "mesh") {
        let message = "has no effect at an ingress gateway: the VirtualService is for the mesh alone";
        check.warn("spec.gateways", message, "name the Gateway that it is for");
    }
    for (index, route) in service.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        report(check, &path, route, ROUTE);
        for (index, block) in route.r#match.iter().enumerate() {
            match_block(check, &format!("{path}.match[{index}]"), block);
        }
        if let Some(redirect) = &route.redirect {
            report(check, &format!("{path}.redirect"), redirect, REDIRECT);
        }
        headers(check, &format!("{path}.headers"), route.headers.as_ref());
        for (index, target) in route.route.iter().enumerate() {
            headers(
                check,
                &format!("{path}.route[{index}].headers"),
                target.headers.as_ref(),
            );
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

fn headers(check: &mut Checker<'_>, path: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    for (way, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        for (verb, headers) in [("set", &operations.set), ("add", &operations.add)] {
            for (name, _) in headers
                .iter()
                .filter(|(_, value)| has_format_command(value) == Ok(true))
            {
                let field = format!("{path}.{way}.{verb}.{name}");
                not_enforced(
                    check,
                    &field,
                    "Envoy's format commands (%NAME%)",
                    "write the text that is to be sent",
                );
            }
        }
    }
}
