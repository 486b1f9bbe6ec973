//! Names: hosts, namespaces, gateways, labels, header names.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::checker::Checker;

/// RFC 1123 label; Istio lets upper case through.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name of labels with dots between, and perhaps one at its end; no wildcard.
pub(super) fn is_domain(text: &str) -> bool {
    // Istio's own server names for traffic between clusters: outbound_.<port>_.<subset>_.<host>.
    let name = text
        .strip_prefix("outbound_.")
        .and_then(|rest| rest.split_once("_.")?.1.split_once("_."));
    let name = name.map_or(text, |(_, host)| host);
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit('.').next().unwrap_or_default();
    // Nothing but digits at the end would be taken for an IPv4 address.
    let numeric = name.contains('.') && top.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 255 && !numeric && name.split('.').all(is_dns_label)
}

/// Says what is wrong with a host that may be a wildcard; `None` when nothing is. A wildcard may stand for the first
/// label, or for its beginning: `*.foo.com`, `*foo.com`, `*-foo.com` (istio `ValidateWildcardDomain`).
pub(super) fn wildcard_domain_problem(host: &str) -> Option<&'static str> {
    let name = match host.strip_prefix('*') {
        Some("") => return None,
        Some(rest) => rest.strip_prefix(['.', '-']).unwrap_or(rest),
        None => host,
    };
    match (host.is_empty(), name.contains('*')) {
        (true, _) => Some("must not be empty"),
        (false, true) => Some("has a wildcard elsewhere than at its beginning"),
        (false, false) if is_domain(name) => None,
        (false, false) => Some("is not a valid domain name"),
    }
}

/// Whether a wildcard stands for a part of a label.
pub(super) fn is_partial_wildcard(host: &str) -> bool {
    let rest = host.strip_prefix('*');
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.'))
}

/// A host: a domain, a wildcard or an IP address.
pub(super) fn host(check: &mut Checker<'_>, field: &str, host: &str) {
    if host.parse::<IpAddr>().is_ok() {
        return;
    }
    if let Some(problem) = wildcard_domain_problem(host) {
        let hint = "write a name such as www.example.com or *.example.com";
        check.error(field, format!("host {host:?} {problem}"), hint);
    }
}

/// `metadata.name` as the API server takes it: the labels of such a subdomain may be as long as the whole (Kubernetes
/// `IsDNS1123Subdomain`).
pub(super) fn object_name(check: &mut Checker<'_>, name: &str) {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        let hint = "use lower-case letters, digits, dashes and dots (RFC 1123)";
        check.error(
            "metadata.name",
            format!("{name:?} is not a valid object name"),
            hint,
        );
    }
}

/// What an object is exported by.
pub(super) struct Export<'a> {
    /// Namespace of the object.
    pub(super) namespace: &'a str,
    /// ServiceEntries may be exported to nobody.
    pub(super) none_allowed: bool,
    /// DestinationRules with a workloadSelector stay in their namespace.
    pub(super) stays: bool,
}

/// `exportTo`: `*`, `.` or names of namespaces.
pub(super) fn export_to(check: &mut Checker<'_>, export_to: &[String], export: &Export<'_>) {
    let mut seen = HashSet::new();
    for (index, namespace) in export_to.iter().enumerate() {
        let field = format!("spec.exportTo[{index}]");
        let meant = if namespace == "." {
            export.namespace
        } else {
            namespace
        };
        let known = matches!(namespace.as_str(), "*" | ".") || (namespace == "~" && export.none_allowed);
        if !known && !is_dns_label(namespace) {
            let hint = "write *, . or the name of a namespace";
            check.error(&field, format!("{namespace:?} is not a namespace"), hint);
        }
        if !seen.insert(meant) {
            check.error(&field, format!("{namespace:?} stands twice"), "keep one of them");
        }
        if export.stays && meant != export.namespace {
            let message = "with a workloadSelector, only the own namespace is possible";
            check.error(&field, message, "write \".\"");
        }
    }
    let everyone_or_nobody = export_to
        .iter()
        .any(|namespace| matches!(namespace.as_str(), "*" | "~"));
    if everyone_or_nobody && export_to.len() > 1 {
        let message = "* and ~ cannot stand beside other namespaces";
        check.error("spec.exportTo", message, "keep either * or the names");
    }
}

/// `[namespace/]name` of Gateways, or `mesh`.
pub(super) fn gateways(check: &mut Checker<'_>, path: &str, names: &[String]) {
    for (index, name) in names.iter().enumerate() {
        let field = format!("{path}[{index}]");
        let hint = "write the name of a Gateway, or namespace/name";
        match name.split_once('/') {
            None if is_domain(name) => {
                if let [gateway, namespace, ..] = name.split('.').collect::<Vec<_>>().as_slice() {
                    let hint = format!("write {namespace}/{gateway}");
                    check.warn(&field, "names with dots are an old form", hint);
                }
            }
            None => check.error(&field, format!("{name:?} is not the name of a Gateway"), hint),
            Some((namespace, gateway)) => {
                if namespace.is_empty() || gateway.is_empty() {
                    check.error(&field, "namespace and name must not be empty", hint);
                    continue;
                }
                if !is_dns_label(namespace) {
                    check.error(&field, format!("{namespace:?} is not a namespace"), hint);
                }
                if !is_dns_label(gateway) {
                    check.error(&field, format!("{gateway:?} is not the name of a Gateway"), hint);
                }
            }
        }
    }
}

/// Labels of workloads, as Kubernetes takes them.
pub(super) fn labels(check: &mut Checker<'_>, path: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        let field = format!("{path}.{key}");
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("a", key));
        if !is_label_text(name) || name.is_empty() || !is_domain(prefix) {
            let hint = "use at most 63 letters, digits, dashes, dots and underscores, perhaps after domain/";
            check.error(&field, format!("{key:?} is not a label"), hint);
        }
        if !is_label_text(value) {
            let hint = "use at most 63 letters, digits, dashes, dots and underscores";
            check.error(&field, format!("{value:?} is not the value of a label"), hint);
        }
    }
}

fn is_label_text(text: &str) -> bool {
    let ends = |b: &u8| b.is_ascii_alphanumeric();
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let well_ended = bytes.first().is_none_or(ends) && bytes.last().is_none_or(ends);
    text.len() <= 63 && well_ended && text.bytes().all(inner)
}

/// Name of a header.
pub(super) fn header_name(check: &mut Checker<'_>, field: &str, name: &str) {
    let hint = "use letters, digits and dashes";
    if name.is_empty() {
        check.error(field, "the name of a header must not be empty", hint);
    } else if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        check.error(field, format!("{name:?} is not the name of a header"), hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expected: Option<&str>) {
        assert_eq!(wildcard_domain_problem(host), expected, "{host:?}");
    }

    #[test]
    fn hosts_are_domains_with_at_most_a_first_wildcard_label() {
        for host in [
            "*",
            "*.foo.com",
            "foo",
            "Foo.com",
            "foo.com.",
            "a-b.c1",
            "outbound_.80_.v1_.a.b",
            "outbound_.80_._.a",
            "*foo.com",
            "*-foo.com",
            "*foo",
        ] {
            check(host, None);
        }
        check("", Some("must not be empty"));
        for host in ["a.*.com", "**", "foo.*", "*.*.com"] {
            check(host, Some("has a wildcard elsewhere than at its beginning"));
        }
        for host in [
            "foo_bar.com",
            "-a.com",
            "a..com",
            "a b",
            "foo.123",
            "b@d",
            "outbound_.80_.a_b",
            "*--foo.com",
            "*_foo.com",
        ] {
            check(host, Some("is not a valid domain name"));
        }
    }

    #[test]
    fn label_texts_follow_kubernetes() {
        for (text, expected) in [
            ("", true),
            ("v1", true),
            ("a.b_c-d", true),
            ("-a", false),
            ("a b", false),
        ] {
            assert_eq!(is_label_text(text), expected, "{text:?}");
        }
    }
}
