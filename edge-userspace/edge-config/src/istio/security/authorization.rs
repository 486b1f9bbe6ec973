//! `security.istio.io` AuthorizationPolicy.

use serde::Deserialize;

use super::Scope;
use crate::istio::destination_rule::WorkloadSelector;
use crate::istio::envoy_filter::TargetRef;

/// `spec` of an AuthorizationPolicy: which requests are let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// Workloads that it is for; none means all of its namespace.
    pub selector: Option<WorkloadSelector>,
    /// A resource that it is for.
    pub target_ref: Option<TargetRef>,
    /// Resources that it is for.
    pub target_refs: Vec<TargetRef>,
    /// Requests that it is about: those that fit any rule. `None` and an empty list both fit no request.
    pub rules: Option<Vec<Rule>>,
    /// What becomes of them.
    pub action: Action,
    /// The external service that `CUSTOM` asks.
    pub provider: Option<Provider>,
}

impl AuthorizationPolicy {
    /// Whom it is for.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            selector: self.selector.as_ref(),
            target_ref: self.target_ref.as_ref(),
            target_refs: &self.target_refs,
        }
    }
}

/// What becomes of the requests that fit a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// They are let in, and those that fit no such policy are not.
    #[default]
    Allow,
    /// They are refused.
    Deny,
    /// They are written down.
    Audit,
    /// An external service decides.
    Custom,
}

/// An external service that decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// Its name in Istio's mesh configuration.
    pub name: String,
}

/// Requests: those that fit one of `from`, one of `to` and all of `when`, each as far as it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Where they come from.
    pub from: Option<Vec<From>>,
    /// What they are.
    pub to: Option<Vec<To>>,
    /// Further conditions.
    pub when: Vec<Condition>,
}

/// Where requests come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct From {
    /// Their source.
    pub source: Option<Source>,
}

/// A source: all fields that are given must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    /// Identities of client certificates.
    pub principals: Vec<String>,
    /// All but these.
    pub not_principals: Vec<String>,
    /// `issuer/subject` of tokens.
    pub request_principals: Vec<String>,
    /// All but these.
    pub not_request_principals: Vec<String>,
    /// Namespaces of client certificates.
    pub namespaces: Vec<String>,
    /// All but these.
    pub not_namespaces: Vec<String>,
    /// Trust domains of client certificates.
    pub trust_domains: Vec<String>,
    /// All but these.
    pub not_trust_domains: Vec<String>,
    /// `[namespace/]name` of service accounts.
    pub service_accounts: Vec<String>,
    /// All but these.
    pub not_service_accounts: Vec<String>,
    /// Addresses of the connection's peer, single or in CIDR notation.
    pub ip_blocks: Vec<String>,
    /// All but these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the client as trusted proxies report it.
    pub remote_ip_blocks: Vec<String>,
    /// All but these.
    pub not_remote_ip_blocks: Vec<String>,
}

/// What requests are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct To {
    /// Their operation.
    pub operation: Option<Operation>,
}

/// An operation: all fields that are given must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// Hosts.
    pub hosts: Vec<String>,
    /// All but these.
    pub not_hosts: Vec<String>,
    /// Ports of the workload.
    pub ports: Vec<String>,
    /// All but these.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// All but these.
    pub not_methods: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
    /// All but these.
    pub not_paths: Vec<String>,
}

/// A further condition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// Attribute of the request, such as `request.headers[x]`.
    pub key: String,
    /// Its values.
    pub values: Vec<String>,
    /// All but these.
    pub not_values: Vec<String>,
}
