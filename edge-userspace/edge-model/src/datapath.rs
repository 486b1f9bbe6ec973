//! What tier 1 is to do: the desired state that `edge-datapath` reconciles into BPF maps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Prefix, Tunnels};

/// Desired state of the data path, derived from the bootstrap file and the Gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataPathConfig {
    /// Services that tier 1 answers for. No two have the same address, port and protocol.
    pub vips: Vec<Vip>,
    /// Gateway workers of this node: the pool that VIPs without another have.
    pub workers: Vec<Worker>,
    /// Sets of workers, elsewhere or here, that VIPs name as theirs.
    pub pools: Vec<Pool>,
    /// How workers of pools are probed, by the pool's name; those of other pools are not.
    pub health: BTreeMap<Arc<str>, HealthCheck>,
    /// How packets get to workers elsewhere.
    pub tunnel: Tunnel,
    /// How many flows are remembered, and for how long.
    pub connections: Connections,
    /// Limits per source address; `None` leaves the flood stage out of the packet's way.
    pub flood: Option<FloodLimits>,
    /// Sources that are exempt from limits, and sources that are dropped.
    pub sources: SourceLists,
    /// UDP ports that reflection attacks come from: datagrams from them are dropped.
    pub reflection_ports: Vec<u16>,
    /// New connections that each VIP takes; `None` is as many as come.
    pub vip_limit: Option<TokenRate>,
    /// When SYNs are answered with cookies in XDP; `None` is never.
    pub syn_cookies: Option<SynCookies>,
    /// What is taken out of tunnels that end at this node; `None` is nothing.
    pub tunnels: Option<Tunnels>,
    /// Key of the flow hash. Nodes that share traffic must share it.
    pub hash_seed: u64,
}

/// One service address of tier 1 (VIP): address, port and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    /// Address that clients connect to; of a prefix the first. It need not be configured on an interface.
    pub address: IpAddr,
    /// Bits at the address's end that do not count: 0 for an address, 8 for an IPv4 prefix of 24 bits.
    pub free_bits: u8,
    /// Port that clients connect to; 0 stands for all.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on which the local workers' sockets listen for this VIP (Istio: the targetPort).
    pub listener_port: u16,
    /// The only address that those sockets listen on; `None` for every one.
    pub listener_address: Option<IpAddr>,
    /// Index of its pool in [`DataPathConfig::pools`]; `None` is this node's gateway workers.
    pub pool: Option<u16>,
    /// What decides which worker a flow goes to.
    pub spread: Spread,
    /// Whether a flow stays with its worker when the workers change.
    pub remembers: bool,
    /// What becomes of packets to ports of the address that no VIP serves.
    pub unserved: Unserved,
}

impl Vip {
    /// A service of this node's gateway workers.
    #[must_use]
    pub const fn local(address: IpAddr, port: u16, protocol: Protocol, listener_port: u16) -> Self {
        Self {
            address,
            free_bits: 0,
            port,
            protocol,
            listener_port,
            listener_address: None,
            pool: None,
            spread: Spread::Flow,
            remembers: true,
            unserved: Unserved::Drop,
        }
    }
}

/// What decides which worker a flow goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Spread {
    /// Addresses, ports and protocol.
    #[default]
    Flow,
    /// All but the client's port: a client's connections to one port go to one worker.
    NoSourcePort,
    /// The port that the client connects to alone.
    DestinationPort,
    /// The client's address alone, and the client stays with its worker whatever it opens.
    Source,
}

/// What becomes of a packet to a virtual address whose port no VIP serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Unserved {
    /// It is dropped, unless the node has the address on an interface.
    #[default]
    Drop,
    /// It goes up the stack.
    Pass,
}

/// A set of workers that serve the same VIPs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Its workers. No two have the same number.
    pub members: Vec<Member>,
}

impl Pool {
    /// The workers with their numbers: those that they were given, else their places in the list.
    pub fn numbered(&self) -> impl Iterator<Item = (u16, &Member)> {
        let places = (0..).zip(&self.members);
        places.map(|(place, member)| (member.number.unwrap_or(place), member))
    }
}

/// A worker of a [`Pool`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, for people.
    pub name: Arc<str>,
    /// What decides which slots of the Maglev table it has, and must be the same on every node; `None`: its place in the
    /// list. One that is given stays when others leave the list.
    pub number: Option<u16>,
    /// Where tunnels to it end, or the address whose next hop it is.
    pub address: IpAddr,
    /// How packets get there.
    pub mode: ForwardMode,
    /// Share of new connections relative to the others.
    pub weight: u32,
    /// Whether it takes any.
    pub state: MemberState,
    /// MAC address of the next hop; `None`: as routes and neighbours say.
    pub next_hop: Option<[u8; 6]>,
}

/// How packets get to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForwardMode {
    /// Up this node's stack, to its gateway workers.
    Local,
    /// In an outer IP header of the family of the worker's address (IPIP, IP6IP6, IPv4 in IPv6, 6in4).
    Ipip,
    /// In UDP (Generic UDP Encapsulation, variant 1).
    Gue {
        /// UDP port of the worker.
        port: u16,
    },
    /// As it is, to the worker's MAC address.
    L2,
}

/// Whether a worker takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum MemberState {
    /// It does.
    #[default]
    Active,
    /// It keeps those that it has.
    Draining,
    /// It does not answer: those that it had go to others.
    Down,
}

/// How a worker is probed, at its own address, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// Time from one probe to the next.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Failures in a row that take the worker out.
    pub unhealthy_threshold: u32,
    /// Passes in a row that put it back.
    pub healthy_threshold: u32,
    /// Least time between two changes.
    pub hold: Duration,
}

/// What is tried on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// To open a connection.
    Tcp {
        /// Port of the worker.
        port: u16,
    },
    /// To get a page over HTTP/1.1, with a status from 200 to 399.
    Http {
        /// Port of the worker.
        port: u16,
        /// Path with query.
        path: String,
        /// Value of the Host header; `None` is the worker's address and port.
        host: Option<String>,
    },
}

/// Settings of tunnels to workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Outer source addresses of IPv4 tunnels, of which a flow's hash chooses one; `None`: 0.0.0.0, and no IPv4 tunnel
    /// leaves.
    pub source4: Option<Prefix>,
    /// Likewise of IPv6 tunnels. Bits before the last 32 are the prefix's.
    pub source6: Option<Prefix>,
    /// Largest IP packet on the way to workers, outer headers included, in bytes.
    pub mtu: u16,
    /// MAC address that packets to workers leave for; `None`: as routes and neighbours say for each worker.
    pub next_hop: Option<[u8; 6]>,
    /// Whether packets of TCP connections that this node does not know carry the address of the worker that had their slot
    /// before, to which the selected one hands them on if it has no such connection. All workers must be edge nodes.
    pub second_hop: bool,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            source4: None,
            source6: None,
            // Ethernet's.
            mtu: 1500,
            next_hop: None,
            second_hop: false,
        }
    }
}

/// Settings of the connection table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How long a confirmed flow that sends nothing keeps its place against new ones.
    pub idle: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            // Longer than keep-alives are apart as a rule.
            idle: Duration::from_secs(300),
        }
    }
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

/// When tier 1 answers the SYNs to a VIP with cookies, so that no state is kept for a client that may not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynCookies {
    /// Every SYN.
    Always,
    /// While a VIP gets more SYNs per second than this whose handshake is not completed, and until they are less than half
    /// of it for ten seconds.
    Above(TokenRate),
}

/// Rate and depth of one token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRate {
    /// Tokens added per second.
    pub per_second: u32,
    /// Most tokens that the bucket holds.
    pub burst: u32,
}

/// Lists of sources, for all VIPs. They may be long, so they are shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceLists {
    /// Exempt from the deny list, from penalties and from limits.
    pub allow: Arc<[Prefix]>,
    /// Dropped.
    pub deny: Arc<[Prefix]>,
}

/// A source that tier 2 asks tier 1 to drop or to slow down until a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// Addresses whose packets to the VIPs are meant; together they have one rate.
    pub source: Prefix,
    /// When the penalty ends.
    pub until: Instant,
    /// Why it was given.
    pub reason: PenaltyReason,
    /// What it does.
    pub measure: Measure,
}

/// What a penalty does to its source. The default drops everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measure {
    /// What the source may still send; `None` is nothing.
    pub rate: Option<TokenRate>,
    /// Which packets are meant.
    pub scope: PenaltyScope,
}

/// Which packets of its source a penalty is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PenaltyScope {
    /// All.
    #[default]
    Everything,
    /// Those that open a connection (TCP SYN without ACK); connections that exist go on.
    NewConnections,
}

impl PenaltyScope {
    /// Name as it stands in `edge.yaml` and in `edge status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::NewConnections => "newConnections",
        }
    }
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
    /// How long the penalty lasts.
    pub duration: Duration,
    /// What it does.
    pub measure: Measure,
}
