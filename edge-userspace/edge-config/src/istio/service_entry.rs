//! `networking.istio.io` ServiceEntry.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::workload_entry::WorkloadEntry;

/// `spec` of a ServiceEntry: a service that is not one of Kubernetes'.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Names under which VirtualServices reach it.
    pub hosts: Vec<String>,
    /// Virtual addresses; used by sidecars.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Whether it is part of the mesh.
    pub location: Location,
    /// How its endpoints' addresses are found.
    pub resolution: Resolution,
    /// Its endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// Pods and WorkloadEntries of its namespace that are its endpoints.
    pub workload_selector: Option<LabelSelector>,
    /// Namespaces that see it: `*`, `.` or names.
    pub export_to: Vec<String>,
    /// Names that its certificates must have.
    pub subject_alt_names: Vec<String>,
}

impl ServiceEntry {
    /// Most endpoints that a ServiceEntry may stand for. Each host has every port, and each of these every endpoint: of
    /// a mebibyte of text, hundreds of millions could be made.
    pub const MAX_ENDPOINTS: usize = 1_000_000;

    /// Endpoints of all ports of all hosts.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        let ports = self.hosts.len().saturating_mul(self.ports.len());
        ports.saturating_mul(self.endpoints.len().max(1))
    }
}

/// A port of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Port number, 1 to 65535.
    pub number: u32,
    /// Protocol, such as HTTP.
    pub protocol: String,
    /// Name; endpoints refer to it.
    pub name: String,
    /// Port of the endpoints, `number` unless set.
    pub target_port: Option<u32>,
}

/// Whether a service is part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// It is not.
    #[default]
    MeshExternal,
    /// It is.
    MeshInternal,
}

/// How endpoints' addresses are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the client connected to.
    #[default]
    None,
    /// The endpoints' IP addresses.
    Static,
    /// By DNS, all answers.
    Dns,
    /// By DNS, the first answer.
    DnsRoundRobin,
    /// By DNS, from the request's host.
    DynamicDns,
}

/// Workloads by label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct LabelSelector {
    /// Labels that the workload must have.
    pub labels: BTreeMap<String, String>,
}
