//! `networking.istio.io` VirtualService: hosts, gateways and the HTTP rules (see [`http`] for what a rule holds).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PortSelector;

pub mod http;

/// `spec` of a VirtualService.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VirtualService {
    /// Hosts that the rules are for, exact or with a left-most wildcard; empty only for a delegate.
    pub hosts: Vec<String>,
    /// Gateways as `[namespace/]name`; `mesh` stands for the sidecars and is what an empty list means.
    pub gateways: Vec<String>,
    /// Rules for HTTP; the first that matches is taken.
    pub http: Vec<http::HttpRoute>,
    /// Rules for TLS that passes through, by SNI.
    pub tls: Vec<TlsRoute>,
    /// Rules for TCP.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see it: `*`, `.` or names.
    pub export_to: Vec<String>,
}

/// One rule for TLS that passes through.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct TlsRoute {
    /// Blocks, of which one must match.
    pub r#match: Vec<TlsMatchAttributes>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// Condition of a TLS rule.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsMatchAttributes {
    /// Server names; each must be one of the VirtualService's hosts.
    pub sni_hosts: Vec<String>,
    /// Destination addresses; ignored at gateways.
    pub destination_subnets: Vec<String>,
    /// Port of the listener.
    pub port: Option<u32>,
    /// Labels of the workload the rule is for.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that the block is for.
    pub gateways: Vec<String>,
    /// Namespace of the workload the rule is for.
    pub source_namespace: String,
}

/// One rule for TCP.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct TcpRoute {
    /// Blocks, of which one must match; none matches all.
    pub r#match: Vec<L4MatchAttributes>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// Condition of a TCP rule.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct L4MatchAttributes {
    /// Destination addresses; ignored at gateways.
    pub destination_subnets: Vec<String>,
    /// Port of the listener.
    pub port: Option<u32>,
    /// Source addresses; ignored at gateways.
    pub source_subnet: String,
    /// Labels of the workload the rule is for.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that the block is for.
    pub gateways: Vec<String>,
    /// Namespace of the workload the rule is for.
    pub source_namespace: String,
}

/// A destination of a TCP or TLS rule with its share.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Share relative to the other destinations.
    pub weight: i32,
}

/// A service, or a subset of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// Service name; a short one is in the VirtualService's namespace.
    pub host: String,
    /// Subset of the DestinationRule.
    pub subset: String,
    /// Port of the service; needed when it has several.
    pub port: Option<PortSelector>,
}
