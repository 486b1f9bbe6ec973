//! The data path's settings, one value of the map `CONFIG`.

use crate::prefix::Lengths;
use crate::{HashKey, assert_size, decap, flood, syncookie, tunnel, vip};

/// Settings that the stages read on each packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Key of the flow hash.
    pub hash: HashKey,
    /// Number of workers of this node: the steering program looks for another socket among them.
    pub workers: u32,
    /// Bits of the stages that have work: see the `HAS_` constants. A stage whose bit is clear costs one test.
    pub flags: u32,
    /// Limits of the flood stage.
    pub flood: flood::Limits,
    /// Lengths of the prefixes in the allow and the deny list.
    pub sources: Lengths,
    /// Lengths of the prefixes in the allow list alone.
    pub allowed: Lengths,
    /// Lengths of the prefixes that have penalties.
    pub penalties: Lengths,
    /// Limit of each VIP, and what SYN cookies offer.
    pub syn_cookies: syncookie::Settings,
    /// The virtual addresses, and the ends of tunnels.
    pub vips: vip::Filter,
    /// The virtual prefixes.
    pub vip_prefixes: vip::Filter,
    /// Both ends of tunnels.
    pub tunnel: tunnel::Settings,
    /// The buckets of the IPv4 connection table less one: a mask, because they are a power of two.
    pub connections4_mask: u32,
    /// Likewise of the IPv6 connection table.
    pub connections6_mask: u32,
    /// How long a confirmed flow that sends nothing keeps its place against new ones, in
    /// [ticks](crate::connection::ticks).
    pub idle_ticks: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
    /// Where tunnels end.
    pub decap: decap::Settings,
}

assert_size!(Config = 560);

impl Config {
    /// Set once userspace has written a configuration.
    pub const IS_CONFIGURED: u32 = 1 << 0;
    /// The flood stage has limits.
    pub const HAS_FLOOD_LIMITS: u32 = 1 << 1;
    /// The map `PENALTIES` has entries.
    pub const HAS_PENALTIES: u32 = 1 << 2;
    /// The map `SOURCES` has entries.
    pub const HAS_SOURCES: u32 = 1 << 3;
    /// The map `REFLECTION_PORTS` has bits.
    pub const HAS_REFLECTION_PORTS: u32 = 1 << 4;
    /// VIPs have a limit of new connections, or SYN cookies: one of the next three bits is set.
    pub const HAS_VIP_GUARDS: u32 = 1 << 5;
    /// VIPs have a limit of new connections.
    pub const HAS_VIP_LIMIT: u32 = 1 << 6;
    /// Every SYN is answered with a cookie.
    pub const COOKIES_ALWAYS: u32 = 1 << 7;
    /// SYNs are answered with cookies while a VIP has too many that are unanswered.
    pub const COOKIES_AUTO: u32 = 1 << 8;
    /// VIPs have port 0: they take all ports.
    pub const HAS_ALL_PORTS: u32 = 1 << 9;
    /// VIPs are prefixes: the trie `VIP_PREFIXES` has entries.
    pub const HAS_VIP_PREFIXES: u32 = 1 << 10;
    /// Tunnels end here.
    pub const HAS_TUNNELS: u32 = 1 << 20;
    /// What came by a tunnel goes up the stack as it is: the node serves the virtual addresses without gateway workers,
    /// and does nothing but to take packets out of tunnels.
    pub const IS_PLAIN_HOST: u32 = 1 << 21;

    /// Whether a bit of `flags` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}
