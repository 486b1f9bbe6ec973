//! The data path's settings, one value of the map `CONFIG`.

use crate::{HashKey, assert_size, flood, vip};

/// Settings that the stages read on each packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Key of the flow hash.
    pub hash: HashKey,
    /// Number of workers: the steering program looks for another socket among them.
    pub workers: u32,
    /// Bits of the stages that have work: see the `HAS_` constants. A stage whose bit is clear costs one test.
    pub flags: u32,
    /// Limits of the flood stage.
    pub flood: flood::Limits,
    /// The virtual addresses.
    pub vips: vip::Filter,
}

assert_size!(Config = 208);

impl Config {
    /// Set once userspace has written a configuration.
    pub const IS_CONFIGURED: u32 = 1 << 0;
    /// The flood stage has limits.
    pub const HAS_FLOOD_LIMITS: u32 = 1 << 1;
    /// The map `PENALTIES` has entries.
    pub const HAS_PENALTIES: u32 = 1 << 2;

    /// Whether a bit of `flags` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}
