//! From a frame to the fields that the stages ask for: Ethernet, VLAN, IPv4, IPv6, TCP, UDP.
//!
//! In two steps, because a packet for no VIP needs only the first: [`network`] up to the addresses, and
//! [`transport`] from there to the ports. Only what is certainly malformed is refused; checksums are the
//! business of the stack that takes the packet.

use crate::cursor::Cursor;
use crate::header::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, EXTENSION_LEN, Ethernet,
    Extension, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, TCP_LEN, Tcp, UDP_LEN, Udp, VLAN_LEN, Vlan, extension,
};
use crate::{Address, DropReason, Flow, ICMP, ICMPV6, PassReason, TCP, UDP, Verdict};

/// VLAN tags that are looked behind: one, or QinQ's two.
const MAX_VLAN_TAGS: usize = 2;

/// IPv6 extension headers that are walked over. RFC 8200 4.1 recommends an order with each kind at most once
/// and destination options twice, which makes five with a fragment header.
const MAX_EXTENSIONS: usize = 5;

/// What the IP header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol of the payload; for IPv6 perhaps the type of an extension header.
    next_header: u8,
    /// Bytes after the IP header, by its own account; padding of short frames is not among them.
    payload_len: usize,
    header_len: usize,
    is_v6: bool,
    is_fragment: bool,
    has_options: bool,
}

impl Network {
    /// Whether the transport header stands right behind the fixed IP header.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        if self.is_v6 {
            matches!(self.next_header, TCP | UDP)
        } else {
            !self.has_options
        }
    }

    /// Protocol of the payload; for IPv6 perhaps the type of an extension header.
    #[inline(always)]
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.next_header
    }

    /// Whether the IPv4 header has options.
    #[inline(always)]
    #[must_use]
    pub const fn has_options(&self) -> bool {
        self.has_options
    }

    /// Length of the IP header, IPv4 options included and IPv6 extension headers not.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes after the IP header, by its own account.
    #[inline(always)]
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Whether an IPv4 header says that this is a part of a datagram. IPv6 says so in an extension header.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.is_fragment
    }

    /// Whether the header is IPv6's, whatever the addresses in it.
    #[inline(always)]
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.is_v6
    }
}

/// What the transport header says.
///
/// Fields are as wide as registers: the compiler packs narrow ones into one integer on their way out of a function,
/// and unpacks them on paths where the integer holds something else, which the verifier refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Source port.
    pub source_port: u32,
    /// Destination port.
    pub destination_port: u32,
    /// [`TCP`] or [`UDP`].
    pub protocol: u32,
    /// Flags of a TCP segment (`malformed::tcp_flags`); 0 for UDP.
    pub tcp_flags: u32,
    /// Length of the header, in bytes.
    pub header_len: u32,
    /// Sequence number of a TCP segment; 0 for UDP.
    pub sequence: u32,
    /// TCP with SYN and without ACK.
    pub opens_connection: bool,
}

impl Transport {
    /// Length of the part of the header that has no options, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn fixed_len(&self) -> u32 {
        if self.protocol == TCP as u32 {
            TCP_LEN as u32
        } else {
            UDP_LEN as u32
        }
    }
}

/// The 5-tuple of a parsed packet.
#[inline(always)]
#[must_use]
pub const fn flow(network: &Network, transport: &Transport) -> Flow {
    Flow {
        source: network.source,
        destination: network.destination,
        source_port: transport.source_port as u16,
        destination_port: transport.destination_port as u16,
        protocol: transport.protocol as u8,
    }
}

/// Reads the link and IP headers. The cursor then stands behind the IPv4 options or the IPv6 header.
///
/// # Errors
/// The packet's verdict, if it is decided: no IP passes, a malformed IP header drops.
#[inline(always)]
pub fn network(cursor: &mut impl Cursor) -> Result<Network, Verdict> {
    match ethertype(cursor)? {
        ETHERTYPE_IPV4 => ipv4(cursor).map_err(Verdict::drop),
        ETHERTYPE_IPV6 => ipv6(cursor).map_err(Verdict::drop),
        _ => Err(Verdict::Pass(PassReason::NotIp)),
    }
}

/// Reads the transport header of a packet whose IP header was read.
///
/// # Errors
/// The packet's verdict, should its destination be a virtual address: another protocol passes, a fragment or a
/// malformed header drops.
#[inline(always)]
pub fn transport(cursor: &mut impl Cursor, network: &Network) -> Result<Transport, Verdict> {
    let Payload {
        protocol,
        len,
        is_fragment,
    } = if network.is_v6 {
        skip_extensions(cursor, network).map_err(Verdict::drop)?
    } else {
        Payload {
            protocol: network.next_header,
            len: network.payload_len,
            is_fragment: network.is_fragment,
        }
    };
    match protocol {
        ICMP | ICMPV6 => Err(Verdict::Pass(PassReason::OtherProtocol)),
        _ if is_fragment => Err(Verdict::drop(DropReason::Fragment)),
        TCP => tcp(cursor, len).map_err(Verdict::drop),
        UDP => udp(cursor, len).map_err(Verdict::drop),
        _ => Err(Verdict::Pass(PassReason::OtherProtocol)),
    }
}

/// Reads the link header: the EtherType behind up to two VLAN tags.
///
/// # Errors
/// A frame that ends in it drops.
#[inline(always)]
pub fn ethertype(cursor: &mut impl Cursor) -> Result<u16, Verdict> {
    let ethernet = cursor
        .take::<ETHERNET_LEN>()
        .ok_or(Verdict::drop(DropReason::TruncatedEthernet))?;
    let mut ethertype = Ethernet(ethernet).ethertype();
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ) {
            break;
        }
        let tag = cursor
            .take::<VLAN_LEN>()
            .ok_or(Verdict::drop(DropReason::TruncatedVlan))?;
        ethertype = Vlan(tag).ethertype();
    }
    Ok(ethertype)
}

#[inline(always)]
fn ipv4(cursor: &mut impl Cursor) -> Result<Network, DropReason> {
    let network = ipv4_fixed(cursor)?;
    if network.has_options {
        cursor.skip(network.header_len - IPV4_LEN);
    }
    Ok(network)
}

/// Reads the fixed part of an IPv4 header. Options are still before the cursor then; they lie in the frame.
///
/// # Errors
/// Why the packet is to drop: the header is malformed.
#[inline(always)]
pub fn ipv4_fixed(cursor: &mut impl Cursor) -> Result<Network, DropReason> {
    let header = Ipv4(cursor.take::<IPV4_LEN>().ok_or(DropReason::TruncatedIpv4)?);
    if header.version() != 4 {
        return Err(DropReason::BadIpv4Version);
    }
    let (header_len, total_len) = (header.header_len(), header.total_len());
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(DropReason::BadIpv4HeaderLength);
    }
    let remaining = cursor.remaining();
    if header_len - IPV4_LEN > remaining {
        return Err(DropReason::TruncatedIpv4);
    }
    if total_len - IPV4_LEN > remaining {
        return Err(DropReason::BadIpv4TotalLength);
    }
    Ok(Network {
        source: header.source(),
        destination: header.destination(),
        next_header: header.protocol(),
        payload_len: total_len - header_len,
        header_len,
        is_v6: false,
        is_fragment: header.is_fragment(),
        has_options: header_len > IPV4_LEN,
    })
}

/// Reads an IPv6 header, without the extensions behind it.
///
/// # Errors
/// Why the packet is to drop: the header is malformed.
#[inline(always)]
pub fn ipv6(cursor: &mut impl Cursor) -> Result<Network, DropReason> {
    let header = Ipv6(cursor.take::<IPV6_LEN>().ok_or(DropReason::TruncatedIpv6)?);
    if header.version() != 6 {
        return Err(DropReason::BadIpv6Version);
    }
    if header.payload_len() > cursor.remaining() {
        return Err(DropReason::BadIpv6PayloadLength);
    }
    Ok(Network {
        source: header.source(),
        destination: header.destination(),
        next_header: header.next_header(),
        payload_len: header.payload_len(),
        header_len: IPV6_LEN,
        is_v6: true,
        is_fragment: false,
        has_options: false,
    })
}

/// What is behind the IP header and its extensions.
#[derive(Clone, Copy)]
pub(crate) struct Payload {
    protocol: u8,
    len: usize,
    pub(crate) is_fragment: bool,
}

/// Walks over the extensions of an IPv6 packet, behind whose header the cursor stands.
#[inline(always)]
pub(crate) fn skip_extensions(cursor: &mut impl Cursor, network: &Network) -> Result<Payload, DropReason> {
    let mut payload = Payload {
        protocol: network.next_header,
        len: network.payload_len,
        is_fragment: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(payload.protocol) || payload.is_fragment {
            return Ok(payload);
        }
        payload = skip_extension(cursor, payload)?;
    }
    if is_extension(payload.protocol) {
        Err(DropReason::Ipv6ExtensionLimit)
    } else {
        Ok(payload)
    }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    use extension::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

#[inline(always)]
fn skip_extension(cursor: &mut impl Cursor, payload: Payload) -> Result<Payload, DropReason> {
    let header = Extension(
        cursor
            .take::<EXTENSION_LEN>()
            .ok_or(DropReason::TruncatedIpv6Extension)?,
    );
    let is_fragment_header = payload.protocol == extension::FRAGMENT;
    let rest = if is_fragment_header { 0 } else { header.rest_len() };
    // The frame is at least as long as the IP header says, so what fits the payload fits the frame.
    let Some(len) = payload.len.checked_sub(EXTENSION_LEN + rest) else {
        return Err(DropReason::TruncatedIpv6Extension);
    };
    cursor.skip(rest);
    Ok(Payload {
        protocol: header.next_header(),
        len,
        is_fragment: is_fragment_header && header.is_fragment(),
    })
}

/// Reads a TCP header without its options; the IP packet has `len` bytes from it on.
///
/// # Errors
/// Why the packet is to drop: the header is malformed.
#[inline(always)]
pub fn tcp(cursor: &mut impl Cursor, len: usize) -> Result<Transport, DropReason> {
    let header = Tcp(cursor.take::<TCP_LEN>().ok_or(DropReason::TruncatedTcp)?);
    if len < TCP_LEN {
        return Err(DropReason::TruncatedTcp);
    }
    if header.header_len() < TCP_LEN {
        return Err(DropReason::BadTcpDataOffset);
    }
    if header.header_len() > len {
        return Err(DropReason::TruncatedTcp);
    }
    Ok(Transport {
        source_port: header.source_port() as u32,
        destination_port: header.destination_port() as u32,
        protocol: TCP as u32,
        tcp_flags: header.flags() as u32,
        header_len: header.header_len() as u32,
        sequence: header.sequence(),
        opens_connection: header.opens_connection(),
    })
}

/// Reads a UDP header; the IP packet has `len` bytes from it on.
///
/// # Errors
/// Why the packet is to drop: the header is malformed.
#[inline(always)]
pub fn udp(cursor: &mut impl Cursor, len: usize) -> Result<Transport, DropReason> {
    let header = Udp(cursor.take::<UDP_LEN>().ok_or(DropReason::TruncatedUdp)?);
    if len < UDP_LEN {
        return Err(DropReason::TruncatedUdp);
    }
    if header.length() < UDP_LEN || header.length() > len {
        return Err(DropReason::BadUdpLength);
    }
    Ok(Transport {
        source_port: header.source_port() as u32,
        destination_port: header.destination_port() as u32,
        protocol: UDP as u32,
        tcp_flags: 0,
        header_len: UDP_LEN as u32,
        sequence: 0,
        opens_connection: false,
    })
}

#[cfg(test)]
mod tests;
