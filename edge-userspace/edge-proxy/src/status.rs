//! What the proxy is doing, for the admin page.

use std::net::SocketAddr;

use edge_model::{ClusterName, WorkerId};

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its index.
    pub id: WorkerId,
    /// Connections of clients that are open.
    pub connections: u64,
    /// Connections of clients that were accepted since the start.
    pub connections_total: u64,
}

/// A cluster in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Its name.
    pub name: ClusterName,
    /// Its endpoints, in the order of the Snapshot.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint of a cluster, over all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share relative to the others.
    pub weight: u32,
    /// Requests under way.
    pub requests_active: u32,
    /// Requests, further tries included, since the endpoint appeared in this cluster.
    pub requests_total: u64,
}
