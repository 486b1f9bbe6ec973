//! Clusters: the endpoints of one service port and subset, and how requests are spread over them.

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// `outbound|<port>|<subset>|<host>`, Istio's name of a cluster; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// Composes the name; `subset` is empty for all endpoints of the service.
    #[must_use]
    pub fn outbound(port: u16, subset: &str, host: &str) -> Self {
        Self(format!("outbound|{port}|{subset}|{host}").into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ClusterName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One service port and subset.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Name of the cluster.
    pub name: ClusterName,
    /// Host of the service in the registry, such as `web.shop.svc.cluster.local`.
    pub host: String,
    /// Namespace of the Service or ServiceEntry.
    pub namespace: String,
    /// Port of the service.
    pub port: u16,
    /// Name of the DestinationRule subset; `None` for all endpoints.
    pub subset: Option<String>,
    /// How an endpoint is picked.
    pub load_balancer: LoadBalancer,
    /// Time to establish a connection (Istio `connectTimeout`, 10 s unless set).
    pub connect_timeout: Duration,
    /// Endpoints that are ready, in a stable order; no address twice.
    pub endpoints: Vec<Endpoint>,
}

/// Istio `LoadBalancerSettings.simple`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalancer {
    /// The less loaded of two endpoints drawn at random; Istio's default.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

/// A backend's address and share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address that is connected to.
    pub address: SocketAddr,
    /// Share relative to the other endpoints; at least 1.
    pub weight: u32,
    /// What metrics say about the workload behind it.
    pub workload: Arc<WorkloadMeta>,
}

/// Labels of a destination workload under Istio's metric names; `unknown` where nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadMeta {
    /// Name of the workload (Deployment, Pod or WorkloadEntry).
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Label `service.istio.io/canonical-name`, else `app`.
    pub canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, else `version`.
    pub canonical_revision: String,
}
