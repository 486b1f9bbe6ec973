//! Settings of the tunnels that carry packets to workers elsewhere and from other nodes to this one.

use crate::assert_size;

/// UDP port of GUE that IANA has assigned.
pub const GUE_PORT: u16 = 6080;

/// Time to live and hop limit of outer headers.
pub const TTL: u8 = 64;

/// Bits of the traffic class of packets that a worker handed on to a slot's previous owner: they are not handed on
/// once more. (A DSCP of its own, RFC 2474 pool 2: local use.)
pub const SECOND_HOP_TOS: u8 = 0b0000_1100;

/// What the tunnels' outer headers have in common.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// First outer source address of IPv4 tunnels, network byte order.
    pub source4: u32,
    /// Its bits that a flow's hash chooses, network byte order: receivers spread flows of different sources.
    pub source4_bits: u32,
    /// First outer source address of IPv6 tunnels, network byte order.
    pub source6: [u32; 4],
    /// Bits of the last word that a flow's hash chooses, network byte order.
    pub source6_bits: u32,
    /// Port of GUE packets that are decapsulated here.
    pub port: u32,
}

assert_size!(Settings = 32);
