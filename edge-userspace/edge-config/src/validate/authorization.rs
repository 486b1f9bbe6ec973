//! AuthorizationPolicy: action, provider and rules.

use super::security::{addresses, no_empty_text, ports, scope};
use crate::checker::Checker;
use crate::istio::security::AuthorizationPolicy;
use crate::istio::security::authorization::{Action, Condition, Operation, Rule, Source};
use crate::k8s::meta::Meta;
use crate::unsupported::DRY_RUN;

pub(super) fn check(check: &mut Checker<'_>, meta: &Meta, policy: &AuthorizationPolicy) {
    scope(check, &policy.scope());
    action(check, policy);
    dry_run(check, meta, policy.action);
    for (index, rule) in policy.rules.iter().flatten().enumerate() {
        self::rule(check, &format!("spec.rules[{index}]"), rule, policy.action);
    }
}

fn action(check: &mut Checker<'_>, policy: &AuthorizationPolicy) {
    let needs_rules = matches!(policy.action, Action::Deny | Action::Custom);
    if needs_rules && policy.rules.as_ref().is_none_or(Vec::is_empty) {
        let hint = "add a rule; an empty one, {}, fits every request";
        check.error("spec.rules", "without rules the policy fits no request", hint);
    }
    let provider = policy.provider.as_ref();
    if policy.action == Action::Custom && provider.is_none_or(|provider| provider.name.is_empty()) {
        let hint = "name an extension provider of the mesh configuration";
        check.error("spec.provider.name", "is missing", hint);
    }
    if policy.action != Action::Custom && provider.is_some() {
        check.error(
            "spec.provider",
            "fits only the action CUSTOM",
            "remove it, or write action: CUSTOM",
        );
    }
}

fn dry_run(check: &mut Checker<'_>, meta: &Meta, action: Action) {
    let Some(value) = meta.annotations.get(DRY_RUN) else {
        return;
    };
    let field = format!("metadata.annotations.{DRY_RUN}");
    if super::go_bool(value).is_none() {
        check.error(
            &field,
            format!("{value:?} is neither true nor false"),
            "write \"true\" or \"false\"",
        );
    }
    if !matches!(action, Action::Allow | Action::Deny) {
        check.error(
            &field,
            "only ALLOW and DENY can be tried out",
            "remove the annotation",
        );
    }
}

fn rule(check: &mut Checker<'_>, path: &str, rule: &Rule, action: Action) {
    if rule.from.as_ref().is_some_and(Vec::is_empty) {
        check.error(&format!("{path}.from"), "is empty", "add a source, or remove it");
    }
    for (index, from) in rule.from.iter().flatten().enumerate() {
        let path = format!("{path}.from[{index}].source");
        match &from.source {
            None => check.error(&path, "is missing", "say where the requests come from"),
            Some(source) => self::source(check, &path, source, action),
        }
    }
    if rule.to.as_ref().is_some_and(Vec::is_empty) {
        check.error(
            &format!("{path}.to"),
            "is empty",
            "add an operation, or remove it",
        );
    }
    for (index, to) in rule.to.iter().flatten().enumerate() {
        let path = format!("{path}.to[{index}].operation");
        match &to.operation {
            None => check.error(&path, "is missing", "say what the requests are"),
            Some(operation) => self::operation(check, &path, operation),
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        self::condition(check, &format!("{path}.when[{index}]"), condition, action);
    }
    if action == Action::Deny && fits_all_of_tcp(rule) {
        let message = "the rule denies every TCP connection too: it has only attributes of HTTP";
        check.warn(path, message, "add to.operation.ports");
    }
}

/// Istio leaves conditions about HTTP out where a DENY rule is applied to TCP, which then denies more.
fn fits_all_of_tcp(rule: &Rule) -> bool {
    let sources: Vec<_> = rule
        .from
        .iter()
        .flatten()
        .filter_map(|from| from.source.as_ref())
        .collect();
    let operations: Vec<_> = rule
        .to
        .iter()
        .flatten()
        .filter_map(|to| to.operation.as_ref())
        .collect();
    let about_connections = sources.iter().any(|source| {
        let fields = source.fields();
        fields
            .iter()
            .any(|(name, texts)| !texts.is_empty() && !name.to_lowercase().contains("request"))
    });
    let about_ports = operations
        .iter()
        .any(|operation| !operation.ports.is_empty() || !operation.not_ports.is_empty());
    let only_requests = !sources.is_empty() && operations.is_empty() && !about_connections;
    only_requests || (!operations.is_empty() && !about_ports)
}

impl Source {
    /// Its lists by name.
    fn fields(&self) -> [(&'static str, &[String]); 14] {
        [
            ("principals", &self.principals),
            ("notPrincipals", &self.not_principals),
            ("requestPrincipals", &self.request_principals),
            ("notRequestPrincipals", &self.not_request_principals),
            ("namespaces", &self.namespaces),
            ("notNamespaces", &self.not_namespaces),
            ("trustDomains", &self.trust_domains),
            ("notTrustDomains", &self.not_trust_domains),
            ("serviceAccounts", &self.service_accounts),
            ("notServiceAccounts", &self.not_service_accounts),
            ("ipBlocks", &self.ip_blocks),
            ("notIpBlocks", &self.not_ip_blocks),
            ("remoteIpBlocks", &self.remote_ip_blocks),
            ("notRemoteIpBlocks", &self.not_remote_ip_blocks),
        ]
    }
}

fn source(check: &mut Checker<'_>, path: &str, source: &Source, action: Action) {
    let fields = source.fields();
    if fields.iter().all(|(_, texts)| texts.is_empty()) {
        check.error(path, "is empty", "say where the requests come from");
    }
    for (name, texts) in fields {
        let field = format!("{path}.{name}");
        if name.to_lowercase().ends_with("serviceaccounts") && action != Action::Custom {
            // See below.
        } else if name.to_lowercase().ends_with("ipblocks") {
            addresses(check, &field, texts);
        } else {
            no_empty_text(check, &field, texts);
            if action == Action::Custom && !texts.is_empty() {
                check.error(
                    &field,
                    "cannot be used with the action CUSTOM",
                    "match by IP blocks, hosts or paths",
                );
            }
        }
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others = [
        &source.principals,
        &source.not_principals,
        &source.namespaces,
        &source.not_namespaces,
    ];
    if accounts && others.into_iter().any(|texts| !texts.is_empty()) {
        let message = "service accounts exclude principals and namespaces";
        check.error(&format!("{path}.serviceAccounts"), message, "keep one of them");
    }
    for (name, texts) in [
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
    ] {
        service_accounts(check, &format!("{path}.{name}"), texts);
    }
    for (name, texts) in [
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ] {
        let field = format!("{path}.{name}");
        one_wildcard(check, &field, texts);
        for (index, text) in texts.iter().enumerate().filter(|(_, text)| text.contains('/')) {
            let message = format!("{text:?} is not a trust domain");
            check.error(
                &format!("{field}[{index}]"),
                message,
                "write what stands before the first slash",
            );
        }
    }
}

/// `[namespace/]name`, not too many and none too long.
fn service_accounts(check: &mut Checker<'_>, field: &str, accounts: &[String]) {
    if accounts.len() > MAX_ACCOUNTS {
        let message = format!("more than {MAX_ACCOUNTS} service accounts");
        check.error(field, message, "make several sources of them");
    }
    for (index, account) in accounts.iter().enumerate() {
        let (namespace, name) = account.split_once('/').unwrap_or(("a", account));
        let is_account = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        if !is_account || account.contains('*') || account.len() > MAX_ACCOUNT_LEN {
            let message = format!("{account:?} is not a service account");
            check.error(&format!("{field}[{index}]"), message, "write [namespace/]name");
        }
    }
}

/// Texts of which each may begin or end with one `*`.
fn one_wildcard(check: &mut Checker<'_>, field: &str, texts: &[String]) {
    for (index, text) in texts.iter().enumerate() {
        let inner = text
            .strip_prefix('*')
            .or_else(|| text.strip_suffix('*'))
            .unwrap_or(text);
        if inner.contains('*') {
            let message = format!("{text:?} has a * elsewhere than at one end");
            check.error(&format!("{field}[{index}]"), message, "write a*, *a or *");
        }
    }
}

fn operation(check: &mut Checker<'_>, path: &str, operation: &Operation) {
    let fields = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    if fields.iter().all(|(_, texts)| texts.is_empty()) {
        check.error(path, "is empty", "say what the requests are");
    }
    for (name, texts) in fields {
        let field = format!("{path}.{name}");
        match name {
            "ports" | "notPorts" => ports(check, &field, texts),
            _ => no_empty_text(check, &field, texts),
        }
        let is_path = matches!(name, "paths" | "notPaths");
        for (index, text) in texts
            .iter()
            .enumerate()
            .filter(|(_, text)| is_path && is_bad_template(text))
        {
            let message = format!("{text:?} is not a template of a path");
            let hint = "{*} stands for one part of the path and {**} for several; nothing else is known";
            check.error(&format!("{field}[{index}]"), message, hint);
        }
    }
}

/// Whether braces or wildcards of a path are none of a template's: its parts may be `{*}` and, as the last of these,
/// `{**}`; the others are then plain text (RFC 3986, `pchar`).
fn is_bad_template(path: &str) -> bool {
    let is_template = path.contains("{*}") || path.contains("{**}");
    let mut after_any = false;
    for part in path.trim_matches('/').split('/') {
        match part {
            "{*}" | "{**}" if after_any => return true,
            "{*}" => {}
            "{**}" => after_any = true,
            _ if part.contains(['{', '}']) || (is_template && !is_literal(part)) => return true,
            _ => {}
        }
    }
    false
}

/// Characters of a part of a path, without the star.
fn is_literal(part: &str) -> bool {
    let is_pchar = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
    !part.is_empty() && part.bytes().all(is_pchar)
}

/// Most service accounts of a source, and the longest.
const MAX_ACCOUNTS: usize = 16;
const MAX_ACCOUNT_LEN: usize = 320;

/// Attributes that Istio knew once.
const REPLACED: [(&str, &str); 4] = [
    ("destination.namespace", "put the policy into the namespace"),
    ("destination.labels", "use spec.selector"),
    ("destination.name", "use spec.selector"),
    ("destination.user", "use spec.selector"),
];

/// Attributes without a key in brackets.
const PLAIN: [&str; 8] = [
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "connection.sni",
];

fn condition(check: &mut Checker<'_>, path: &str, condition: &Condition, action: Action) {
    let key = condition.key.as_str();
    let field = format!("{path}.key");
    if key.is_empty() {
        return check.error(&field, "is missing", "name an attribute, such as source.ip");
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        return check.error(
            &format!("{path}.values"),
            "values or notValues are needed",
            "write a value",
        );
    }
    let about_identity = matches!(
        key,
        "source.namespace" | "source.principal" | "source.serviceAccount" | "source.trustDomain"
    );
    let is_of_custom = !about_identity && !key.starts_with("request.auth.");
    if action == Action::Custom && !is_of_custom {
        check.error(
            &field,
            format!("{key} cannot be used with the action CUSTOM"),
            "match by another attribute",
        );
    }
    if let Some((_, hint)) = REPLACED.iter().find(|(name, _)| key.starts_with(name)) {
        check.error(&field, format!("{key} is no longer known"), *hint);
        return;
    }
    let has_key = [
        "request.headers",
        "request.auth.claims",
        "experimental.envoy.filters.",
    ];
    if has_key.iter().any(|name| key.starts_with(name)) {
        let name = key.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
        if name.is_none_or(str::is_empty) {
            check.error(
                &field,
                format!("{key} lacks its key"),
                "write it as request.headers[name]",
            );
        }
    } else if !PLAIN.contains(&key)
        && !matches!(
            key,
            "source.ip" | "remote.ip" | "destination.ip" | "destination.port"
        )
    {
        let hint = crate::yaml::nearest(key, PLAIN).map_or_else(
            || "see Istio's Authorization Policy Conditions".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        check.error(&field, format!("{key} is not an attribute"), hint);
    }
    for (name, texts) in [
        ("values", &condition.values),
        ("notValues", &condition.not_values),
    ] {
        let field = format!("{path}.{name}");
        match key {
            "source.ip" | "remote.ip" | "destination.ip" => addresses(check, &field, texts),
            "destination.port" => ports(check, &field, texts),
            "source.serviceAccount" => service_accounts(check, &field, texts),
            _ => no_empty_text(check, &field, texts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_paths_have_nothing_but_the_two_wildcards() {
        for (path, is_bad) in [
            ("/a/*", false),
            ("/a/{*}/b", false),
            ("/a/{**}", false),
            ("/{*}/{**}", false),
            ("/{*}/{name}", true),
            ("/{*}/*", true),
            ("/{name}", true),
            ("/{**}/a", false),
            ("/{**}/{*}", true),
            ("/{*}/a b", true),
            ("/a b", false),
            ("/a{*}", true),
        ] {
            assert_eq!(is_bad_template(path), is_bad, "{path}");
        }
    }
}
