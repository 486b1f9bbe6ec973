//! Forwarding of bytes: Istio's `tcp` and `tls` rules.

use std::sync::Arc;

use crate::{ClusterName, ObjectRef};

/// Where the connections of a listener or server name go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// VirtualService that it comes from.
    pub object: Arc<ObjectRef>,
    /// `tcp[<index>]` or `tls[<index>]`.
    pub rule: usize,
    /// Where to; at least one, and the weights do not sum to 0.
    pub destinations: Vec<WeightedCluster>,
}

/// A cluster with its share of the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Cluster; it may be missing from the Snapshot, and then its connections are closed.
    pub cluster: ClusterName,
    /// Share relative to the sum of all weights.
    pub weight: u32,
}
