//! The whole of a running configuration as one value.

use std::sync::Arc;

use crate::{Cluster, ClusterName, DataPathConfig, Listener, ObjectRef, PenaltyPolicy, SharedMap};

/// A complete, checked configuration. It is replaced as a whole and never changed in place; parts that stay the same
/// from one Snapshot to the next are shared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Counts up with every Snapshot that is published.
    pub version: u64,
    /// Listeners, by ascending port and address; no port and address twice.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters by name.
    pub clusters: SharedMap<ClusterName, Arc<Cluster>>,
    /// Security policies for this gateway that the edge cannot enforce. While there is one, no request is let through:
    /// each gets 403, and TCP connections are closed.
    pub unenforced: Vec<ObjectRef>,
    /// When refusals become penalties; `None` never.
    pub penalties: Option<PenaltyPolicy>,
    /// Tier 1.
    pub datapath: DataPathConfig,
}

impl Snapshot {
    /// The listener of a port; of several with addresses of their own the first.
    #[must_use]
    pub fn listener(&self, port: u16) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.port == port)
    }
}
