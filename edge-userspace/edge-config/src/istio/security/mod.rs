//! `security.istio.io`: AuthorizationPolicy, RequestAuthentication and PeerAuthentication.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::WorkloadSelector;
use super::envoy_filter::TargetRef;

pub mod authorization;
pub mod request;

pub use authorization::AuthorizationPolicy;
pub use request::RequestAuthentication;

/// Whom a policy is for, as all three kinds say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// Workloads by label; none means all of the namespace, in the root namespace all of the mesh.
    pub selector: Option<&'a WorkloadSelector>,
    /// The resource that the older `targetRef` names.
    pub target_ref: Option<&'a TargetRef>,
    /// Resources that `targetRefs` names.
    pub target_refs: &'a [TargetRef],
}

impl Scope<'_> {
    /// Whether a policy of `namespace` is for the gateway: by its labels, or because it is for all workloads of the
    /// gateway's namespace or of the mesh. Target references name Kubernetes' own gateways, waypoints and services,
    /// none of which the edge is.
    #[must_use]
    pub fn selects(&self, namespace: &str, gateway: &GatewayIdentity<'_>) -> bool {
        let is_near = namespace == gateway.namespace || namespace == gateway.root_namespace;
        let has_target = self.target_ref.is_some() || !self.target_refs.is_empty();
        let labels = self.selector.map(|selector| &selector.match_labels);
        let has_labels = labels.is_none_or(|labels| {
            labels
                .iter()
                .all(|(key, value)| gateway.labels.get(key) == Some(value))
        });
        is_near && !has_target && has_labels
    }
}

/// What policies know a gateway workload by.
#[derive(Debug, Clone, Copy)]
pub struct GatewayIdentity<'a> {
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its namespace.
    pub namespace: &'a str,
    /// Namespace whose policies are for the whole mesh.
    pub root_namespace: &'a str,
}

/// `spec` of a PeerAuthentication: whether connections to workloads must be mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthentication {
    /// Workloads that it is for; none means all of its namespace.
    pub selector: Option<WorkloadSelector>,
    /// For all ports.
    pub mtls: Option<MutualTls>,
    /// By port of the workload.
    pub port_level_mtls: Option<BTreeMap<String, Option<MutualTls>>>,
}

impl PeerAuthentication {
    /// Whom it is for.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            selector: self.selector.as_ref(),
            target_ref: None,
            target_refs: &[],
        }
    }

    /// Whether any port takes nothing but mutual TLS.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        let ports = self.port_level_mtls.iter().flat_map(BTreeMap::values).flatten();
        self.mtls
            .iter()
            .chain(ports)
            .any(|mtls| mtls.mode == MutualTlsMode::Strict)
    }
}

/// Mutual TLS settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct MutualTls {
    /// What is taken.
    pub mode: MutualTlsMode,
}

/// What connections a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the wider policy says.
    #[default]
    Unset,
    /// Plain text.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS.
    Strict,
}
