use core::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::cursor::Slice;
use crate::packets::ip;
use crate::parse;

const CLIENT4: &str = "192.0.2.1";
const VIP4: &str = "203.0.113.1";
const CLIENT6: &str = "2001:db8::1";
const VIP6: &str = "2001:db8::2";
const ROUTER4: &str = "198.51.100.1";
const ROUTER6: &str = "2001:db8::3";

/// What a worker sends to a client, cut after the ports.
const PORTS: [u8; 8] = [0x01, 0xbb, 0x9c, 0x40, 0, 0, 0, 1];

/// What is read of an error of a router that quotes a packet, with so many bytes of padding behind the IP packet.
fn read(quote: &[u8], padding: usize) -> Result<Option<Flow>, DropReason> {
    let is_v6 = quote.first().is_some_and(|first| first >> 4 == 6);
    let (kind, protocol, ethertype, from, to): (u8, u8, [u8; 2], _, _) = if is_v6 {
        (2, ICMPV6, [0x86, 0xdd], ROUTER6, VIP6)
    } else {
        (3, ICMP, [8, 0], ROUTER4, VIP4)
    };
    let message_bytes = [&[kind, 4, 0, 0, 0, 0, 5, 0x78], quote].concat();
    let mut frame = [0; 12].to_vec();
    frame.extend(ethertype);
    frame.extend(ip(from, to, protocol, &message_bytes));
    frame.extend(std::iter::repeat_n(0, padding));
    let mut cursor = Slice::new(&frame);
    let Ok(network) = parse::network(&mut cursor) else {
        panic!("an IP packet")
    };
    assert_eq!(message(&mut cursor, &network), Ok(Message::Error));
    quoted(&mut cursor, &network)
}

#[test]
fn an_error_tells_the_flow_as_the_clients_packets_have_it() {
    let flow = |client: &str, vip: &str, protocol| Flow {
        source: client.parse::<IpAddr>().expect("literal").into(),
        destination: vip.parse::<IpAddr>().expect("literal").into(),
        source_port: 40_000,
        destination_port: 443,
        protocol,
    };
    let mut with_options = ip(VIP4, CLIENT4, TCP, &[&[1; 8], &PORTS[..]].concat());
    with_options[0] = 0x47;
    let mut first_fragment = ip(VIP4, CLIENT4, UDP, &PORTS);
    first_fragment[6] = 0x20;
    let fragment_header = [UDP, 0, 0, 1, 0, 0, 0, 7];
    let v6_fragment = ip(
        VIP6,
        CLIENT6,
        extension::FRAGMENT,
        &[fragment_header, PORTS].concat(),
    );
    let rows = [
        (
            "TCP over IPv4",
            ip(VIP4, CLIENT4, TCP, &PORTS),
            Some(flow(CLIENT4, VIP4, TCP)),
        ),
        (
            "UDP over IPv6",
            ip(VIP6, CLIENT6, UDP, &PORTS),
            Some(flow(CLIENT6, VIP6, UDP)),
        ),
        (
            "the ports alone",
            ip(VIP4, CLIENT4, TCP, &PORTS[..4]),
            Some(flow(CLIENT4, VIP4, TCP)),
        ),
        ("options", with_options, Some(flow(CLIENT4, VIP4, TCP))),
        ("a first fragment", first_fragment, Some(flow(CLIENT4, VIP4, UDP))),
        (
            "a first fragment of IPv6",
            v6_fragment,
            Some(flow(CLIENT6, VIP6, UDP)),
        ),
        ("an echo reply", ip(VIP4, CLIENT4, ICMP, &PORTS), None),
        ("ESP", ip(VIP6, CLIENT6, 50, &PORTS), None),
    ];
    for (name, quote, expected) in rows {
        assert_eq!(read(&quote, 0), Ok(expected), "{name}");
    }
}

#[test]
fn an_error_that_does_not_tell_its_flow_is_refused() {
    let mut later = ip(VIP4, CLIENT4, UDP, &PORTS);
    later[7] = 1;
    let later_v6 = ip(
        VIP6,
        CLIENT6,
        extension::FRAGMENT,
        &[[UDP, 0, 0, 8, 0, 0, 0, 7], PORTS].concat(),
    );
    let mut short_header = ip(VIP4, CLIENT4, TCP, &PORTS);
    short_header[0] = 0x44;
    let whole = ip(VIP4, CLIENT4, TCP, &PORTS);
    let rows = [
        ("nothing", vec_of(&[]), 0),
        ("half a header", whole[..19].to_vec(), 0),
        ("no ports", whole[..23].to_vec(), 0),
        // The frame goes on with zeroes, which are no part of the message.
        ("ports in the padding", whole[..20].to_vec(), 26),
        ("another version", vec_of(&[0x55; 40]), 0),
        ("a header of 16 bytes", short_header, 0),
        ("a later fragment", later, 0),
        ("a later fragment of IPv6", later_v6, 0),
        (
            "a packet of another address",
            ip(ROUTER4, CLIENT4, TCP, &PORTS),
            0,
        ),
    ];
    for (name, quote, padding) in rows {
        assert_eq!(read(&quote, padding), Err(DropReason::IcmpQuote), "{name}");
    }
}

fn vec_of(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

#[test]
fn the_checksum_of_an_echo_reply_is_what_a_host_computes() {
    let anew = |kind: u8, rest: &[u16]| {
        let sum = rest.iter().map(|&word| u64::from(word)).sum::<u64>() + (u64::from(kind) << 8);
        checksum::of(sum)
    };
    let rows: [&[u16]; 5] = [
        &[0, 0],
        &[0, 1],
        &[1, 0xffff],
        &[0xffff, 0],
        &[7, 9, 0x1234, 0xff00],
    ];
    for rest in rows {
        let word = u32::from(rest[0]) << 16 | u32::from(rest[1]);
        let len = 4 + 2 * rest.len();
        let reply = echo_checksum(anew(ECHO, rest), word, len, false);
        assert_eq!(reply, anew(ECHO_REPLY, rest), "{rest:04x?}");
        // The pseudo header of ICMPv6 is never all zeroes.
        let pseudo = [rest, &[0x20]].concat();
        let reply = echo_checksum(anew(ECHO_V6, &pseudo), word, len, true);
        assert_eq!(reply, anew(ECHO_REPLY_V6, &pseudo), "{rest:04x?}");
    }
}

proptest! {
    /// RFC 1071: the sum over everything, checksum included, is all ones.
    #[test]
    fn checksums_of_an_error_about_a_big_packet_are_right(
        quote in proptest::collection::vec(any::<[u8; 4]>(), 7..308), mtu in 68..70_000_u32,
        from in any::<[u8; 16]>(), to in any::<[u8; 16]>(), is_v6: bool,
    ) {
        let word = |bytes: &[u8; 16], at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let address = |bytes: &[u8; 16]| Address([word(bytes, 0), word(bytes, 4), word(bytes, 8), word(bytes, 12)]);
        let error = TooBig {
            mtu,
            quote_len: 4 * quote.len() as u32,
            quote_sum: quote.iter().map(|bytes| u64::from(u32::from_ne_bytes(*bytes))).sum(),
        };
        let (from, to) = (address(&from), address(&to));
        let words = if is_v6 { error.ipv6(from, to).to_vec() } else { error.ipv4(from, to).to_vec() };
        let mut packet: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let header_len = packet.len();
        packet.extend(quote.concat());
        let sum = |bytes: &[u8]| bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>();
        let be16 = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        if is_v6 {
            prop_assert_eq!(be16(4) + 40, packet.len());
            prop_assert_eq!(checksum::of(sum(&packet[8..]) + be16(4) as u64 + 58), 0);
            prop_assert_eq!(u32::from_be_bytes([packet[44], packet[45], packet[46], packet[47]]), mtu);
        } else {
            prop_assert_eq!(be16(2), packet.len());
            prop_assert_eq!(checksum::of(sum(&packet[..20])), 0);
            prop_assert_eq!(checksum::of(sum(&packet[20..])), 0);
            prop_assert_eq!(be16(26), mtu.min(65_535) as usize);
        }
        prop_assert_eq!(header_len, if is_v6 { 48 } else { 28 });
    }
}
