//! Penalties: sources that tier 2 asked tier 1 to drop.

use crate::assert_size;

/// Value of the map `PENALTIES`; its key is the source's full [`Address`](crate::Address).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// When the penalty ends: CLOCK_MONOTONIC, nanoseconds. The data path checks it, so a penalty ends in time
    /// even if userspace does not come to remove the entry.
    pub until_ns: u64,
    /// Packets dropped. All CPUs add to it atomically.
    pub dropped: u64,
    /// Why it was given; only userspace reads it.
    pub reason: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
}

assert_size!(Entry = 24);
