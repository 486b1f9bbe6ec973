//! What compiling needs to know about the edge itself.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use edge_config::{Bootstrap, VirtualAddress};
use edge_model::{
    Connections, FloodLimits, HealthCheck, PenaltyPolicy, Pool, SourceLists, SynCookies, TokenRate, Tunnel,
    Tunnels,
};

/// The edge's own identity and tier 1 settings, as the bootstrap file gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileOptions {
    /// Labels of the gateway workload; a Gateway applies when its selector is among them.
    pub gateway_labels: BTreeMap<String, String>,
    /// Namespace of the gateway workload: `exportTo` and DestinationRule lookup look at it.
    pub gateway_namespace: String,
    /// Addresses of the gateway workload: a ServiceEntry with one of them as an endpoint stands before this edge, and
    /// its ports are translated to their target ports.
    pub gateway_addresses: Vec<IpAddr>,
    /// Istio's root namespace, whose DestinationRules and EnvoyFilters apply everywhere.
    pub root_namespace: String,
    /// Domain of the Kubernetes cluster, `cluster.local` as a rule. When empty, short names end with the namespace.
    pub cluster_domain: String,
    /// Addresses that tier 1 answers for.
    pub virtual_addresses: Vec<VirtualAddress>,
    /// Number of gateway workers on this node, at least 1.
    pub workers: u16,
    /// Sets of workers that ports of virtual addresses name as theirs.
    pub pools: Vec<Pool>,
    /// How their workers are probed, by the pool's name.
    pub health: BTreeMap<Arc<str>, HealthCheck>,
    /// How packets get to workers elsewhere.
    pub tunnel: Tunnel,
    /// How long idle flows are remembered.
    pub connections: Connections,
    /// Limits per source address.
    pub flood: Option<FloodLimits>,
    /// The allow and the deny list; [`CompileOptions::new`] knows those of the bootstrap file itself, not its files.
    pub sources: SourceLists,
    /// UDP ports that reflection attacks come from.
    pub reflection_ports: Vec<u16>,
    /// New connections that each VIP takes.
    pub vip_limit: Option<TokenRate>,
    /// When SYNs are answered with cookies.
    pub syn_cookies: Option<SynCookies>,
    /// What is taken out of tunnels that end at this node.
    pub tunnels: Option<Tunnels>,
    /// When refusals become penalties.
    pub penalties: Option<PenaltyPolicy>,
    /// Key of the flow hash.
    pub hash_seed: u64,
}

/// What a process settles once, when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Number of gateway workers.
    pub workers: u16,
    /// Key of the flow hash. One that nobody chose counts only where no earlier process left its key.
    pub hash_seed: u64,
}

impl Process {
    /// As many workers as the bootstrap file says, else one for each core, and a flow hash that nobody can foresee
    /// unless the file gives its key.
    #[must_use]
    pub fn new(bootstrap: &Bootstrap) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let workers = bootstrap
            .workers
            .unwrap_or_else(|| u16::try_from(cores()).unwrap_or(u16::MAX));
        // The standard library seeds each RandomState from the system's random numbers.
        let random = || RandomState::new().hash_one(());
        Self {
            workers: workers.max(1),
            hash_seed: bootstrap.hash_seed.unwrap_or_else(random),
        }
    }
}

impl CompileOptions {
    /// The options that a bootstrap file gives.
    #[must_use]
    pub fn new(bootstrap: &Bootstrap, process: Process) -> Self {
        Self {
            gateway_labels: bootstrap.gateway_labels.clone(),
            gateway_namespace: bootstrap.gateway_namespace.clone(),
            gateway_addresses: bootstrap.gateway_addresses.clone(),
            root_namespace: bootstrap.root_namespace.clone(),
            cluster_domain: bootstrap.domain.clone(),
            virtual_addresses: bootstrap.virtual_addresses.clone(),
            workers: process.workers,
            pools: bootstrap.pools.clone(),
            health: bootstrap.health.clone(),
            tunnel: bootstrap.tunnel.clone(),
            connections: bootstrap.connections,
            flood: bootstrap.flood,
            sources: SourceLists {
                allow: bootstrap.sources.allow.as_slice().into(),
                deny: bootstrap.sources.deny.as_slice().into(),
            },
            reflection_ports: bootstrap.reflection_ports.clone(),
            vip_limit: bootstrap.vip_limit,
            syn_cookies: bootstrap.syn_cookies,
            tunnels: bootstrap.tunnels.clone(),
            penalties: bootstrap.penalties,
            hash_seed: process.hash_seed,
        }
    }
}

impl Default for CompileOptions {
    /// What an empty bootstrap file means, with one worker.
    fn default() -> Self {
        Self::new(
            &Bootstrap::default(),
            Process {
                workers: 1,
                hash_seed: 0,
            },
        )
    }
}
