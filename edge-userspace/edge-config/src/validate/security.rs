//! AuthorizationPolicy, RequestAuthentication and PeerAuthentication.

use std::net::IpAddr;

use super::{names, values};
use crate::checker::Checker;
use crate::istio::destination_rule::WorkloadSelector;
use crate::istio::envoy_filter::TargetRef;
use crate::istio::security::request::JwtRule;
use crate::istio::security::{PeerAuthentication, RequestAuthentication, Scope};

/// What policies may be attached to, as `group/kind`.
const TARGETS: [&str; 4] = [
    "gateway.networking.k8s.io/Gateway",
    "gateway.networking.k8s.io/GatewayClass",
    "/Service",
    "networking.istio.io/ServiceEntry",
];

pub(super) fn request(check: &mut Checker<'_>, policy: &RequestAuthentication) {
    scope(check, &policy.scope());
    for (index, rule) in policy.jwt_rules.iter().enumerate() {
        jwt_rule(check, &format!("spec.jwtRules[{index}]"), rule);
    }
}

fn jwt_rule(check: &mut Checker<'_>, path: &str, rule: &JwtRule) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        let hint = "write the iss of the tokens";
        check.error(&format!("{path}.issuer"), "issuer or jwksUri is needed", hint);
    }
    if !rule.jwks_uri.is_empty() && !is_http_uri(&rule.jwks_uri) {
        let message = format!("{:?} is not an http or https URL", rule.jwks_uri);
        check.error(&format!("{path}.jwksUri"), message, "correct the URL");
    }
    if !rule.jwks.is_empty() {
        jwks(check, &format!("{path}.jwks"), &rule.jwks);
    }
    for (field, texts) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        no_empty_text(check, &format!("{path}.{field}"), texts);
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        if header.name.is_empty() {
            let field = format!("{path}.fromHeaders[{index}].name");
            check.error(&field, "is missing", "name the header, such as Authorization");
        }
    }
    for (index, output) in rule.output_claim_to_headers.iter().enumerate() {
        let field = format!("{path}.outputClaimToHeaders[{index}]");
        if output.claim.is_empty() {
            check.error(&format!("{field}.claim"), "is missing", "name the claim");
        }
        let header = format!("{field}.header");
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !output.header.bytes().all(is_plain) {
            let message = format!("{:?} is not the name of a header", output.header);
            check.error(&header, message, "use letters, digits and dashes");
        } else {
            names::header_name(check, &header, &output.header);
        }
    }
    values::duration(check, &format!("{path}.timeout"), rule.timeout);
}

fn is_http_uri(text: &str) -> bool {
    // Parsing alone takes a port that is no number.
    let has_port = |uri: &http::Uri| {
        let authority = uri
            .authority()
            .map(http::uri::Authority::as_str)
            .unwrap_or_default();
        let after = authority
            .rsplit_once(['@', ']'])
            .map_or(authority, |(_, after)| after);
        after
            .rsplit_once(':')
            .is_none_or(|(_, port)| port.parse::<u16>().is_ok())
    };
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && has_port(&uri)
    })
}

/// A key or a set of keys (RFC 7517), as far as it can be told without looking into the keys.
fn jwks(check: &mut Checker<'_>, field: &str, text: &str) {
    let hint = "write a JSON Web Key Set, as {\"keys\": [{\"kty\": \"RSA\", ...}]}";
    let Ok(serde_json::Value::Object(set)) = serde_json::from_str(text) else {
        return check.error(field, "is not a JSON Web Key Set (RFC 7517)", hint);
    };
    let is_key = |key: &serde_json::Value| key.get("kty").is_some_and(serde_json::Value::is_string);
    let keys = set.get("keys").and_then(serde_json::Value::as_array);
    let is_right = keys.map_or_else(|| set.contains_key("kty"), |keys| keys.iter().all(is_key));
    if !is_right {
        return check.error(field, "has keys without a type (kty)", hint);
    }
    let is_private = |key: &serde_json::Value| key.get("d").is_some();
    if keys.is_some_and(|keys| keys.iter().any(is_private)) || set.contains_key("d") {
        let hint = "publish only public keys: whoever has a private one can make tokens";
        check.warn(field, "holds a private key", hint);
    }
}

pub(super) fn peer(check: &mut Checker<'_>, policy: &PeerAuthentication) {
    scope(check, &policy.scope());
    let Some(ports) = &policy.port_level_mtls else {
        return;
    };
    let path = "spec.portLevelMtls";
    if ports.is_empty() {
        check.error(path, "is empty", "name a port, or remove it");
    }
    let has_labels = policy
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.match_labels.is_empty());
    if !has_labels && !ports.is_empty() {
        let hint = "add a selector with matchLabels";
        check.error(
            path,
            "ports can be set only for workloads that a selector names",
            hint,
        );
    }
    for port in ports.keys() {
        values::port(check, &format!("{path}.{port}"), port.parse().unwrap_or(0));
    }
}

/// Whom a policy is for: by labels or by reference, and not by both.
pub(super) fn scope(check: &mut Checker<'_>, scope: &Scope<'_>) {
    let ways = [
        scope.selector.is_some(),
        scope.target_ref.is_some(),
        !scope.target_refs.is_empty(),
    ];
    if ways.into_iter().filter(|is_used| *is_used).count() > 1 {
        let message = "selector, targetRef and targetRefs exclude each other";
        check.error("spec", message, "keep one of them");
    }
    if let Some(selector) = scope.selector {
        match_labels(check, selector);
    }
    if let Some(target) = scope.target_ref {
        target_ref(check, "spec.targetRef", target);
    }
    for (index, target) in scope.target_refs.iter().enumerate() {
        target_ref(check, &format!("spec.targetRefs[{index}]"), target);
    }
}

fn match_labels(check: &mut Checker<'_>, selector: &WorkloadSelector) {
    if selector.match_labels.is_empty() {
        let hint = "name labels, or remove the selector";
        check.warn("spec.selector", "without labels it is for all workloads", hint);
    }
    for (key, value) in &selector.match_labels {
        let field = format!("spec.selector.matchLabels.{key}");
        if key.is_empty() {
            check.error(&field, "a label has no name", "name the label");
        } else if key.contains('*') || value.contains('*') {
            check.error(
                &field,
                "labels are compared as they are, without wildcards",
                "name the label in full",
            );
        }
    }
}

fn target_ref(check: &mut Checker<'_>, path: &str, target: &TargetRef) {
    if target.name.is_empty() {
        check.error(&format!("{path}.name"), "is missing", "name the resource");
    }
    if !target.namespace.is_empty() {
        let hint = "remove it: the resource is in the policy's own namespace";
        check.error(&format!("{path}.namespace"), "must not be set", hint);
    }
    let group = if target.group == "core" { "" } else { &target.group };
    let kind = format!("{group}/{}", target.kind);
    if !TARGETS.contains(&kind.as_str()) {
        let message = format!("a policy cannot be attached to {kind}");
        let hint = "name a Gateway or GatewayClass of gateway.networking.k8s.io, a Service or a ServiceEntry";
        check.error(&format!("{path}.kind"), message, hint);
    }
}

/// Texts that must not be empty.
pub(super) fn no_empty_text(check: &mut Checker<'_>, path: &str, texts: &[String]) {
    for (index, _) in texts.iter().enumerate().filter(|(_, text)| text.is_empty()) {
        check.error(
            &format!("{path}[{index}]"),
            "is empty",
            "write a value, or remove it",
        );
    }
}

/// Addresses, single or in CIDR notation.
pub(super) fn addresses(check: &mut Checker<'_>, path: &str, texts: &[String]) {
    for (index, text) in texts.iter().enumerate().filter(|(_, text)| !is_block(text)) {
        let message = format!("{text:?} is neither an IP address nor a block of them");
        check.error(
            &format!("{path}[{index}]"),
            message,
            "write 192.0.2.1 or 192.0.2.0/24",
        );
    }
}

pub(super) fn is_block(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let length = length.parse::<u8>();
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    length.is_ok_and(|length| length <= if address.is_ipv4() { 32 } else { 128 })
}

/// Port numbers as text.
pub(super) fn ports(check: &mut Checker<'_>, path: &str, texts: &[String]) {
    for (index, text) in texts.iter().enumerate() {
        if text.parse::<u16>().is_err() {
            let message = format!("{text:?} is not a port");
            check.error(
                &format!("{path}[{index}]"),
                message,
                "write a number from 0 to 65535",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_addresses_with_at_most_their_length() {
        for (text, expected) in [
            ("192.0.2.1", true),
            ("192.0.2.0/24", true),
            ("192.0.2.0/33", false),
            ("2001:db8::/64", true),
            ("2001:db8::/129", false),
            ("192.0.2.0/", false),
            ("a.b.c.d", false),
            ("", false),
        ] {
            assert_eq!(is_block(text), expected, "{text}");
        }
    }
}
