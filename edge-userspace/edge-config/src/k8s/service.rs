//! Kubernetes core Service.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `spec` of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    pub r#type: String,
    /// Labels of its Pods.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Virtual address in the cluster; `None` as text for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// DNS name that an ExternalName Service stands for.
    pub external_name: String,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; may be empty when there is only one. EndpointSlices refer to it.
    pub name: String,
    /// TCP, UDP or SCTP; TCP unless set.
    pub protocol: String,
    /// Port number, 1 to 65535.
    pub port: u32,
    /// Port of the Pods, by number or name; `port` unless set.
    pub target_port: Option<IntOrString>,
    /// What is spoken, such as `http` or `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

/// `k8s.io/apimachinery` IntOrString.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A port number.
    Int(u16),
    /// The name of a container's port.
    String(String),
}
