//! What tier 1 is to do: the desired state that `edge-datapath` reconciles into BPF maps.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Desired state of the data path, derived from the bootstrap file and the Gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataPathConfig {
    /// Services that tier 1 answers for. No two have the same address, port and protocol.
    pub vips: Vec<Vip>,
    /// Gateway workers that new connections are spread over.
    pub workers: Vec<Worker>,
    /// Limits per source address; `None` leaves the flood stage out of the packet's way.
    pub flood: Option<FloodLimits>,
    /// Key of the flow hash. Nodes that share traffic must share it.
    pub hash_seed: u64,
}

/// One service address of tier 1 (VIP): address, port and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    /// Address that clients connect to. It need not be configured on an interface.
    pub address: IpAddr,
    /// Port that clients connect to.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on which the local workers' sockets listen for this VIP (Istio: the targetPort).
    pub listener_port: u16,
}

/// Transport protocols that tier 1 tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP (IANA protocol number 6).
    Tcp,
    /// UDP (IANA protocol number 17).
    Udp,
}

impl Protocol {
    /// IANA protocol number as it stands in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Index of a gateway worker, dense from 0. It is the value in the Maglev table's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A gateway worker as a target of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Index of the worker.
    pub id: WorkerId,
    /// Share of new connections relative to the other workers; 0 takes none (draining).
    pub weight: u32,
    /// Where the worker lives.
    pub kind: WorkerKind,
}

/// Where a worker's sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerKind {
    /// On this node: the packet passes up the stack and `sk_lookup` picks the worker's socket.
    Local,
}

/// Token buckets of the flood stage, each kept per source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimits {
    /// Packets of any kind, per second.
    pub packets: TokenRate,
    /// New connections (TCP SYN without ACK), per second.
    pub new_connections: TokenRate,
}

/// Rate and depth of one token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRate {
    /// Tokens added per second.
    pub per_second: u32,
    /// Most tokens that the bucket holds.
    pub burst: u32,
}

/// A source that tier 2 asks tier 1 to drop until a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// Address whose packets to the VIPs are dropped.
    pub source: IpAddr,
    /// When the penalty ends.
    pub until: Instant,
    /// Why it was given.
    pub reason: PenaltyReason,
}

/// Why a source was penalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PenaltyReason {
    /// The source went on past its HTTP rate limit.
    RateLimit,
}

impl PenaltyReason {
    /// Name as it stands in metrics and in `edge status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
        }
    }
}

/// When refusals by a rate limit turn into a [`Penalty`] (bootstrap key `penalties`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PenaltyPolicy {
    /// Refused requests of one source within `window` that bring the penalty.
    pub refusals: u32,
    /// Time over which refusals are counted.
    pub window: Duration,
    /// How long the source is dropped.
    pub duration: Duration,
}
