//! ICMP to virtual addresses: what a message asks for.

use crate::cursor::{Cursor, Window as _};
use crate::header::{IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, extension};
use crate::malformed::is_impossible_source;
use crate::parse::{self, Network};
use crate::{Address, DropReason, Flow, ICMP, ICMPV6, TCP, UDP, checksum};

/// Type of an echo request (RFC 792), and of its answer.
pub const ECHO: u8 = 8;
/// See [`ECHO`].
pub const ECHO_REPLY: u8 = 0;
/// The same of ICMPv6 (RFC 4443 4).
pub const ECHO_V6: u8 = 128;
/// See [`ECHO_V6`].
pub const ECHO_REPLY_V6: u8 = 129;

/// Length of the header that all messages have, with the four bytes whose meaning depends on the type.
pub const HEADER_LEN: usize = 8;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// An echo request, which can be answered where it arrives.
    Echo,
    /// An error about a packet that was sent from the virtual address, which it quotes ([`quoted`]).
    Error,
    /// Router and neighbour discovery (RFC 4861), for the stack, if it was not routed: its hop limit is then 255.
    NeighbourDiscovery,
    /// For the stack, if it takes packets to the address: no ICMP at all, behind extension headers, or with options.
    ForStack,
}

/// Reads a message to a virtual address. The cursor stands behind the IP header, options included.
///
/// # Errors
/// The rule that it breaks: a source that no host has, a packet to itself, a fragment, one that is cut off, or a type that
/// nobody has a use for at a service.
#[inline(always)]
pub fn message(cursor: &mut impl Cursor, network: &Network) -> Result<Message, DropReason> {
    let is_icmp = if network.is_v6() {
        network.next_header() == ICMPV6
    } else {
        network.next_header() == ICMP
    };
    if !is_icmp {
        // Fragments are refused whatever they are of.
        if network.is_v6() && parse::skip_extensions(cursor, network)?.is_fragment {
            return Err(DropReason::Fragment);
        }
        return Ok(Message::ForStack);
    }
    if is_impossible_source(network.source, network.is_v6()) {
        return Err(DropReason::BadAddress);
    }
    if network.source == network.destination {
        return Err(DropReason::Land);
    }
    if network.is_fragment() {
        return Err(DropReason::Fragment);
    }
    if network.payload_len() < HEADER_LEN {
        return Err(DropReason::TruncatedIcmp);
    }
    let header = cursor.take::<HEADER_LEN>().ok_or(DropReason::TruncatedIcmp)?;
    let (kind, code) = (header.byte::<0>(), header.byte::<1>());
    match (network.is_v6(), kind) {
        // The kernel answers with the options that came.
        (false, ECHO) if network.has_options() => Ok(Message::ForStack),
        (false, ECHO) | (true, ECHO_V6) if code == 0 => Ok(Message::Echo),
        // Unreachable, time exceeded, parameter problem; of ICMPv6 packet too big, too.
        (false, 3 | 11 | 12) | (true, 1..=4) => Ok(Message::Error),
        (true, 133..=137) => Ok(Message::NeighbourDiscovery),
        _ => Err(DropReason::IcmpType),
    }
}

/// Bytes of the transport header that are read of a quoted packet: both ports. Errors quote eight or more (RFC 792).
const PORTS_LEN: usize = 4;
/// Length of an IPv6 fragment header.
const FRAGMENT_LEN: usize = 8;

/// Reads the packet that an error quotes, and answers its flow as the client's packets have it: the quoted one went from
/// the virtual address to the client. The cursor stands behind the message's header ([`message`]). `None` if it has no
/// ports.
///
/// # Errors
/// [`DropReason::IcmpQuote`] if too little is quoted to tell the flow, a later fragment, or a packet that was not sent
/// from the address that the error went to: no stack could tell either whom it is for.
#[inline(always)]
pub fn quoted(cursor: &mut impl Cursor, network: &Network) -> Result<Option<Flow>, DropReason> {
    let is_v6 = network.is_v6();
    let (source, destination, protocol, header_len) = if is_v6 {
        let header = Ipv6(cursor.take::<IPV6_LEN>().ok_or(DropReason::IcmpQuote)?);
        if header.version() != 6 {
            return Err(DropReason::IcmpQuote);
        }
        let (mut protocol, mut len) = (header.next_header(), IPV6_LEN);
        if protocol == extension::FRAGMENT {
            let fragment = cursor.take::<FRAGMENT_LEN>().ok_or(DropReason::IcmpQuote)?;
            if fragment.be16::<2>() & 0xfff8 != 0 {
                return Err(DropReason::IcmpQuote);
            }
            protocol = fragment.byte::<0>();
            len += FRAGMENT_LEN;
        }
        (header.source(), header.destination(), protocol, len)
    } else {
        let window = cursor.take::<IPV4_LEN>().ok_or(DropReason::IcmpQuote)?;
        let header = Ipv4(window);
        let len = header.header_len();
        if header.version() != 4 || len < IPV4_LEN || window.be16::<6>() & 0x1fff != 0 {
            return Err(DropReason::IcmpQuote);
        }
        cursor.skip(len - IPV4_LEN);
        (header.source(), header.destination(), header.protocol(), len)
    };
    if source != network.destination {
        return Err(DropReason::IcmpQuote);
    }
    if !matches!(protocol, TCP | UDP) {
        return Ok(None);
    }
    if network.payload_len() < HEADER_LEN + header_len + PORTS_LEN {
        return Err(DropReason::IcmpQuote);
    }
    let ports = cursor.take::<PORTS_LEN>().ok_or(DropReason::IcmpQuote)?;
    Ok(Some(Flow {
        source: destination,
        destination: source,
        source_port: ports.be16::<2>(),
        destination_port: ports.be16::<0>(),
        protocol,
    }))
}

/// The checksum of an echo reply, from the checksum of its request and that one's identifier and sequence number (one
/// word, in any byte order): the type is all that differs. `payload_len` is the whole message's.
///
/// Of the two zeros of ones' complement a sum over any bits gives 0, and a sum over none 0xffff. The latter is told apart
/// for a message without data, so that the reply is what a host would compute.
#[inline(always)]
#[must_use]
pub const fn echo_checksum(
    request: u16,
    identifier_and_sequence: u32,
    payload_len: usize,
    is_v6: bool,
) -> u16 {
    let (old, new) = if is_v6 {
        (ECHO_V6, ECHO_REPLY_V6)
    } else {
        (ECHO, ECHO_REPLY)
    };
    let sum = checksum::replace(request, (old as u16) << 8, (new as u16) << 8);
    if sum == 0 && !is_v6 && payload_len == HEADER_LEN && identifier_and_sequence == 0 {
        return 0xffff;
    }
    sum
}

/// Bytes of a packet that an IPv4 error about it quotes: so many that the message has no more than 576 (RFC 1812 4.3.2.3).
pub const QUOTE4: usize = 576 - IPV4_LEN - HEADER_LEN;
/// The same of ICMPv6, whose messages have no more than the least MTU of IPv6, 1280 (RFC 4443 2.4).
pub const QUOTE6: usize = 1280 - IPV6_LEN - HEADER_LEN;

/// Words of the IPv4 header and the ICMP header of an error.
pub const ERROR4_WORDS: usize = (IPV4_LEN + HEADER_LEN) / 4;
/// The same over IPv6.
pub const ERROR6_WORDS: usize = (IPV6_LEN + HEADER_LEN) / 4;

/// Time to live and hop limit of errors, as the kernel's answers have it.
const TTL: u8 = 64;

/// An error about a packet that does not fit: "fragmentation needed" (RFC 1191 4) or "packet too big" (RFC 4443 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBig {
    /// Largest packet that fits, in bytes.
    pub mtu: u32,
    /// Bytes that are quoted, an even number.
    pub quote_len: u32,
    /// Sum of their words as they stand in memory, of 16 or 32 bits each.
    pub quote_sum: u64,
}

impl TooBig {
    /// The headers before the quote, as they stand in memory. The error comes from where the packet went to, and has the
    /// precedence of internetwork control (RFC 1812 4.3.2.5).
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(&self, from: Address, to: Address) -> [u32; ERROR4_WORDS] {
        let ([.., from], [.., to]) = (from.0, to.0);
        let [a, b] = ((IPV4_LEN + HEADER_LEN) as u16 + self.quote_len as u16).to_be_bytes();
        let mtu = if self.mtu > u16::MAX as u32 {
            u16::MAX
        } else {
            self.mtu as u16
        };
        let [c, d] = mtu.to_be_bytes();
        let mut words = [
            u32::from_ne_bytes([0x45, 0xc0, a, b]),
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([TTL, ICMP, 0, 0]),
            from,
            to,
            u32::from_ne_bytes([3, 4, 0, 0]),
            u32::from_ne_bytes([0, 0, c, d]),
        ];
        let header = words[0] as u64 + words[1] as u64 + words[2] as u64 + from as u64 + to as u64;
        words[2] |= behind(checksum::of(header));
        let message = words[5] as u64 + words[6] as u64 + self.quote_sum;
        words[5] |= behind(checksum::of(message));
        words
    }

    /// The same over IPv6, whose checksum is also over a pseudo header (RFC 4443 2.3).
    #[inline(always)]
    #[must_use]
    pub const fn ipv6(&self, from: Address, to: Address) -> [u32; ERROR6_WORDS] {
        let ([e, f, g, h], [k, l, m, n]) = (from.0, to.0);
        let len = HEADER_LEN as u32 + self.quote_len;
        let [a, b] = (len as u16).to_be_bytes();
        let addresses = e as u64 + f as u64 + g as u64 + h as u64 + k as u64 + l as u64 + m as u64 + n as u64;
        let kind = u32::from_ne_bytes([2, 0, 0, 0]);
        let mtu = self.mtu.to_be();
        let pseudo = addresses + len.to_be() as u64 + (ICMPV6 as u32).to_be() as u64;
        let sum = checksum::of(pseudo + kind as u64 + mtu as u64 + self.quote_sum);
        [
            u32::from_ne_bytes([0x6c, 0, 0, 0]),
            u32::from_ne_bytes([a, b, ICMPV6, TTL]),
            e,
            f,
            g,
            h,
            k,
            l,
            m,
            n,
            kind | behind(sum),
            mtu,
        ]
    }
}

/// A checksum of words as they stand in memory, in the last two bytes of a word.
#[inline(always)]
const fn behind(checksum: u16) -> u32 {
    let [a, b] = checksum.to_ne_bytes();
    u32::from_ne_bytes([0, 0, a, b])
}

#[cfg(test)]
mod tests;
