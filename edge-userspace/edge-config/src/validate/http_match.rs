//! Conditions of a rule for HTTP.

use std::collections::BTreeMap;

use super::http_route::Root;
use super::virtual_service::source_namespace;
use super::{names, values};
use crate::checker::Checker;
use crate::istio::virtual_service::http::{HttpMatchRequest, StringMatch};

/// Beginning of the name of a "header" that stands for a claim of the request's token.
pub const CLAIM_PREFIX: &str = "@request.auth.claims";

pub(super) fn check(check: &mut Checker<'_>, path: &str, block: &HttpMatchRequest, root: Root) {
    for (field, value, empty_prefix) in [
        // Envoy takes an empty prefix of the path, and of nothing else.
        ("uri", &block.uri, true),
        ("scheme", &block.scheme, false),
        ("method", &block.method, false),
        ("authority", &block.authority, false),
    ] {
        if let Some(value) = value {
            string_match(check, &format!("{path}.{field}"), value, empty_prefix);
        }
    }
    let headers = [
        ("headers", &block.headers),
        ("withoutHeaders", &block.without_headers),
    ];
    for (field, headers) in headers {
        for name in headers.keys() {
            header_key(check, &format!("{path}.{field}.{name}"), name, root);
        }
        values_of(check, &format!("{path}.{field}"), headers, field == "headers");
    }
    values_of(check, &format!("{path}.queryParams"), &block.query_params, false);
    // 0 stands for every port.
    if block.port != 0 {
        values::port(check, &format!("{path}.port"), block.port);
    }
    names::gateways(check, &format!("{path}.gateways"), &block.gateways);
    names::labels(check, &format!("{path}.sourceLabels"), &block.source_labels);
    source_namespace(check, path, &block.source_namespace);
}

/// Fields of a request's head that HTTP/2 sends as headers (RFC 9113, 8.3); Istio's webhook lets conditions on them
/// through.
const PSEUDO_HEADERS: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];

fn header_key(check: &mut Checker<'_>, field: &str, name: &str, root: Root) {
    if PSEUDO_HEADERS.contains(&name) {
        return;
    }
    let beginning = name.get(..CLAIM_PREFIX.len());
    if !beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(CLAIM_PREFIX)) {
        return names::header_name(check, field, name);
    }
    let rest = &name[CLAIM_PREFIX.len()..];
    let named = rest.strip_prefix('.').is_some_and(|claim| !claim.is_empty())
        || (rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2);
    if !named {
        let hint = format!("write {CLAIM_PREFIX}.name or {CLAIM_PREFIX}[name]");
        check.error(field, "the claim has no name", hint);
    }
    if !root.at_gateway {
        // A delegate names no Gateway, so that Istio refuses claims there, too.
        let hint = "name a Gateway under spec.gateways, without mesh";
        check.error(field, "claims can be matched only at a gateway", hint);
    }
}

/// Entries of `headers`, `withoutHeaders` or `queryParams`.
fn values_of(
    check: &mut Checker<'_>,
    path: &str,
    entries: &BTreeMap<String, Option<StringMatch>>,
    null_refused: bool,
) {
    for (name, value) in entries {
        let field = format!("{path}.{name}");
        match value {
            None if null_refused => check.error(
                &field,
                "must not be null",
                "write {} to ask only that it be there",
            ),
            None => {}
            // Istio's own way to write "is there"; as an expression it would be wrong.
            Some(value) if value.regex.as_deref() == Some("*") => {}
            Some(value) => string_match(check, &field, value, false),
        }
    }
}

/// One of exact, prefix and regex.
pub(super) fn string_match(check: &mut Checker<'_>, field: &str, value: &StringMatch, empty_prefix: bool) {
    let StringMatch { exact, prefix, regex } = value;
    if [exact, prefix, regex].into_iter().flatten().count() > 1 {
        check.error(
            field,
            "exact, prefix and regex exclude each other",
            "keep one of them",
        );
    }
    if prefix.as_deref() == Some("") && !empty_prefix {
        let hint = "write {} to ask only that it be there";
        check.error(&format!("{field}.prefix"), "must not be empty", hint);
    }
    if let Some(regex) = regex {
        values::regex(check, &format!("{field}.regex"), regex);
    }
}
