//! Workers: where they are, how packets get there, and whether they take any.

use crate::{Address, assert_size};

/// Value of the map `WORKERS`: one cache line.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// Where tunnels to the worker end, or the address whose next hop is the worker.
    pub address: Address,
    /// How packets get there: one of the modes in this module.
    pub mode: u8,
    /// Whether it takes any: one of the states in this module.
    pub state: u8,
    /// What stands for the worker in the connection table ([`owner`]).
    pub owner: u16,
    /// UDP port of GUE, host byte order.
    pub port: u16,
    /// Largest IP packet on the way there, outer headers included, in bytes.
    pub mtu: u16,
    /// Index of the interface that packets leave by; 0: the one they came in by, or what the routes say.
    pub interface: u32,
    /// MAC address of the next hop; all zero: what routes and neighbours say (`bpf_fib_lookup`) for each packet.
    pub next_hop: [u8; 6],
    /// MAC address that packets leave from; all zero: the one they came to.
    pub source_mac: [u8; 6],
    /// Sum of the outer IPv4 header's words that are the same in every packet, not folded (RFC 1071).
    pub header_sum: u32,
    /// Pool that the worker belongs to.
    pub pool: u16,
    /// VLAN that packets leave in, if userspace found the next hop; 0: in none.
    pub vlan: u16,
    /// What the worker is, whatever its index: [`digest`](crate::tenant::digest) of its pool, name, address and mode, by which a
    /// restarted process knows it again in the tables of the one before.
    pub identity: u64,
    /// Who says what the next hop is: [`CONFIGURED`] or [`FOUND`].
    pub hop: u32,
    /// To a whole line.
    pub reserved: u32,
}

assert_size!(Entry = 64);

/// No worker has the index.
pub const ABSENT: u8 = 0;
/// Takes new flows.
pub const ACTIVE: u8 = 1;
/// Keeps its flows and takes no new ones.
pub const DRAINING: u8 = 2;
/// Takes nothing: its flows are given to others.
pub const DOWN: u8 = 3;

/// The configuration names the next hop, if there is one: packets leave with the VLAN tags that they came with.
pub const CONFIGURED: u32 = 0;
/// Userspace found the next hop in the kernel's tables, and follows them.
pub const FOUND: u32 = 1;

/// On this node: up the stack.
pub const LOCAL: u8 = 0;
/// In an IPv4 header, if the worker's address is one, else in an IPv6 header (RFC 2003, RFC 2473); IPv6 packets go to
/// workers with IPv6 addresses alone, unless the worker takes 6in4 (RFC 4213), which has the same form.
pub const IPIP: u8 = 1;
/// In UDP, which starts right with the inner header (GUE variant 1, draft-ietf-intarea-gue).
pub const GUE: u8 = 2;
/// As it is, to the worker's MAC address: the worker is on the segment, or an interface leads to it.
pub const L2: u8 = 3;

/// Bits of an owner that are the worker's index; the rest is the generation.
const INDEX_BITS: u32 = crate::maps::MAX_WORKERS.ilog2();

/// Generations before they come round. One less than the bits could tell, so that [`NO_OWNER`] is nobody.
pub const GENERATIONS: u16 = (1 << (16 - INDEX_BITS)) - 1;

/// An owner that no worker has.
pub const NO_OWNER: u16 = u16::MAX;

/// What stands for a worker's index in its n-th use in the connection table, so that flows of a worker that is gone are
/// not taken for those of the next that got its index.
#[must_use]
pub const fn owner(index: u16, generation: u16) -> u16 {
    index | (generation % GENERATIONS) << INDEX_BITS
}

/// The worker's index in an owner.
#[inline(always)]
#[must_use]
pub const fn index(owner: u16) -> u32 {
    owner as u32 & (crate::maps::MAX_WORKERS - 1)
}

impl Entry {
    /// Bytes that the outer headers take.
    #[inline(always)]
    #[must_use]
    pub const fn overhead(&self) -> u32 {
        let ip = if self.address.is_v4() { 20 } else { 40 };
        match self.mode {
            IPIP => ip,
            GUE => ip + 8,
            _ => 0,
        }
    }

    /// Whether packets get there in a tunnel.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_tunnel(&self) -> bool {
        matches!(self.mode, IPIP | GUE)
    }

    /// Whether it takes new flows of a pool, given by its index.
    #[inline(always)]
    #[must_use]
    pub const fn takes_new(&self, pool: u16) -> bool {
        self.state == ACTIVE && self.pool == pool
    }

    /// Whether it takes packets of flows that it has.
    #[inline(always)]
    #[must_use]
    pub const fn keeps_flows(&self) -> bool {
        matches!(self.state, ACTIVE | DRAINING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_is_nobody() {
        for generation in [0, 1, 14, 15, 16] {
            for worker in [0, 1, 4095] {
                assert_ne!(owner(worker, generation), NO_OWNER);
                assert_eq!(index(owner(worker, generation)), u32::from(worker));
            }
        }
    }
}
