//! ICMP to virtual addresses: what a message asks for.

use crate::cursor::{Cursor, Window as _};
use crate::malformed::is_impossible_source;
use crate::parse::Network;
use crate::{DropReason, ICMP, ICMPV6};

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
    /// For the stack: an error about one of its connections, neighbour discovery, or no ICMP at all.
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
        // Unreachable, time exceeded, parameter problem.
        (false, 3 | 11 | 12) => Ok(Message::ForStack),
        // Likewise and packet too big; router and neighbour discovery (RFC 4861).
        (true, 1..=4 | 133..=137) => Ok(Message::ForStack),
        _ => Err(DropReason::IcmpType),
    }
}
