//! ICMP to virtual addresses through the real program (BPF_PROG_TEST_RUN). Needs root.

use std::net::IpAddr;

use edge_common::checksum;
use edge_datapath::Action;
use edge_datapath_tests::explained::explainer;
use edge_datapath_tests::frame::{Packet, TCP4, TCP6, inserted, tagged, with};
use edge_datapath_tests::setup::{self, config, limited};
use edge_datapath_tests::tunnel::complete_checksum;
use edge_model::{DataPathConfig, ForwardMode, Member, SourceLists};

/// Sum of 16-bit words; an odd byte at the end is the upper half of one.
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

/// A message with right checksums, from a client to a virtual address.
fn message(packet: Packet, kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let is_v6 = packet.source.is_ipv6();
    let mut frame = Packet {
        protocol: if is_v6 { 58 } else { 1 },
        ..packet
    }
    .frame();
    let at = if is_v6 { 54 } else { 34 };
    frame.truncate(at);
    frame.extend([kind, code, 0, 0]);
    frame.extend(payload);
    let len = frame.len() - at;
    if is_v6 {
        frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
        complete_checksum(&mut frame[14..]);
    }
    let right = checksum_of(&frame);
    frame[at + 2..at + 4].copy_from_slice(&right.to_be_bytes());
    frame
}

/// The ICMP checksum that belongs to a frame without VLAN tag, should its own be zero; 0 if its own is right.
fn checksum_of(frame: &[u8]) -> u16 {
    if frame[14] >> 4 == 6 {
        let pseudo = sum(&frame[22..54]) + 58 + (frame.len() - 54) as u64;
        checksum::of(pseudo + sum(&frame[54..]))
    } else {
        checksum::of(sum(&frame[34..]))
    }
}

/// Exchanges two ranges.
fn exchanged(frame: &mut [u8], a: usize, b: usize, len: usize) {
    for at in 0..len {
        frame.swap(a + at, b + at);
    }
}

#[test]
fn an_echo_request_is_answered_with_right_checksums() {
    let mut explainer = explainer(&config(4));
    for (packet, request, reply) in [(TCP4, 8, 0), (TCP6, 128, 129)] {
        for len in [4, 5, 56, 1400] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut frame = message(packet, request, 0, &payload);
            if packet.source.is_ipv6() {
                frame[21] = 3;
            } else {
                frame[22] = 3;
                complete_checksum(&mut frame[14..]);
            }
            let answer = explainer.run(&frame).expect("the kernel runs the frame");
            assert_eq!((answer.action, answer.reason), (Action::Tx, "echo"), "{packet:?}");
            let mut expected = frame.clone();
            exchanged(&mut expected, 0, 6, 6);
            if frame[14] == 0x45 {
                exchanged(&mut expected, 26, 30, 4);
                expected[22] = 64;
                complete_checksum(&mut expected[14..]);
                expected[34] = reply;
                expected[36..38].fill(0);
                let right = checksum_of(&expected);
                expected[36..38].copy_from_slice(&right.to_be_bytes());
            } else {
                exchanged(&mut expected, 22, 38, 16);
                expected[21] = 64;
                expected[54] = reply;
                expected[56..58].fill(0);
                let right = checksum_of(&expected);
                expected[56..58].copy_from_slice(&right.to_be_bytes());
            }
            assert_eq!(answer.packet_out, expected, "{packet:?}, {len} bytes");
            let in_vlan = explainer.run(&tagged(frame)).expect("the kernel runs the frame");
            assert_eq!(in_vlan.packet_out, tagged(expected));
        }
    }
}

#[test]
fn other_messages_go_to_the_stack_or_drop_with_their_reason() {
    use Action::{Drop, Pass};
    let deny = ["198.51.100.0/24".parse().expect("literal")];
    let mut explainer = explainer(&DataPathConfig {
        sources: SourceLists {
            deny: deny.into(),
            ..SourceLists::default()
        },
        ..config(4)
    });
    let echo = |source: &str| {
        let source: IpAddr = source.parse().expect("literal");
        message(Packet { source, ..TCP4 }, 8, 0, &[0; 32])
    };
    let mut fragment = echo("10.77.0.1");
    fragment[20] = 0x20;
    complete_checksum(&mut fragment[14..]);
    let elsewhere = Packet {
        destination: IpAddr::from([10, 77, 0, 2]),
        ..TCP4
    };
    let rows = [
        (
            "fragmentation needed",
            message(TCP4, 3, 4, &[0; 32]),
            Pass,
            "other_protocol",
        ),
        (
            "time exceeded",
            message(TCP4, 11, 0, &[0; 32]),
            Pass,
            "other_protocol",
        ),
        (
            "packet too big",
            message(TCP6, 2, 0, &[0; 48]),
            Pass,
            "other_protocol",
        ),
        (
            "a neighbour's question",
            with(message(TCP6, 135, 0, &[0; 20]), 21, &[255]),
            Pass,
            "other_protocol",
        ),
        (
            "an echo of another code",
            message(TCP4, 8, 1, &[0; 4]),
            Drop,
            "icmp_type",
        ),
        (
            "a reply to nothing",
            message(TCP4, 0, 0, &[0; 4]),
            Drop,
            "icmp_type",
        ),
        ("a redirect", message(TCP4, 5, 1, &[0; 32]), Drop, "icmp_type"),
        (
            "a time stamp request",
            message(TCP4, 13, 0, &[0; 16]),
            Drop,
            "icmp_type",
        ),
        (
            "a listener report",
            message(TCP6, 131, 0, &[0; 20]),
            Drop,
            "icmp_type",
        ),
        ("a fragment", fragment, Drop, "fragment"),
        ("cut off", message(TCP4, 8, 0, &[0; 3]), Drop, "truncated_icmp"),
        ("from the deny list", echo("198.51.100.1"), Drop, "denied"),
        ("from loopback", echo("127.0.0.1"), Drop, "bad_address"),
        ("to itself", echo("10.77.100.1"), Drop, "land"),
        (
            "for another address",
            message(elsewhere, 8, 0, &[0; 32]),
            Pass,
            "no_vip",
        ),
        (
            "an ICMPv6 message in IPv4",
            with(echo("10.77.0.1"), 23, &[58]),
            Pass,
            "other_protocol",
        ),
    ];
    for (name, frame, action, reason) in rows {
        let answer = explainer.run(&frame).expect("the kernel runs the frame");
        assert_eq!((answer.action, answer.reason), (action, reason), "{name}");
        assert_eq!(answer.packet_out, frame, "{name}: the frame is left as it was");
    }
}

/// A frame with extension headers between the IPv6 header and what follows it: each its type and its 8 bytes without the
/// first, which is the type of the next.
fn extended(mut frame: Vec<u8>, headers: &[(u8, [u8; 7])]) -> Vec<u8> {
    for &(kind, rest) in headers.iter().rev() {
        let next = std::mem::replace(&mut frame[20], kind);
        let header = [&[next][..], &rest].concat();
        frame.splice(54..54, header);
        let len = u16::from_be_bytes([frame[18], frame[19]]) + 8;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
    }
    frame
}

/// Extension headers: hop-by-hop options of padding alone, and that of a fragment that is not the first.
const PADDING: (u8, [u8; 7]) = (0, [0, 1, 4, 0, 0, 0, 0]);
const LATER: (u8, [u8; 7]) = (44, [0, 0, 8, 0, 0, 0, 7]);

#[test]
fn fragments_are_refused_whatever_they_are_of() {
    let mut explainer = explainer(&config(4));
    let echo = message(TCP6, 128, 0, &[0; 32]);
    for headers in [&[LATER][..], &[PADDING, LATER]] {
        let answer = explainer
            .run(&extended(echo.clone(), headers))
            .expect("the kernel runs the frame");
        assert_eq!((answer.action, answer.reason), (Action::Drop, "fragment"));
    }
}

/// What nobody on this node takes would be sent back to the router that it came from, again and again.
#[test]
fn what_has_no_use_at_an_address_of_workers_elsewhere_does_not_go_to_the_stack() {
    use Action::{Drop, Pass};
    let member = |number| setup::member("elsewhere", IpAddr::from([10, 0, 0, number]), ForwardMode::Ipip);
    let elsewhere = setup::balancer(vec![member(1)], Some([2, 0, 0, 0, 0, 0xfe]));
    let mut here = elsewhere.clone();
    here.pools[0].members.push(Member {
        mode: ForwardMode::Local,
        ..member(2)
    });
    let esp = |packet: Packet| {
        Packet {
            protocol: 50,
            ..packet
        }
        .frame()
    };
    let echo = message(TCP4, 8, 0, &[0; 32]);
    // Four options that do nothing.
    let mut options = inserted(with(echo, 14, &[0x46]), 34, &[1; 4]);
    let len = options.len() as u16 - 14;
    options[16..18].copy_from_slice(&len.to_be_bytes());
    complete_checksum(&mut options[14..]);
    let asked = |hops| with(message(TCP6, 135, 0, &[0; 20]), 21, &[hops]);
    // It is about an echo reply from the virtual address.
    let quote = message(
        Packet {
            source: TCP4.destination,
            destination: TCP4.source,
            ..TCP4
        },
        0,
        0,
        &[0; 4],
    );
    let rows = [
        ("ESP", esp(TCP4), Drop, "no_service"),
        ("ESP over IPv6", esp(TCP6), Drop, "no_service"),
        (
            "an echo behind IPv6 options",
            extended(message(TCP6, 128, 0, &[0; 32]), &[PADDING]),
            Drop,
            "no_service",
        ),
        ("an echo with IPv4 options", options, Drop, "no_service"),
        (
            "an error about a packet without ports",
            message(TCP4, 3, 1, &[&[0; 4], &quote[14..]].concat()),
            Drop,
            "icmp_quote",
        ),
        ("a neighbour's question", asked(255), Pass, "other_protocol"),
        ("one from beyond a router", asked(254), Drop, "icmp_type"),
    ];
    let mut of_elsewhere = explainer(&elsewhere);
    let mut of_here = explainer(&here);
    for (name, frame, action, reason) in rows {
        let answer = of_elsewhere.run(&frame).expect("the kernel runs the frame");
        assert_eq!((answer.action, answer.reason), (action, reason), "{name}");
        let answer = of_here.run(&frame).expect("the kernel runs the frame");
        let expected = if reason == "icmp_type" {
            (Drop, reason)
        } else {
            (Pass, "other_protocol")
        };
        assert_eq!(
            (answer.action, answer.reason),
            expected,
            "{name}, and a worker here"
        );
    }
}

#[test]
fn echo_requests_count_against_the_limit_of_their_source() {
    let mut explainer = explainer(&limited(4, 3, 3));
    let echo = message(TCP4, 8, 0, &[0; 32]);
    let mut reasons = (0..4).map(|_| explainer.run(&echo).expect("the kernel runs the frame").reason);
    assert_eq!(reasons.by_ref().take(3).collect::<Vec<_>>(), ["echo"; 3]);
    assert_eq!(reasons.next(), Some("flood_packets"));
}
