//! Tunnels that end here: what a load balancer puts around a packet for its worker, and what is taken off again.
//!
//! Understood are IP in IP of either family in either (RFC 2003, RFC 2473, RFC 4213) and GUE
//! (draft-ietf-intarea-gue) in variant 1, where the packet follows the UDP header, and in variant 0, where a header of
//! its own comes between. What comes out of a tunnel goes to this node, and has one hop less to live (RFC 2003 3.1: a
//! tunnel is a hop), so that no packet goes round for ever, however nodes are configured. There are two exceptions.
//!
//! An endpoint may be a relay ([`Settings::relays`]): what comes out there is balanced as if it came from the client.
//!
//! And a tunnel may hold another ([`nested`]): a balancer that does not know a connection sends its packets to the worker
//! that is selected now, in a tunnel, around another tunnel, to the worker that was selected before. The first that has
//! the connection takes the packet; there is no third.

use crate::cursor::{Cursor, Window};
use crate::header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, UDP_LEN, Udp};
use crate::{Address, DropReason, UDP, assert_size, checksum};

/// IANA protocol number of IPv4 in IP.
pub const IPV4_IN_IP: u8 = 4;
/// IANA protocol number of IPv6 in IP.
pub const IPV6_IN_IP: u8 = 41;
/// UDP port of GUE that is registered with IANA.
pub const GUE_PORT: u16 = 6080;

/// Most own addresses that tunnels end at.
pub const MAX_ENDPOINTS: usize = 4;
/// Most prefixes that tunnels are accepted from.
pub const MAX_TRUSTED: usize = 32;

/// Where tunnels end, a part of [`Config`](crate::Config).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Own addresses; places that are not needed repeat the first.
    pub endpoints: [Address; MAX_ENDPOINTS],
    /// UDP port of GUE.
    pub gue_port: u32,
    /// Number of prefixes in [`Trusted`]; 0: any source may send.
    pub trusted: u32,
    /// One bit for each of `endpoints`, the lowest for the first: it is a relay, and what comes out of tunnels to it is
    /// balanced over the VIP's workers, wherever they are.
    pub relays: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
}

/// A prefix as two words to compare with: an address is in it if it agrees where the mask has ones.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// The address, zero where the mask is.
    pub address: Address,
    /// Ones for the bits of the prefix.
    pub mask: Address,
}

/// Who may send here through a tunnel: the one value of the map `TUNNEL_PEERS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trusted {
    /// Prefixes; the first [`Settings::trusted`] count.
    pub peers: [Peer; MAX_TRUSTED],
}

assert_size!(Settings = 80, Peer = 32, Trusted = 1024);

impl Settings {
    /// Whether a packet to this address may be a tunnel's.
    #[inline(always)]
    #[must_use]
    pub fn ends_at(&self, address: &Address) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint == address)
    }

    /// Whether an endpoint is a relay.
    #[inline(always)]
    #[must_use]
    pub fn relays_at(&self, address: &Address) -> bool {
        let mut bits = self.relays;
        for endpoint in &self.endpoints {
            if bits & 1 != 0 && endpoint == address {
                return true;
            }
            bits >>= 1;
        }
        false
    }
}

impl Peer {
    /// Of an address and the length of its prefix, of 128.
    #[must_use]
    pub const fn new(address: Address, len: u32) -> Self {
        Self {
            address: address.masked(len),
            mask: Address([u32::MAX; 4]).masked(len),
        }
    }

    /// Whether an address is in the prefix.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, address: Address) -> bool {
        let ([a, b, c, d], [e, f, g, h], [k, l, m, n]) = (self.address.0, self.mask.0, address.0);
        (k & e ^ a) | (l & f ^ b) | (m & g ^ c) | (n & h ^ d) == 0
    }
}

/// The headers around a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Who sent it through the tunnel.
    pub source: Address,
    /// The end of the tunnel.
    pub destination: Address,
    /// Bytes of all headers that the tunnel has put before the packet.
    pub len: usize,
    /// Bytes behind them, by their own account.
    pub payload_len: usize,
    /// Congestion mark (RFC 3168): the lowest two bits of the traffic class.
    pub ecn: u32,
    /// Whether the packet inside is IPv6.
    pub is_inner_v6: bool,
}

/// What of a packet in a tunnel must be known to decide about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// Who it is from: the client.
    pub source: Address,
    /// Whom it is for: a VIP.
    pub destination: Address,
    /// Protocol of its payload; for IPv6 perhaps the type of an extension header.
    pub protocol: u32,
    /// Bytes of it, by its own account.
    pub len: usize,
    /// Congestion mark.
    pub ecn: u32,
    /// Time to live or hop limit, as it came.
    pub hops: u32,
    /// Whether the payload follows the fixed header, and is all of it.
    pub is_plain: bool,
}

impl Inner {
    /// Whether the tunnel was its last hop.
    #[inline(always)]
    #[must_use]
    pub const fn is_expired(&self) -> bool {
        self.hops <= 1
    }
}

/// Congestion mark of a router that had to mark the packet.
pub const CONGESTION_EXPERIENCED: u32 = 3;

/// Reads the headers of a tunnel. The cursor stands behind the link header and then before the packet inside. `None` if
/// it is no tunnel that ends here: to another address, of another protocol, or to another UDP port.
///
/// # Errors
/// The rule that the tunnel breaks. An IPv4 header is checked to its checksum, because no stack will see it.
#[inline(always)]
pub fn outer(
    cursor: &mut impl Cursor,
    ethertype: u16,
    settings: &Settings,
) -> Result<Option<Outer>, DropReason> {
    let (mut outer, protocol) = match ethertype {
        ETHERTYPE_IPV4 => {
            let Some(window) = cursor.take::<IPV4_LEN>() else {
                return Ok(None);
            };
            if !matches!(window.byte::<9>(), IPV4_IN_IP | IPV6_IN_IP | UDP)
                || !settings.ends_at(&Ipv4(window).destination())
            {
                return Ok(None);
            }
            ipv4(window, cursor.remaining())?
        }
        ETHERTYPE_IPV6 => {
            let Some(window) = cursor.take::<IPV6_LEN>() else {
                return Ok(None);
            };
            if !matches!(window.byte::<6>(), IPV4_IN_IP | IPV6_IN_IP | UDP)
                || !settings.ends_at(&Ipv6(window).destination())
            {
                return Ok(None);
            }
            ipv6(window, cursor.remaining())?
        }
        _ => return Ok(None),
    };
    match protocol {
        IPV4_IN_IP => Ok(Some(outer)),
        IPV6_IN_IP => {
            outer.is_inner_v6 = true;
            Ok(Some(outer))
        }
        UDP => gue(cursor, outer, Some(settings.gue_port)),
        _ => Ok(None),
    }
}

/// An outer IPv4 header. Tunnels have neither options nor fragments: a load balancer writes none, and behind a fragment
/// there would be no packet to judge.
#[inline(always)]
fn ipv4(window: impl Window, remaining: usize) -> Result<(Outer, u8), DropReason> {
    let header = Ipv4(window);
    if header.version() != 4 {
        return Err(DropReason::BadIpv4Version);
    }
    let total_len = header.total_len();
    if total_len < IPV4_LEN {
        return Err(DropReason::BadIpv4HeaderLength);
    }
    if total_len - IPV4_LEN > remaining {
        return Err(DropReason::BadIpv4TotalLength);
    }
    let outer = Outer {
        source: header.source(),
        destination: header.destination(),
        len: IPV4_LEN,
        payload_len: total_len - IPV4_LEN,
        ecn: u32::from(window.byte::<1>()) & 3,
        is_inner_v6: false,
    };
    let protocol = header.protocol();
    // The node's own datagrams may come with options and in fragments.
    if header.is_fragment() {
        return if protocol == UDP {
            Ok((outer, 0))
        } else {
            Err(DropReason::TunnelFragment)
        };
    }
    if header.header_len() != IPV4_LEN {
        return if protocol == UDP {
            Ok((outer, 0))
        } else {
            Err(DropReason::TunnelOptions)
        };
    }
    if !is_checksum_right(window) {
        return Err(DropReason::TunnelChecksum);
    }
    Ok((outer, protocol))
}

/// RFC 1071: the sum of all words, checksum included, is all ones.
#[inline(always)]
fn is_checksum_right(window: impl Window) -> bool {
    let sum = u64::from(window.word::<0>())
        + u64::from(window.word::<4>())
        + u64::from(window.word::<8>())
        + u64::from(window.word::<12>())
        + u64::from(window.word::<16>());
    checksum::of(sum) == 0
}

#[inline(always)]
fn ipv6(window: impl Window, remaining: usize) -> Result<(Outer, u8), DropReason> {
    let header = Ipv6(window);
    if header.version() != 6 {
        return Err(DropReason::BadIpv6Version);
    }
    if header.payload_len() > remaining {
        return Err(DropReason::BadIpv6PayloadLength);
    }
    let outer = Outer {
        source: header.source(),
        destination: header.destination(),
        len: IPV6_LEN,
        payload_len: header.payload_len(),
        ecn: u32::from(window.byte::<1>()) >> 4 & 3,
        is_inner_v6: false,
    };
    Ok((outer, header.next_header()))
}

/// Reads the headers of a tunnel that a tunnel holds. The cursor stands behind the outer headers and then before the packet
/// that both are around. Its own headers are those that another node's [`outer`] would find; the UDP port is that node's, so
/// it is not looked at.
///
/// # Errors
/// [`DropReason::TunnelInner`] for what is no tunnel, and what [`inner`] says of any packet.
#[inline(always)]
pub fn nested(cursor: &mut impl Cursor, around: &Outer) -> Result<(Inner, Outer), DropReason> {
    let as_packet = inner(cursor, around)?;
    if !as_packet.is_plain {
        return Err(DropReason::TunnelInner);
    }
    let header_len = if around.is_inner_v6 { IPV6_LEN } else { IPV4_LEN };
    let outer = Outer {
        source: as_packet.source,
        destination: as_packet.destination,
        len: header_len,
        payload_len: as_packet.len - header_len,
        ecn: as_packet.ecn,
        is_inner_v6: as_packet.protocol == IPV6_IN_IP as u32,
    };
    let outer = match as_packet.protocol as u8 {
        IPV4_IN_IP | IPV6_IN_IP => outer,
        // A datagram of another kind is no tunnel, and was not sent by a balancer.
        UDP => match gue(cursor, outer, None) {
            Ok(Some(outer)) => outer,
            Ok(None) | Err(_) => return Err(DropReason::TunnelInner),
        },
        _ => return Err(DropReason::TunnelInner),
    };
    Ok((as_packet, outer))
}

/// Whether a packet that came out of a tunnel may be one, by its protocol.
#[inline(always)]
#[must_use]
pub const fn may_be_tunnel(protocol: u32) -> bool {
    matches!(protocol as u8, IPV4_IN_IP | IPV6_IN_IP | UDP)
}

/// GUE, if the datagram is to its port; without one, to any. The checksum of the datagram is left alone: most senders
/// write none (RFC 6935 for IPv6), and the packet inside has its own.
#[inline(always)]
fn gue(cursor: &mut impl Cursor, mut outer: Outer, port: Option<u32>) -> Result<Option<Outer>, DropReason> {
    let udp = Udp(cursor.take::<UDP_LEN>().ok_or(DropReason::TruncatedUdp)?);
    if port.is_some_and(|port| u32::from(udp.destination_port()) != port) {
        return Ok(None);
    }
    let mut payload_len = udp.length();
    if payload_len < UDP_LEN || payload_len > outer.payload_len {
        return Err(DropReason::BadUdpLength);
    }
    payload_len -= UDP_LEN;
    outer.len += UDP_LEN;
    let first = cursor.peek().ok_or(DropReason::TunnelHeader)?;
    match first >> 4 {
        4 => {}
        6 => outer.is_inner_v6 = true,
        // Variant 0: control bit and length of the optional fields in words, then the protocol.
        0..=3 => {
            let header = cursor.take::<GUE_LEN>().ok_or(DropReason::TunnelHeader)?;
            let words = (header.byte::<0>() & 0x1f) as usize;
            let is_control = header.byte::<0>() & 0x20 != 0;
            let len = GUE_LEN + words * 4;
            if is_control || len > payload_len {
                return Err(DropReason::TunnelHeader);
            }
            match header.byte::<1>() {
                IPV4_IN_IP => {}
                IPV6_IN_IP => outer.is_inner_v6 = true,
                _ => return Err(DropReason::TunnelHeader),
            }
            cursor.skip(words * 4);
            payload_len -= len;
            outer.len += len;
        }
        _ => return Err(DropReason::TunnelHeader),
    }
    outer.payload_len = payload_len;
    Ok(Some(outer))
}

/// Length of the fixed part of GUE's header in variant 0.
const GUE_LEN: usize = 4;

/// Reads the header of the packet in a tunnel.
///
/// # Errors
/// [`DropReason::TunnelInner`] for what is no IP packet, or longer than the tunnel that it came by;
/// [`DropReason::TunnelTtl`] for one that is past its end (one at its last hop is [`Inner::is_expired`]);
/// [`DropReason::TunnelCongestion`] where a router marked the tunnel's header and the packet cannot carry the mark
/// (RFC 6040 4.2).
#[inline(always)]
pub fn inner(cursor: &mut impl Cursor, outer: &Outer) -> Result<Inner, DropReason> {
    let inner = if outer.is_inner_v6 {
        let window = cursor.take::<IPV6_LEN>().ok_or(DropReason::TunnelInner)?;
        let header = Ipv6(window);
        if header.version() != 6 {
            return Err(DropReason::TunnelInner);
        }
        Inner {
            source: header.source(),
            destination: header.destination(),
            protocol: u32::from(header.next_header()),
            len: IPV6_LEN + header.payload_len(),
            ecn: u32::from(window.byte::<1>()) >> 4 & 3,
            hops: u32::from(window.byte::<7>()),
            is_plain: true,
        }
    } else {
        let window = cursor.take::<IPV4_LEN>().ok_or(DropReason::TunnelInner)?;
        let header = Ipv4(window);
        if header.version() != 4 || header.total_len() < IPV4_LEN {
            return Err(DropReason::TunnelInner);
        }
        Inner {
            source: header.source(),
            destination: header.destination(),
            protocol: u32::from(header.protocol()),
            len: header.total_len(),
            ecn: u32::from(window.byte::<1>()) & 3,
            hops: u32::from(window.byte::<8>()),
            is_plain: header.header_len() == IPV4_LEN && !header.is_fragment(),
        }
    };
    if inner.len > outer.payload_len {
        return Err(DropReason::TunnelInner);
    }
    if inner.hops == 0 {
        return Err(DropReason::TunnelTtl);
    }
    if outer.ecn == CONGESTION_EXPERIENCED && inner.ecn == 0 {
        return Err(DropReason::TunnelCongestion);
    }
    Ok(inner)
}

#[cfg(test)]
mod tests;
