//! Tunnels that end at this node.

use std::net::IpAddr;

use crate::Prefix;

/// What is taken out of tunnels that load balancers send to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnels {
    /// Own addresses at which tunnels end whose packets are for this node; none of them is a virtual address.
    pub endpoints: Vec<IpAddr>,
    /// Own addresses at which tunnels end whose packets go on to workers of pools, as if they came from the client; none of
    /// them is a virtual address or one of `endpoints`.
    pub relays: Vec<IpAddr>,
    /// Sources that tunnels are accepted from, and nodes that a packet may be sent on to; none: any source, and no
    /// packet is sent on.
    pub trusted: Vec<Prefix>,
    /// UDP port of GUE.
    pub gue_port: u16,
    /// What takes the packets.
    pub role: TunnelRole,
}

/// What takes the packets that were in tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelRole {
    /// The gateway workers of this node.
    Gateway,
    /// Servers of this host that are none of edge's, which have these virtual addresses on its loopback.
    PlainHost {
        /// The addresses; packets in tunnels for any other are dropped.
        addresses: Vec<IpAddr>,
    },
}
