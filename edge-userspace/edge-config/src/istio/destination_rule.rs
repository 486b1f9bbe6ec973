//! `networking.istio.io` DestinationRule (see [`policy`] for what a traffic policy holds).

use std::collections::BTreeMap;

use serde::Deserialize;

pub mod policy;

use policy::TrafficPolicy;

/// `spec` of a DestinationRule.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DestinationRule {
    /// Service that it is for; a short name is in its own namespace.
    pub host: String,
    /// Policy for the whole service.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named groups of endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it: `*`, `.` or names.
    pub export_to: Vec<String>,
    /// Client workloads that it is for.
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named group of endpoints.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subset {
    /// Its name, as VirtualServices use it.
    pub name: String,
    /// Labels of its endpoints; none means all.
    pub labels: BTreeMap<String, String>,
    /// Policy that overrides the service's, block by block.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Workloads by label (`istio.type.v1beta1`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Labels that the workload must have.
    pub match_labels: BTreeMap<String, String>,
}
