//! Kubernetes `discovery.k8s.io` EndpointSlice.

use serde::Deserialize;

/// An EndpointSlice without its metadata; the label `kubernetes.io/service-name` names its Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// IPv4, IPv6 or FQDN.
    pub address_type: String,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports of all of them.
    pub ports: Vec<EndpointPort>,
}

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Its addresses; consumers use the first (Kubernetes API convention).
    pub addresses: Vec<String>,
    /// Its state.
    pub conditions: Conditions,
    /// What it is, a Pod as a rule.
    pub target_ref: Option<ObjectReference>,
    /// Node it is on.
    pub node_name: Option<String>,
    /// Zone it is in.
    pub zone: Option<String>,
}

/// State of an endpoint; absent means unknown, which consumers treat as `ready` (Kubernetes API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// It takes traffic.
    pub ready: Option<bool>,
    /// It could take traffic, though it may be terminating.
    pub serving: Option<bool>,
    /// It is going away.
    pub terminating: Option<bool>,
}

/// Names another object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the Service's port that it belongs to; may be empty.
    pub name: String,
    /// TCP unless set.
    pub protocol: Option<String>,
    /// Port number; absent means all ports.
    pub port: Option<u16>,
    /// What is spoken.
    pub app_protocol: Option<String>,
}
