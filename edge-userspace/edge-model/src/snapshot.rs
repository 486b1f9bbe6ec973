//! The whole of a running configuration as one value.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Cluster, ClusterName, DataPathConfig, Listener, PenaltyPolicy};

/// A complete, checked configuration. It is replaced as a whole and never changed in place; parts that stay the same
/// from one Snapshot to the next are shared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Counts up with every Snapshot that is published.
    pub version: u64,
    /// Listeners, by ascending port; no port twice.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters by name.
    pub clusters: HashMap<ClusterName, Arc<Cluster>>,
    /// When refusals become penalties; `None` never.
    pub penalties: Option<PenaltyPolicy>,
    /// Tier 1.
    pub datapath: DataPathConfig,
}

impl Snapshot {
    /// The listener of a port.
    #[must_use]
    pub fn listener(&self, port: u16) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.port == port)
    }
}
