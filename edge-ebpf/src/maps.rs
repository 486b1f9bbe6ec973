//! Every map. What it holds and who writes it stands beside its name in `edge_common::maps`.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, PerCpuArray, ProgramArray, RingBuf, SockMap};
use edge_common::connection::{Bucket4, Bucket6};
use edge_common::counter::{Drops, SteerCounters, VipCounters, WorkerCounters};
use edge_common::flood;
use edge_common::maglev::Table;
use edge_common::maps::{
    CELL_WORDS, EVENT_BYTES, FLOOD_SET_BITS, MAX_DEVICES, MAX_PENALTIES, MAX_POOLS, MAX_SOCKETS, MAX_SOURCES,
    MAX_VIP_ENTRIES, MAX_VIP_PREFIXES, MAX_VIPS, MAX_WORKERS, PENALTY_BUCKET_BITS, PORT_WORDS,
    SOURCE_BUCKET_BITS, VIP_BUCKET_BITS,
};
use edge_common::prefix::Prefix;
use edge_common::prefix_table::Bucket;
use edge_common::route::Uplink;
use edge_common::syncookie::{Guard, HANDSHAKE_BITS};
use edge_common::tenant::{self, Tenant};
use edge_common::verdict::{Eviction, LeftToKernel, ReplyReason, Trace};
use edge_common::{
    Address, Config, DropReason, FlowReason, PassReason, decap, penalty, vip, vip_table, worker,
};

use crate::clock::Reading;
use crate::log_limit;
use crate::stage::syncookie::Scratch;
use crate::stage::too_big;
use crate::state::Packet;

/// Flag of an array whose elements begin on a page, and so, if they are 64 bytes, each on a cache line of its own. The
/// kernel lays any other array right behind the map's own structure.
const ON_PAGES: u32 = BPF_F_MMAPABLE;

// Written by userspace.

#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static VIPS: Array<vip_table::Bucket> = Array::with_max_entries(1 << VIP_BUCKET_BITS, ON_PAGES);
#[map]
pub(crate) static MORE_VIPS: HashMap<vip::Key, vip::Entry> = HashMap::with_max_entries(MAX_VIP_ENTRIES, 0);
#[map]
pub(crate) static MAGLEV: Array<Table> = Array::with_max_entries(MAX_POOLS, 0);
#[map]
pub(crate) static WORKER_SOCKETS: SockMap = SockMap::with_max_entries(MAX_SOCKETS, 0);
#[map]
pub(crate) static SOURCES: Array<Bucket> = Array::with_max_entries(1 << SOURCE_BUCKET_BITS, ON_PAGES);
#[map]
pub(crate) static MORE_SOURCES: HashMap<Prefix, u32> =
    HashMap::with_max_entries(MAX_SOURCES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CELLS: Array<u64> = Array::with_max_entries(CELL_WORDS, 0);
#[map]
pub(crate) static REFLECTION_PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);
#[map]
pub(crate) static PENALTIES: Array<penalty::Entry> = Array::with_max_entries(MAX_PENALTIES, ON_PAGES);
#[map]
pub(crate) static PENALISED: Array<Bucket> = Array::with_max_entries(1 << PENALTY_BUCKET_BITS, ON_PAGES);
#[map]
pub(crate) static MORE_PENALISED: HashMap<Prefix, u32> =
    HashMap::with_max_entries(MAX_PENALTIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static TENANTS: Array<Tenant> = Array::with_max_entries(tenant::ENTRIES, 0);
#[map]
pub(crate) static TUNNEL_PEERS: Array<decap::Trusted> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static VIP_PREFIXES: LpmTrie<Address, u32> =
    LpmTrie::with_max_entries(MAX_VIP_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static WORKERS: Array<worker::Entry> = Array::with_max_entries(MAX_WORKERS, ON_PAGES);
#[map]
pub(crate) static DEVICES: DevMapHash = DevMapHash::with_max_entries(MAX_DEVICES, 0);
#[map]
pub(crate) static UPLINKS: HashMap<u32, Uplink> = HashMap::with_max_entries(MAX_DEVICES, 0);
#[map]
pub(crate) static WATCHED_UNTIL: Array<u64> = Array::with_max_entries(1, 0);
/// One element: the program of the general way.
#[map]
pub(crate) static GENERAL: ProgramArray = ProgramArray::with_max_entries(1, 0);

// Written by the data path.

/// One element: the packet in work.
#[map]
pub(crate) static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);
/// Userspace sets the number of buckets. Memory that can be mapped is aligned to pages, so that a bucket is a cache line.
#[map]
pub(crate) static CONNECTIONS4: Array<Bucket4> = Array::with_max_entries(1, ON_PAGES);
#[map]
pub(crate) static CONNECTIONS6: Array<Bucket6> = Array::with_max_entries(1, ON_PAGES);
#[map]
pub(crate) static EVICTIONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Eviction::ALL.len() as u32, 0);
#[map]
pub(crate) static FLOWS: PerCpuArray<u64> = PerCpuArray::with_max_entries(FlowReason::ALL.len() as u32, 0);

#[map]
pub(crate) static FLOOD: Array<flood::Set> = Array::with_max_entries(1 << FLOOD_SET_BITS, ON_PAGES);
#[map]
pub(crate) static VIP_GUARDS: Array<Guard> = Array::with_max_entries(MAX_VIPS, 0);
#[map]
pub(crate) static HANDSHAKES: Array<u64> = Array::with_max_entries(1 << HANDSHAKE_BITS, 0);
/// One element: headers that the SYN cookie stage works on.
#[map]
pub(crate) static SYN_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// One element: an ICMP error that is written.
#[map]
pub(crate) static ICMP_SCRATCH: PerCpuArray<too_big::Scratch> = PerCpuArray::with_max_entries(1, 0);
/// One element: when this CPU's bucket of ICMP errors is full again.
#[map]
pub(crate) static ICMP_LIMIT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static REPLIES: PerCpuArray<u64> = PerCpuArray::with_max_entries(ReplyReason::ALL.len() as u32, 0);
#[map]
pub(crate) static LEFT_TO_KERNEL: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(LeftToKernel::ALL.len() as u32, 0);
#[map]
pub(crate) static PASSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(PassReason::ALL.len() as u32, 0);
#[map]
pub(crate) static DROPS: PerCpuArray<Drops> = PerCpuArray::with_max_entries(MAX_VIPS + 1, 0);
/// One element: the clock as this CPU last read it.
#[map]
pub(crate) static CLOCK: PerCpuArray<Reading> = PerCpuArray::with_max_entries(1, 0);
/// One element: timer tick at which a list or a penalty last refused a packet.
#[map]
pub(crate) static REFUSED_AT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Timer tick of the last event of each reason.
#[map]
pub(crate) static SAMPLED_AT: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(DropReason::ALL.len() as u32, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
#[map]
pub(crate) static VIP_COUNTERS: PerCpuArray<VipCounters> = PerCpuArray::with_max_entries(MAX_VIPS, 0);
#[map]
pub(crate) static WORKER_COUNTERS: PerCpuArray<WorkerCounters> =
    PerCpuArray::with_max_entries(MAX_WORKERS, 0);
#[map]
pub(crate) static STEER_COUNTERS: PerCpuArray<SteerCounters> = PerCpuArray::with_max_entries(MAX_WORKERS, 0);
#[map]
pub(crate) static TRACE: Array<Trace> = Array::with_max_entries(1, 0);
/// Time of the last message of each kind, in nanoseconds of the coarse clock.
#[map]
pub(crate) static LOGGED_AT: PerCpuArray<u64> = PerCpuArray::with_max_entries(log_limit::KINDS, 0);
