//! What no honest client sends: combinations of fields that are sound each for itself, and impossible together.
//!
//! The parser has refused what has no meaning at all. These rules hold for packets to virtual addresses alone.

use crate::parse::{Network, Transport};
use crate::{Address, DropReason, TCP};

/// TCP flags, as they stand in the header's byte (RFC 9293 3.1).
pub mod tcp_flags {
    /// Sender has finished.
    pub const FIN: u32 = 0x01;
    /// Opens a connection.
    pub const SYN: u32 = 0x02;
    /// Resets a connection.
    pub const RST: u32 = 0x04;
    /// Data is to be handed up.
    pub const PSH: u32 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u32 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u32 = 0x20;
}

/// The combinations of FIN, SYN, RST, ACK and URG that TCP knows, as bits of a set (`tcp_valid_flags` in the kernel's
/// nf_conntrack_proto_tcp.c). PSH, and the flags of explicit congestion notification, may stand with any of them.
const VALID_FLAGS: u64 = {
    use tcp_flags::{ACK, FIN, RST, SYN, URG};
    1 << SYN
        | 1 << (SYN | URG)
        | 1 << (SYN | ACK)
        | 1 << RST
        | 1 << (RST | ACK)
        | 1 << (FIN | ACK)
        | 1 << (FIN | ACK | URG)
        | 1 << ACK
        | 1 << (ACK | URG)
};

/// The rule that a packet to a virtual address breaks. `is_for_service`: it is to a port that a VIP has, and services
/// open no connections from their port, so that a SYN-ACK to it answers nothing (it is what a reflection attack by way
/// of honest servers sends).
///
/// # Errors
/// [`DropReason::BadAddress`], [`DropReason::Land`], [`DropReason::BadTcpFlags`] or [`DropReason::PortZero`].
#[inline(always)]
pub fn check(network: &Network, transport: &Transport, is_for_service: bool) -> Result<(), DropReason> {
    if is_impossible_source(network.source, network.is_v6()) {
        return Err(DropReason::BadAddress);
    }
    if network.source == network.destination {
        return Err(DropReason::Land);
    }
    if transport.source_port == 0 {
        return Err(DropReason::PortZero);
    }
    if transport.protocol == TCP as u32 {
        let flags = transport.tcp_flags & (0x3f & !tcp_flags::PSH);
        let answers_nothing = is_for_service && flags == tcp_flags::SYN | tcp_flags::ACK;
        if VALID_FLAGS >> flags & 1 == 0 || answers_nothing {
            return Err(DropReason::BadTcpFlags);
        }
    }
    Ok(())
}

/// Whether no host can have the address on the internet: unspecified, loopback, multicast, reserved (RFC 6890), and
/// what stands for an IPv4 address in an IPv6 header (RFC 4291 2.5.5, RFC 4942 2.2).
#[inline(always)]
pub(crate) const fn is_impossible_source(source: Address, is_v6: bool) -> bool {
    let [a, b, c, d] = source.0;
    if is_v6 {
        let first = u32::from_be(a) >> 24;
        first == 0xff || (a == 0 && b == 0 && (c == 0 || source.is_v4()))
    } else {
        let first = u32::from_be(d) >> 24;
        first == 0 || first == 127 || first >= 224
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::tcp_flags::{ACK, FIN, PSH, RST, SYN, URG};
    use super::*;

    #[test]
    fn flags_are_those_that_tcp_knows() {
        let rows = [
            (SYN, true),
            (SYN | ACK, true),
            (SYN | 0xc0, true),
            (ACK | PSH, true),
            (FIN | ACK, true),
            (FIN | PSH | ACK, true),
            (RST, true),
            (RST | ACK | PSH, true),
            (ACK | URG, true),
            (0, false),
            (FIN, false),
            (PSH, false),
            (URG, false),
            (SYN | FIN, false),
            (SYN | RST, false),
            (FIN | RST | ACK, false),
            (FIN | PSH | URG, false),
            (0x3f, false),
        ];
        for (flags, valid) in rows {
            let kept = flags & (0x3f & !PSH);
            assert_eq!(VALID_FLAGS >> kept & 1 == 1, valid, "{flags:#x}");
        }
    }

    #[test]
    fn sources_that_no_host_has_are_known() {
        let rows = [
            ("192.0.2.1", false, false),
            ("10.0.0.1", false, false),
            ("0.1.2.3", false, true),
            ("127.0.0.1", false, true),
            ("224.0.0.251", false, true),
            ("255.255.255.255", false, true),
            ("2001:db8::1", true, false),
            ("fe80::1", true, false),
            ("::", true, true),
            ("::1", true, true),
            ("ff02::1", true, true),
            ("192.0.2.1", true, true),
        ];
        for (text, is_v6, impossible) in rows {
            let source = text.parse::<IpAddr>().expect("literal").into();
            assert_eq!(
                is_impossible_source(source, is_v6),
                impossible,
                "{text}, IPv6 header: {is_v6}"
            );
        }
    }
}
