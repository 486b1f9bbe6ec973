//! Counters that the data path keeps per CPU and userspace adds up.

use crate::assert_size;

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
    /// Packets dropped, for whatever reason, after the VIP was known.
    pub dropped: u64,
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

assert_size!(VipCounters = 32, WorkerCounters = 24, SteerCounters = 24);
