//! The parser over frames in memory: rows of packets and the verdicts they must get.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::cursor::Slice;

/// Parses a frame as the pipeline does.
fn parse(frame: &[u8]) -> Result<(Network, Transport), Verdict> {
    let mut cursor = Slice::new(frame);
    let network = network(&mut cursor)?;
    let transport = transport(&mut cursor, &network)?;
    Ok((network, transport))
}

fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(ETHERTYPE_IPV4);
    let total = 20 + payload.len() as u16;
    frame.extend([
        0x45,
        0,
        total.to_be_bytes()[0],
        total.to_be_bytes()[1],
        0,
        0,
        0x40,
        0,
        64,
        protocol,
        0,
        0,
    ]);
    frame.extend([192, 0, 2, 1, 198, 51, 100, 80]);
    frame.extend(payload);
    frame
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(ETHERTYPE_IPV6);
    let len = payload.len() as u16;
    frame.extend([
        0x60,
        0,
        0,
        0,
        len.to_be_bytes()[0],
        len.to_be_bytes()[1],
        next_header,
        64,
    ]);
    frame.extend([0x20; 32]);
    frame.extend(payload);
    frame
}

fn tcp(offset: u8, flags: u8) -> Vec<u8> {
    let mut segment = vec![
        0x30,
        0x39,
        0,
        80,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        offset << 4,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ];
    segment.resize(usize::from(offset.max(5)) * 4, 1);
    segment
}

fn udp(len: u16) -> Vec<u8> {
    let mut datagram = vec![0x30, 0x39, 0, 53];
    datagram.extend(len.to_be_bytes());
    datagram.extend([0; 6]);
    datagram
}

/// A frame with some bytes replaced.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// A frame with a VLAN tag before its EtherType.
fn tagged(mut frame: Vec<u8>, ethertype: u16) -> Vec<u8> {
    let [high, low] = ethertype.to_be_bytes();
    frame.splice(12..12, [high, low, 0, 7]);
    frame
}

fn extended(kinds: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for next in kinds.iter().skip(1).chain([&protocol]) {
        chain.extend([*next, 0, 0, 0, 0, 0, 0, 0]);
    }
    chain.extend(payload);
    ipv6(kinds[0], &chain)
}

#[test]
fn sound_packets_give_their_ports() {
    let padded = [ipv4(TCP, &tcp(5, 0x02)), vec![0; 6]].concat();
    let options = with(
        [ipv4(TCP, &[]), vec![1; 12], tcp(5, 0x02)].concat(),
        14,
        &[0x48, 0, 0, 52],
    );
    let long_option = [vec![TCP, 255], vec![0; 2046], tcp(5, 0x02)].concat();
    let rows: Vec<(&str, Vec<u8>, u16, bool)> = vec![
        ("TCP SYN", ipv4(TCP, &tcp(5, 0x02)), 80, true),
        ("TCP SYN with ECN flags", ipv4(TCP, &tcp(5, 0xc2)), 80, true),
        ("TCP SYN and ACK", ipv4(TCP, &tcp(5, 0x12)), 80, false),
        ("TCP with options", ipv4(TCP, &tcp(15, 0x10)), 80, false),
        ("TCP padded to Ethernet's least", padded, 80, true),
        ("TCP behind IPv4 options", options, 80, true),
        ("UDP", ipv4(UDP, &udp(12)), 53, false),
        ("UDP shorter than its IP packet", ipv4(UDP, &udp(8)), 53, false),
        ("VLAN", tagged(ipv4(UDP, &udp(12)), ETHERTYPE_VLAN), 53, false),
        (
            "QinQ",
            tagged(tagged(ipv4(UDP, &udp(12)), ETHERTYPE_VLAN), ETHERTYPE_QINQ),
            53,
            false,
        ),
        ("IPv6 TCP", ipv6(TCP, &tcp(5, 0x02)), 80, true),
        ("IPv6 UDP", ipv6(UDP, &udp(12)), 53, false),
        (
            "IPv6 behind hop-by-hop options",
            extended(&[0], TCP, &tcp(5, 0x10)),
            80,
            false,
        ),
        (
            "IPv6 behind five extensions",
            extended(&[0, 60, 43, 44, 60], UDP, &udp(12)),
            53,
            false,
        ),
        (
            "IPv6 atomic fragment",
            extended(&[44], TCP, &tcp(5, 0x02)),
            80,
            true,
        ),
        (
            "IPv6 behind the longest extension",
            ipv6(60, &long_option),
            80,
            true,
        ),
    ];
    for (name, frame, port, opens) in rows {
        let (_, transport) = parse(&frame).unwrap_or_else(|verdict| panic!("{name}: {verdict:?}"));
        assert_eq!(
            (transport.source_port as u16, transport.destination_port as u16),
            (12345, port),
            "{name}"
        );
        assert_eq!(transport.opens_connection, opens, "{name}");
    }
}

#[test]
fn malformed_packets_drop_with_their_reason() {
    use DropReason::*;
    let syn = || ipv4(TCP, &tcp(5, 0x02));
    let syn6 = || ipv6(TCP, &tcp(5, 0x02));
    let rows: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("nothing", vec![], TruncatedEthernet),
        (
            "a VLAN tag cut off",
            tagged(syn(), ETHERTYPE_VLAN)[..16].to_vec(),
            TruncatedVlan,
        ),
        ("no IPv4 header", ethernet(ETHERTYPE_IPV4), TruncatedIpv4),
        ("version 5", with(syn(), 14, &[0x55]), BadIpv4Version),
        (
            "IPv4 header of 16 bytes",
            with(syn(), 14, &[0x44]),
            BadIpv4HeaderLength,
        ),
        (
            "total length within the header",
            with(syn(), 16, &[0, 19]),
            BadIpv4HeaderLength,
        ),
        (
            "total length within the options",
            with(syn(), 14, &[0x46, 0, 0, 20]),
            BadIpv4HeaderLength,
        ),
        (
            "options beyond the frame",
            with(syn(), 14, &[0x4f, 0, 0, 60])[..50].to_vec(),
            TruncatedIpv4,
        ),
        (
            "total length beyond the frame",
            with(syn(), 16, &[0, 41]),
            BadIpv4TotalLength,
        ),
        ("first IPv4 fragment", with(syn(), 20, &[0x20, 0]), Fragment),
        ("later IPv4 fragment", with(syn(), 20, &[0, 1]), Fragment),
        (
            "IPv4 packet that ends in the TCP header",
            with(syn(), 16, &[0, 39]),
            TruncatedTcp,
        ),
        ("TCP data offset 4", ipv4(TCP, &tcp(4, 0x02)), BadTcpDataOffset),
        (
            "TCP data offset beyond the packet",
            with(syn(), 46, &[0x60]),
            TruncatedTcp,
        ),
        (
            "IPv4 packet that ends in the UDP header",
            ipv4(UDP, &udp(8)[..7]),
            TruncatedUdp,
        ),
        ("UDP length 7", ipv4(UDP, &udp(7)), BadUdpLength),
        ("UDP length beyond the packet", ipv4(UDP, &udp(13)), BadUdpLength),
        ("IPv6 header cut off", syn6()[..53].to_vec(), TruncatedIpv6),
        (
            "version 4 under IPv6's EtherType",
            with(syn6(), 14, &[0x40]),
            BadIpv6Version,
        ),
        (
            "IPv6 payload beyond the frame",
            with(syn6(), 18, &[0, 21]),
            BadIpv6PayloadLength,
        ),
        (
            "extension beyond the packet",
            ipv6(0, &[TCP, 1, 0, 0, 0, 0, 0, 0]),
            TruncatedIpv6Extension,
        ),
        (
            "extension cut off",
            ipv6(0, &[TCP, 0, 0, 0]),
            TruncatedIpv6Extension,
        ),
        (
            "six extensions",
            extended(&[0, 60, 43, 60, 60, 60], TCP, &tcp(5, 2)),
            Ipv6ExtensionLimit,
        ),
        (
            "first IPv6 fragment",
            with(extended(&[44], TCP, &tcp(5, 2)), 56, &[0, 1]),
            Fragment,
        ),
        (
            "a fragment of an unknown protocol",
            with(extended(&[44], 122, &[0; 8]), 56, &[0, 8]),
            Fragment,
        ),
        (
            "later IPv6 fragment",
            with(extended(&[44], UDP, &udp(12)), 56, &[0, 8]),
            Fragment,
        ),
    ];
    for (name, frame, reason) in rows {
        assert_eq!(parse(&frame), Err(Verdict::drop(reason)), "{name}");
    }
}

#[test]
fn what_is_not_for_tier_1_passes() {
    use PassReason::*;
    let three_tags = (0..3).fold(ipv4(UDP, &udp(12)), |frame, _| tagged(frame, ETHERTYPE_VLAN));
    let rows: Vec<(&str, Vec<u8>, PassReason)> = vec![
        ("ARP", ethernet(0x0806), NotIp),
        ("802.3 length", ethernet(38), NotIp),
        ("three VLAN tags", three_tags, NotIp),
        ("ICMP", ipv4(1, &[8, 0, 0, 0]), OtherProtocol),
        (
            "a fragment of ICMP",
            with(ipv4(1, &[8, 0, 0, 0]), 20, &[0x20, 0]),
            OtherProtocol,
        ),
        (
            "ICMPv6 behind hop-by-hop options",
            extended(&[0], 58, &[143, 0, 0, 0]),
            OtherProtocol,
        ),
        ("IPv6 without a next header", ipv6(59, &[]), OtherProtocol),
    ];
    for (name, frame, reason) in rows {
        assert_eq!(parse(&frame), Err(Verdict::Pass(reason)), "{name}");
    }
}

#[test]
fn a_frame_cut_off_anywhere_drops() {
    let whole = [
        ipv4(TCP, &tcp(5, 0x02)),
        ipv4(UDP, &udp(12)),
        ipv6(TCP, &tcp(8, 0x02)),
        extended(&[0, 60], UDP, &udp(12)),
        tagged(tagged(ipv4(TCP, &tcp(10, 0x10)), ETHERTYPE_VLAN), ETHERTYPE_QINQ),
    ];
    for frame in whole {
        assert!(parse(&frame).is_ok());
        for len in 0..frame.len() {
            assert!(
                matches!(parse(&frame[..len]), Err(Verdict::Drop { .. })),
                "{len} of {} bytes",
                frame.len()
            );
        }
    }
}

proptest! {
    /// Whatever the bytes: an answer, and what is taken as sound lies within the frame.
    #[test]
    fn no_bytes_are_read_beyond_the_frame(
        start in prop_oneof![Just(ipv4(TCP, &tcp(8, 2))), Just(extended(&[0, 43, 60], UDP, &udp(12)))],
        changes in prop::collection::vec((12..100_usize, any::<u8>()), 0..8),
        cut in 0..120_usize,
    ) {
        let mut frame = start;
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(cut);
        if let Ok((network, transport)) = parse(&frame) {
            let least = if transport.protocol == u32::from(TCP) { TCP_LEN } else { UDP_LEN };
            prop_assert!(14 + network.payload_len + 20 <= frame.len() && network.payload_len >= least);
        }
    }
}
