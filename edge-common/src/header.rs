//! Headers as views over their bytes on the wire. Every field is read where it is asked for; nothing is copied
//! or reordered before.

use crate::Address;
use crate::cursor::Window;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer VLAN tag (802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (802.1ad, QinQ).
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Next header values of the IPv6 extension headers that are walked over (RFC 8200 4.1).
pub mod extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// Ethernet II header.
#[derive(Clone, Copy)]
pub struct Ethernet<W>(pub W);

/// Length of [`Ethernet`], in bytes.
pub const ETHERNET_LEN: usize = 14;

impl<W: Window> Ethernet<W> {
    /// EtherType of what follows.
    #[inline(always)]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        self.0.be16::<12>()
    }
}

/// The four bytes of a VLAN tag after its own EtherType.
#[derive(Clone, Copy)]
pub struct Vlan<W>(pub W);

/// Length of [`Vlan`], in bytes.
pub const VLAN_LEN: usize = 4;

impl<W: Window> Vlan<W> {
    /// EtherType of what follows.
    #[inline(always)]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        self.0.be16::<2>()
    }
}

/// IPv4 header without options (RFC 791 3.1).
#[derive(Clone, Copy)]
pub struct Ipv4<W>(pub W);

/// Length of [`Ipv4`], in bytes.
pub const IPV4_LEN: usize = 20;

impl<W: Window> Ipv4<W> {
    /// Version; 4 in a sound header.
    #[inline(always)]
    #[must_use]
    pub fn version(self) -> u8 {
        self.0.byte::<0>() >> 4
    }

    /// Length of header and options, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn header_len(self) -> usize {
        (self.0.byte::<0>() & 0x0f) as usize * 4
    }

    /// Length of header, options and payload, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn total_len(self) -> usize {
        self.0.be16::<2>() as usize
    }

    /// Whether this is a part of a datagram: more fragments follow, or some came before.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(self) -> bool {
        self.0.be16::<6>() & 0x3fff != 0
    }

    /// Protocol of the payload.
    #[inline(always)]
    #[must_use]
    pub fn protocol(self) -> u8 {
        self.0.byte::<9>()
    }

    /// Source address.
    #[inline(always)]
    #[must_use]
    pub fn source(self) -> Address {
        Address::v4_word(self.0.word::<12>())
    }

    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(self) -> Address {
        Address::v4_word(self.0.word::<16>())
    }
}

/// IPv6 header (RFC 8200 3).
#[derive(Clone, Copy)]
pub struct Ipv6<W>(pub W);

/// Length of [`Ipv6`], in bytes.
pub const IPV6_LEN: usize = 40;

impl<W: Window> Ipv6<W> {
    /// Version; 6 in a sound header.
    #[inline(always)]
    #[must_use]
    pub fn version(self) -> u8 {
        self.0.byte::<0>() >> 4
    }

    /// Length of everything after this header, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn payload_len(self) -> usize {
        self.0.be16::<4>() as usize
    }

    /// Type of the first extension header, or protocol of the payload.
    #[inline(always)]
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.0.byte::<6>()
    }

    /// Source address.
    #[inline(always)]
    #[must_use]
    pub fn source(self) -> Address {
        Address([
            self.0.word::<8>(),
            self.0.word::<12>(),
            self.0.word::<16>(),
            self.0.word::<20>(),
        ])
    }

    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(self) -> Address {
        Address([
            self.0.word::<24>(),
            self.0.word::<28>(),
            self.0.word::<32>(),
            self.0.word::<36>(),
        ])
    }
}

/// The first eight bytes of an IPv6 extension header; all of a fragment header (RFC 8200 4.3 to 4.6).
#[derive(Clone, Copy)]
pub struct Extension<W>(pub W);

/// Length of [`Extension`], in bytes.
pub const EXTENSION_LEN: usize = 8;

impl<W: Window> Extension<W> {
    /// Type of the next extension header, or protocol of the payload.
    #[inline(always)]
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.0.byte::<0>()
    }

    /// Bytes of the header after these eight. Not for fragment headers, which have no length field.
    #[inline(always)]
    #[must_use]
    pub fn rest_len(self) -> usize {
        self.0.byte::<1>() as usize * 8
    }

    /// Whether a fragment header makes the packet a part of one. It does not if the whole packet is in it (an
    /// "atomic fragment", RFC 6946), which is then handled like any other packet.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(self) -> bool {
        self.0.be16::<2>() & 0xfff9 != 0
    }
}

/// TCP header without options (RFC 9293 3.1).
#[derive(Clone, Copy)]
pub struct Tcp<W>(pub W);

/// Length of [`Tcp`], in bytes.
pub const TCP_LEN: usize = 20;

impl<W: Window> Tcp<W> {
    /// Source port.
    #[inline(always)]
    #[must_use]
    pub fn source_port(self) -> u16 {
        self.0.be16::<0>()
    }

    /// Destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination_port(self) -> u16 {
        self.0.be16::<2>()
    }

    /// Sequence number.
    #[inline(always)]
    #[must_use]
    pub fn sequence(self) -> u32 {
        u32::from_be(self.0.word::<4>())
    }

    /// Length of header and options, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn header_len(self) -> usize {
        (self.0.byte::<12>() >> 4) as usize * 4
    }

    /// Flags: FIN, SYN, RST, PSH, ACK, URG, ECE and CWR, from the lowest bit on.
    #[inline(always)]
    #[must_use]
    pub fn flags(self) -> u8 {
        self.0.byte::<13>()
    }

    /// Whether this opens a connection: SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub fn opens_connection(self) -> bool {
        self.flags() & 0x12 == 0x02
    }
}

/// UDP header (RFC 768).
#[derive(Clone, Copy)]
pub struct Udp<W>(pub W);

/// Length of [`Udp`], in bytes.
pub const UDP_LEN: usize = 8;

impl<W: Window> Udp<W> {
    /// Source port.
    #[inline(always)]
    #[must_use]
    pub fn source_port(self) -> u16 {
        self.0.be16::<0>()
    }

    /// Destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination_port(self) -> u16 {
        self.0.be16::<2>()
    }

    /// Length of header and payload, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn length(self) -> usize {
        self.0.be16::<4>() as usize
    }
}
