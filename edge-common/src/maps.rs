//! Names and capacities of the BPF maps. A map's name is that of its `static` in edge-ebpf.

use crate::prefix::CELLS_PER_WORD;
use crate::{connection, flood, penalty, tenant};

/// `Array<Config>`, one element. Written by userspace.
pub const CONFIG: &str = "CONFIG";
/// `Array<vip_table::Bucket>`: services and markers of virtual addresses. Written by userspace.
pub const VIPS: &str = "VIPS";
/// `HashMap<vip::Key, vip::Entry>`: what has no place in [`VIPS`]. Written by userspace.
pub const MORE_VIPS: &str = "MORE_VIPS";
/// `LpmTrie<vip::PrefixKey, u32>`: the virtual prefixes, with their free bits. Written by userspace.
pub const VIP_PREFIXES: &str = "VIP_PREFIXES";
/// `Array<worker::Entry>` by worker. Written by userspace.
pub const WORKERS: &str = "WORKERS";
/// `DevMapHash` by the index of the interface: those that forwarded packets leave by. Written by userspace.
pub const DEVICES: &str = "DEVICES";
/// `HashMap<u32, route::Uplink>` by the index of the interface: those that answers to clients leave by which did not come from
/// there. Written by userspace.
pub const UPLINKS: &str = "UPLINKS";
/// `PerCpuArray<u64>` by [`LeftToKernel`](crate::verdict::LeftToKernel). Written by the data path.
pub const LEFT_TO_KERNEL: &str = "LEFT_TO_KERNEL";
/// `Array<u64>`, one element: the last timer tick (`bpf_jiffies64`) at which next hops that userspace found are good. It looks
/// at routes and neighbours as long as it runs, and sets this anew each time. Written by userspace.
pub const WATCHED_UNTIL: &str = "WATCHED_UNTIL";
/// `Array<connection::Bucket4>`: flows of IPv4 clients. Written by the data path.
pub const CONNECTIONS4: &str = "CONNECTIONS4";
/// `Array<connection::Bucket6>`: flows of IPv6 clients. Written by the data path.
pub const CONNECTIONS6: &str = "CONNECTIONS6";
/// `PerCpuArray<u64>` by [`Eviction`](crate::verdict::Eviction): flows that gave their place in the connection table to others.
/// Written by the data path.
pub const EVICTIONS: &str = "EVICTIONS";
/// `Array<tenant::Tenant>`: who has which index of [`WORKERS`] and of the VIPs, for a next process. Written by userspace.
pub const TENANTS: &str = "TENANTS";
/// `PerCpuArray<u64>` by [`FlowReason`](crate::FlowReason): forwarded packets. Written by the data path.
pub const FLOWS: &str = "FLOWS";
/// `Array<maglev::Table>` by pool. Written by userspace.
pub const MAGLEV: &str = "MAGLEV";
/// `SockMap`, the listening sockets: index [`socket_index`]. Written by userspace; the kernel takes a socket
/// out when it is closed.
pub const WORKER_SOCKETS: &str = "WORKER_SOCKETS";
/// `Array<prefix_table::Bucket>`, the allow and the deny list: [`SOURCE_ALLOWED`] or [`SOURCE_DENIED`]. Written by
/// userspace.
pub const SOURCES: &str = "SOURCES";
/// `HashMap<Prefix, u32>`: what has no place in [`SOURCES`]. Written by userspace.
pub const MORE_SOURCES: &str = "MORE_SOURCES";
/// `Array<u64>`, the filter before [`SOURCES`] and [`PENALISED`]: 2^[`CELL_BITS`] cells of a byte for each. Written by
/// userspace.
pub const CELLS: &str = "CELLS";
/// `Array<u64>`, one bit for each UDP port that reflection attacks come from. Written by userspace.
pub const REFLECTION_PORTS: &str = "REFLECTION_PORTS";
/// `Array<penalty::Entry>`, in any order. Entries are written by userspace; the data path counts in them.
pub const PENALTIES: &str = "PENALTIES";
/// `Array<prefix_table::Bucket>`: where in [`PENALTIES`] a prefix's penalty is. Written by userspace.
pub const PENALISED: &str = "PENALISED";
/// `HashMap<Prefix, u32>`: what has no place in [`PENALISED`]. Written by userspace.
pub const MORE_PENALISED: &str = "MORE_PENALISED";
/// `Array<decap::Trusted>`, one element. Written by userspace.
pub const TUNNEL_PEERS: &str = "TUNNEL_PEERS";
/// `Array<syncookie::Guard>` by VIP. Written by the data path, zeroed by userspace when an index is given away.
pub const VIP_GUARDS: &str = "VIP_GUARDS";
/// `Array<u64>`: handshakes that were begun ([`Handshake`](crate::syncookie::Handshake)). Written by the data path.
pub const HANDSHAKES: &str = "HANDSHAKES";
/// `PerCpuArray<u64>` by [`ReplyReason`](crate::verdict::ReplyReason). Written by the data path.
pub const REPLIES: &str = "REPLIES";
/// `Array<flood::Set>` by the hash of the source prefix. Written by the data path.
pub const FLOOD: &str = "FLOOD";
/// `PerCpuArray<u64>` by [`PassReason`](crate::PassReason). Written by the data path.
pub const PASSES: &str = "PASSES";
/// `PerCpuArray<Drops>` by VIP. Written by the data path, zeroed by userspace when an index is given away.
pub const DROPS: &str = "DROPS";
/// `RingBuf` of [`Event`](crate::event::Event). Written by the data path.
pub const EVENTS: &str = "EVENTS";
/// `PerCpuArray<VipCounters>`. Written by the data path, zeroed by userspace when an index is given away.
pub const VIP_COUNTERS: &str = "VIP_COUNTERS";
/// `PerCpuArray<WorkerCounters>`. Written by the data path, zeroed by userspace when an index is given away.
pub const WORKER_COUNTERS: &str = "WORKER_COUNTERS";
/// `PerCpuArray<SteerCounters>`. Written by the data path.
pub const STEER_COUNTERS: &str = "STEER_COUNTERS";
/// `Array<Trace>`, one element: the last verdict. Written by a data path that was loaded to explain.
pub const TRACE: &str = "TRACE";

/// Global of the XDP program: other than 0, every verdict is written to [`TRACE`].
pub const EXPLAIN: &str = "EXPLAIN";
/// `ProgramArray`, one element: [`GENERAL_PROGRAM`]. Written by userspace.
pub const GENERAL: &str = "GENERAL";
/// XDP program of tier 1, which judges ordinary packets itself.
pub const XDP_PROGRAM: &str = "edge_xdp";
/// XDP program that [`XDP_PROGRAM`] leaves all other packets to.
pub const GENERAL_PROGRAM: &str = "edge_general";
/// XDP program that is attached nowhere: userspace asks it for routes ([`route::Lookup`](crate::route::Lookup)).
pub const ROUTE_PROGRAM: &str = "edge_route";
/// `sk_lookup` program of tier 1.
pub const STEER_PROGRAM: &str = "edge_steer";

/// Most VIPs.
pub const MAX_VIPS: u32 = 1024;
/// Most ends of tunnels.
pub const MAX_TUNNEL_ENDS: u32 = 1024;
/// Most entries of [`VIPS`]: each VIP, and one marker for each address.
pub const MAX_VIP_ENTRIES: u32 = 2 * MAX_VIPS + MAX_TUNNEL_ENDS;
/// Buckets of [`VIPS`], as a power of two: 256 kB.
pub const VIP_BUCKET_BITS: u32 = 12;
/// Most workers, of all pools together. Their indexes are 16 bits wide in the Maglev table and 12 in the connection
/// table.
pub const MAX_WORKERS: u32 = 4096;
/// Most workers of this node; theirs are the first indexes.
pub const MAX_LOCAL_WORKERS: u32 = 1024;
/// Most pools: 262 kB of Maglev table each.
pub const MAX_POOLS: u32 = 64;
/// Most virtual prefixes.
pub const MAX_VIP_PREFIXES: u32 = 1024;
/// Most interfaces that forwarded packets leave by.
pub const MAX_DEVICES: u32 = 256;
/// Most ports that workers listen on.
pub const MAX_LISTENERS: u32 = 64;
/// Elements of [`WORKER_SOCKETS`]: 8 bytes each.
pub const MAX_SOCKETS: u32 = MAX_LISTENERS * MAX_LOCAL_WORKERS;
/// Value of [`SOURCES`]: the source is exempt from the deny list, penalties and limits.
pub const SOURCE_ALLOWED: u32 = 1;
/// Value of [`SOURCES`]: the source is dropped.
pub const SOURCE_DENIED: u32 = 2;
/// Most prefixes of the allow and the deny list together. An IPv6 prefix whose length is no multiple of 4 counts up to
/// eight times.
pub const MAX_SOURCES: u32 = 131_072;
/// Buckets of [`SOURCES`], as a power of two: 4 MB.
pub const SOURCE_BUCKET_BITS: u32 = 16;
/// Cells of the filter before lists and penalties, as a power of two: 512 kB, which a core's second cache holds. 10,000
/// prefixes of /24 mark 4 % of them, 100,000 a third.
pub const CELL_BITS: u32 = 18;
/// Words of that filter.
pub const CELL_WORDS: u32 = (1 << CELL_BITS) / CELLS_PER_WORD;
/// Words of [`REFLECTION_PORTS`].
pub const PORT_WORDS: u32 = 65_536 / 64;
/// Bytes of [`EVENTS`]: about 1,500 events, which userspace fetches several times a second.
pub const EVENT_BYTES: u32 = 256 * 1024;
/// Most penalties at a time: 72 bytes each.
pub const MAX_PENALTIES: u32 = 65_536;
/// Buckets of [`PENALISED`], as a power of two: 2 MB.
pub const PENALTY_BUCKET_BITS: u32 = 15;
/// Sets of sources whose buckets are kept, as a power of two: 4 MB, for twice as many sources.
pub const FLOOD_SET_BITS: u32 = 16;

/// Size of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Name of the map.
    pub name: &'static str,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// Most entries.
    pub entries: u32,
}

/// Maps whose contents a restarted process takes over: what the data path wrote down packet by packet, and penalties,
/// whose end may lie far ahead. All others are filled from the configuration. `buckets` are those of the connection
/// tables.
#[must_use]
pub const fn handed_on(buckets: [u32; 2]) -> [Shape; 4] {
    [
        Shape {
            name: PENALTIES,
            key: size_of::<u32>(),
            value: size_of::<penalty::Entry>(),
            entries: MAX_PENALTIES,
        },
        Shape {
            name: FLOOD,
            key: size_of::<u32>(),
            value: size_of::<flood::Set>(),
            entries: 1 << FLOOD_SET_BITS,
        },
        Shape {
            name: CONNECTIONS4,
            key: size_of::<u32>(),
            value: size_of::<connection::Bucket4>(),
            entries: buckets[0],
        },
        Shape {
            name: CONNECTIONS6,
            key: size_of::<u32>(),
            value: size_of::<connection::Bucket6>(),
            entries: buckets[1],
        },
    ]
}

/// Shape of [`TENANTS`], which a next process reads where its predecessor pinned it.
pub const TENANTS_SHAPE: Shape = Shape {
    name: TENANTS,
    key: size_of::<u32>(),
    value: size_of::<tenant::Tenant>(),
    entries: tenant::ENTRIES,
};

/// Where a worker's socket for a listener's port stands in [`WORKER_SOCKETS`].
#[inline(always)]
#[must_use]
pub const fn socket_index(listener: u16, worker: u32) -> u32 {
    listener as u32 * MAX_LOCAL_WORKERS + worker
}
