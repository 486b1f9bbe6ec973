//! What the kernel's routes and neighbours say of an address, as userspace asks it of the data path's own program: so
//! both get the same answer, whatever rules and tables there are.

use crate::{Address, assert_size};

/// The frame that [`ROUTE_PROGRAM`](crate::maps::ROUTE_PROGRAM) is run on: a question, which becomes its answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lookup {
    /// Address that is asked for.
    pub address: Address,
    /// Where the frame would go first: to the address itself, or to a router.
    pub next_hop: Address,
    /// Index of the interface that the frame would leave by.
    pub interface: u32,
    /// What `bpf_fib_lookup` answered: [`FOUND`], [`NO_NEIGHBOUR`] or another of its numbers (`BPF_FIB_LKUP_RET_*`);
    /// negative if it was asked something that it does not know.
    pub answer: i32,
    /// MAC addresses as they stand in a frame: the next hop's, then the interface's own.
    pub macs: [u8; 12],
    /// To a multiple of eight bytes.
    pub padding: u32,
    /// Time of the answer: timer ticks since the kernel's start (`bpf_jiffies64`).
    pub now: u64,
}

assert_size!(Lookup = 64);

/// Value of the map `UPLINKS`, by the index of an interface: answers to clients may leave by it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uplink {
    /// Largest segment that the kernel would offer to a client whose route leaves by it, over IPv4: the least of all such
    /// routes.
    pub mss4: u16,
    /// Likewise over IPv6.
    pub mss6: u16,
}

assert_size!(Uplink = 4);

/// Index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX` in the kernel). A look-up of routes for
/// packets that come by it is that for packets which the node itself sends (`ip_route_output_key_hash_rcu`).
pub const LOOPBACK: u32 = 1;

/// The next hop and its MAC address are known.
pub const FOUND: i32 = 0;
/// The node forwards nothing that comes by the interface (`net.ipv4.conf.*.forwarding`).
pub const FORWARDING_IS_OFF: i32 = 5;
/// The next hop is known, and its MAC address is not.
pub const NO_NEIGHBOUR: i32 = 7;
