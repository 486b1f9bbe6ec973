use core::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::cursor::Slice;
use crate::packets::{ip, with_checksum};

const LB4: &str = "10.0.0.1";
const NODE4: &str = "10.0.0.2";
const LB6: &str = "fd00::1";
const NODE6: &str = "fd00::2";

fn settings() -> Settings {
    let [v4, v6] = [NODE4, NODE6].map(address);
    Settings {
        endpoints: [v4, v6, v4, v4],
        gue_port: GUE_PORT.into(),
        trusted: 0,
        ..Settings::default()
    }
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("literal").into()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(40_000_u16.to_be_bytes());
    datagram.extend(port.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

fn inside4() -> Vec<u8> {
    ip("192.0.2.1", "203.0.113.1", 6, &[7; 20])
}

fn inside6() -> Vec<u8> {
    ip("2001:db8::1", "2001:db8::2", 6, &[7; 20])
}

/// What is read of a packet: the headers around, and what they are around.
fn read(packet: &[u8]) -> Result<Option<(Outer, Inner)>, DropReason> {
    let is_v6 = packet[0] >> 4 == 6 && packet[8] == 0xfd;
    let ethertype = if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    let mut cursor = Slice::new(packet);
    let Some(outer) = outer(&mut cursor, ethertype, &settings())? else {
        return Ok(None);
    };
    Ok(Some((outer, inner(&mut cursor, &outer)?)))
}

#[test]
fn every_kind_of_tunnel_is_taken_off_to_the_byte() {
    let gue0 = |protocol: u8, words: u8, packet: Vec<u8>| {
        let mut header = std::vec![words, protocol, 0, 0];
        header.extend(std::iter::repeat_n(0xee, usize::from(words) * 4));
        header.extend(packet);
        udp(GUE_PORT, &header)
    };
    let rows = [
        ("IPIP", ip(LB4, NODE4, 4, &inside4()), 20),
        ("IPv6 in IPv4", ip(LB4, NODE4, 41, &inside6()), 20),
        ("IP6IP6", ip(LB6, NODE6, 41, &inside6()), 40),
        ("IPv4 in IPv6", ip(LB6, NODE6, 4, &inside4()), 40),
        (
            "GUE 1, IPv4 in IPv4",
            ip(LB4, NODE4, 17, &udp(GUE_PORT, &inside4())),
            28,
        ),
        (
            "GUE 1, IPv6 in IPv4",
            ip(LB4, NODE4, 17, &udp(GUE_PORT, &inside6())),
            28,
        ),
        (
            "GUE 1, IPv4 in IPv6",
            ip(LB6, NODE6, 17, &udp(GUE_PORT, &inside4())),
            48,
        ),
        ("GUE 0", ip(LB4, NODE4, 17, &gue0(4, 0, inside4())), 32),
        (
            "GUE 0 with fields",
            ip(LB6, NODE6, 17, &gue0(41, 31, inside6())),
            52 + 124,
        ),
    ];
    for (name, packet, len) in rows {
        let (outer, inner) = read(&packet)
            .unwrap_or_else(|reason| panic!("{name}: {}", reason.name()))
            .unwrap_or_else(|| panic!("{name} is taken for no tunnel"));
        assert_eq!(outer.len, len, "{name}");
        let inside = &packet[len..];
        let of = if outer.is_inner_v6 { inside6() } else { inside4() };
        assert_eq!(inside, of, "{name}");
        assert_eq!((outer.payload_len, inner.len), (of.len(), of.len()), "{name}");
        let destination = if outer.is_inner_v6 {
            "2001:db8::2"
        } else {
            "203.0.113.1"
        };
        assert_eq!(inner.destination, address(destination), "{name}");
        assert!(settings().ends_at(&outer.destination));
    }
}

#[test]
fn what_is_no_tunnel_is_left_alone() {
    let mut part = ip(LB4, NODE4, 17, &udp(GUE_PORT, &inside4()));
    part[6] = 0x20;
    let rows = [
        ("TCP", ip(LB4, NODE4, 6, &[0; 20])),
        ("another port", ip(LB4, NODE4, 17, &udp(53, &inside4()))),
        ("a fragment of a datagram", part),
    ];
    for (name, packet) in rows {
        assert_eq!(read(&packet), Ok(None), "{name}");
    }
}

/// A packet with some bytes replaced, and its checksum right again.
fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    if at < 20 {
        with_checksum(&mut packet);
    }
    packet
}

#[test]
fn a_tunnel_that_breaks_a_rule_says_which() {
    use DropReason::*;
    let ipip = || ip(LB4, NODE4, 4, &inside4());
    let gue = |first: &[u8]| ip(LB4, NODE4, 17, &udp(GUE_PORT, first));
    let mut wrong = ipip();
    wrong[12] ^= 1;
    let mut ends = ipip();
    ends[28] = 0;
    let rows = [
        ("version 6", with(ipip(), 0, &[0x65]), BadIpv4Version),
        ("a fragment", with(ipip(), 6, &[0x20]), TunnelFragment),
        ("the last fragment", with(ipip(), 7, &[1]), TunnelFragment),
        ("options", with(ipip(), 0, &[0x46]), TunnelOptions),
        (
            "longer than the frame",
            with(ipip(), 3, &[61]),
            BadIpv4TotalLength,
        ),
        ("a wrong checksum", wrong, TunnelChecksum),
        ("cut off", ipip()[..30].to_vec(), BadIpv4TotalLength),
        ("no header inside", ip(LB4, NODE4, 4, &[0x45; 19]), TunnelInner),
        (
            "IPv6 in the place of IPv4",
            ip(LB4, NODE4, 4, &inside6()),
            TunnelInner,
        ),
        ("longer than the tunnel", with(ipip(), 22, &[0, 41]), TunnelInner),
        ("a packet at its end", ends, TunnelTtl),
        (
            "marked, inside not capable",
            with(ipip(), 1, &[3]),
            TunnelCongestion,
        ),
        ("GUE of variant 2", gue(&[0x80; 40]), TunnelHeader),
        ("GUE with neither 4 nor 6", gue(&[0x50; 40]), TunnelHeader),
        ("a control message", gue(&[0x20, 0, 0, 0, 0]), TunnelHeader),
        ("GUE around Ethernet", gue(&[0, 143, 0, 0, 0]), TunnelHeader),
        ("fields beyond the datagram", gue(&[9, 4, 0, 0, 0]), TunnelHeader),
        ("an empty datagram", gue(&[]), TunnelHeader),
        (
            "a datagram shorter than its header",
            with(gue(&[0; 8]), 24, &[0, 7]),
            BadUdpLength,
        ),
        (
            "a datagram longer than the packet",
            with(gue(&[0; 8]), 24, &[0, 17]),
            BadUdpLength,
        ),
    ];
    for (name, packet, reason) in rows {
        assert_eq!(read(&packet), Err(reason), "{name}");
    }
}

#[test]
fn a_prefix_holds_what_begins_like_it() {
    let rows = [
        ("10.0.0.0", 96 + 8, "10.255.0.1", true),
        ("10.0.0.0", 96 + 8, "11.0.0.1", false),
        ("10.0.0.7", 128, "10.0.0.7", true),
        ("10.0.0.7", 128, "10.0.0.6", false),
        ("fd00::", 64, "fd00::ffff:1", true),
        ("fd00::", 64, "fd00:0:0:1::1", false),
        ("0.0.0.0", 96, "192.0.2.1", true),
        ("0.0.0.0", 96, "fd00::1", false),
    ];
    for (prefix, len, of, expected) in rows {
        assert_eq!(
            Peer::new(address(prefix), len).contains(address(of)),
            expected,
            "{of} in {prefix}"
        );
    }
}

#[test]
fn a_relay_is_one_of_the_endpoints() {
    let relays = |bits| Settings {
        relays: bits,
        ..settings()
    };
    let rows = [
        (0, false, false),
        (1, true, false),
        (2, false, true),
        (3, true, true),
    ];
    for (bits, v4, v6) in rows {
        let settings = relays(bits);
        let found = [NODE4, NODE6].map(|text| settings.relays_at(&address(text)));
        assert_eq!(found, [v4, v6], "{bits}");
    }
    assert!(!relays(u32::MAX).relays_at(&address(LB4)));
}

/// The worker that was selected before.
const BEFORE4: &str = "10.0.0.3";
const BEFORE6: &str = "fd00::3";

/// What is read of a tunnel in a tunnel to this node.
fn read_nested(packet: &[u8]) -> Result<(Outer, Inner, Outer, Inner), DropReason> {
    let mut cursor = Slice::new(packet);
    let outer = outer(&mut cursor, ETHERTYPE_IPV4, &settings())?.expect("a tunnel");
    let (header, second) = nested(&mut cursor, &outer)?;
    Ok((outer, header, second, inner(&mut cursor, &second)?))
}

#[test]
fn a_tunnel_in_a_tunnel_is_read_down_to_the_packet() {
    let rows = [
        ("IPIP", ip(LB4, BEFORE4, 4, &inside4()), BEFORE4, 20),
        ("IP6IP6", ip(LB6, BEFORE6, 41, &inside6()), BEFORE6, 40),
        ("IPv4 in IPv6", ip(LB6, BEFORE6, 4, &inside4()), BEFORE6, 40),
        (
            "GUE to another port",
            ip(LB4, BEFORE4, 17, &udp(7000, &inside6())),
            BEFORE4,
            28,
        ),
    ];
    for (name, tunnel, before, len) in rows {
        let protocol = if tunnel[0] >> 4 == 6 { 41 } else { 4 };
        let packet = ip(LB4, NODE4, protocol, &tunnel);
        let (first, header, second, inner) = read_nested(&packet).expect(name);
        assert_eq!((first.len, second.len), (20, len), "{name}");
        assert_eq!(header.destination, address(before), "{name}");
        assert_eq!(header.len, tunnel.len(), "{name}");
        assert_eq!(inner.len, tunnel.len() - len, "{name}");
        assert_eq!(inner.protocol, 6, "{name}");
    }
}

#[test]
fn what_is_no_tunnel_in_a_tunnel_is_refused() {
    let in_tunnel = |tunnel: &[u8]| ip(LB4, NODE4, 4, tunnel);
    let mut options = ip(LB4, BEFORE4, 4, &inside4());
    options[0] = 0x46;
    let mut fragment = ip(LB4, BEFORE4, 4, &inside4());
    fragment[6] = 0x20;
    let rows = [
        ("TCP", in_tunnel(&inside4()), DropReason::TunnelInner),
        ("options", in_tunnel(&options), DropReason::TunnelInner),
        ("a fragment", in_tunnel(&fragment), DropReason::TunnelInner),
        (
            "nothing in it",
            in_tunnel(&ip(LB4, BEFORE4, 4, &[])),
            DropReason::TunnelInner,
        ),
        (
            "a datagram that is cut off",
            in_tunnel(&ip(LB4, BEFORE4, 17, &[0; 7])),
            DropReason::TunnelInner,
        ),
        (
            "a datagram with something else",
            in_tunnel(&ip(LB4, BEFORE4, 17, &udp(5300, b"three"))),
            DropReason::TunnelInner,
        ),
    ];
    for (name, packet, reason) in rows {
        assert_eq!(read_nested(&packet), Err(reason), "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_in_two_tunnels_are_read_without_harm_and_never_beyond_their_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), protocol in prop::sample::select(&[4_u8, 41, 17][..]),
    ) {
        let packet = ip(LB4, NODE4, 4, &ip(LB4, BEFORE4, protocol, &bytes));
        if let Ok((outer, _, second, inner)) = read_nested(&packet) {
            prop_assert!(outer.len + second.len + inner.len <= packet.len());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm_and_never_beyond_their_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), is_v6: bool, protocol in prop::sample::select(&[4_u8, 41, 17][..]),
    ) {
        let (source, destination) = if is_v6 { (LB6, NODE6) } else { (LB4, NODE4) };
        let packet = ip(source, destination, protocol, &bytes);
        if let Ok(Some((outer, inner))) = read(&packet) {
            prop_assert!(outer.len + inner.len <= packet.len());
        }
    }
}
