//! Counters that the data path keeps per CPU and userspace adds up.

use crate::{DropReason, assert_size};

/// Packets dropped, by reason (map `DROPS`): element 0 is of packets whose VIP is not known, element n + 1 of VIP n.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops {
    /// Indexed by [`DropReason::index`].
    pub by_reason: [u64; Self::REASONS],
}

impl Drops {
    /// Room for reasons: a power of two, so that an index is bounded by a mask.
    pub const REASONS: usize = 64;

    /// Which element counts for a VIP.
    #[inline(always)]
    #[must_use]
    pub const fn index(vip: Option<u32>) -> u32 {
        match vip {
            Some(vip) => vip + 1,
            None => 0,
        }
    }
}

impl Default for Drops {
    fn default() -> Self {
        Self {
            by_reason: [0; Self::REASONS],
        }
    }
}

const _: () = assert!(DropReason::ALL.len() <= Drops::REASONS);

/// Traffic of one VIP (map `VIP_COUNTERS`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VipCounters {
    /// Packets delivered to a worker.
    pub packets: u64,
    /// Bytes of their frames, Ethernet header included.
    pub bytes: u64,
    /// TCP segments among them with SYN and without ACK. A SYN that the client sends again counts again.
    pub new_connections: u64,
}

/// Traffic of one worker (map `WORKER_COUNTERS`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerCounters {
    /// Packets delivered.
    pub packets: u64,
    /// Bytes of their frames, Ethernet header included.
    pub bytes: u64,
    /// TCP segments among them with SYN and without ACK. A SYN that the client sends again counts again.
    pub new_connections: u64,
}

/// The steering program's choices for one worker (map `STEER_COUNTERS`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SteerCounters {
    /// Look-ups whose flow belongs to this worker and went to its socket.
    pub steered: u64,
    /// Look-ups whose flow belongs to this worker, which had no socket, and went to another worker's.
    pub moved: u64,
    /// Look-ups whose flow belongs to this worker, and no worker tried had a socket: the client is refused.
    pub no_socket: u64,
}

assert_size!(
    VipCounters = 24,
    Drops = 512,
    WorkerCounters = 24,
    SteerCounters = 24
);
