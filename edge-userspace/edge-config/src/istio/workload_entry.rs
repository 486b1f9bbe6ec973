//! `networking.istio.io` WorkloadEntry, by itself or as an endpoint of a ServiceEntry.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `spec` of a WorkloadEntry: one workload outside of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// IP address, DNS name or `unix://` path.
    pub address: String,
    /// Its ports, by the names of the service's ports.
    pub ports: BTreeMap<String, u32>,
    /// Labels, which subsets and selectors look at.
    pub labels: BTreeMap<String, String>,
    /// Network for multi-network meshes.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Share relative to the service's other endpoints, 1 unless set.
    pub weight: u32,
    /// Kubernetes service account, for the mesh's certificates.
    pub service_account: String,
}
