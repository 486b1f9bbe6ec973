//! Frames written down byte by byte, each with what must become of it. Nothing here is computed: a rule that the data path
//! and the host share, and both have wrong, shows.

use std::sync::{LazyLock, Mutex, PoisonError};

use edge_datapath::Action::{self, Drop, Pass};
use edge_datapath::Explainer;
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::setup::config;
use edge_model::DataPathConfig;

use crate::WORKERS;

/// Link headers of both families.
const ETH4: &str = "020000000001 020000000002 0800";
const ETH6: &str = "020000000001 020000000002 86dd";
/// From 203.0.113.9 to the IPv4 VIP, 10.77.100.1.
const TO4: &str = "cb007109 0a4d6401";
/// From 2001:db8::9 to the IPv6 VIP, fd77:100::1.
const TO6: &str = "20010db8000000000000000000000009 fd770100000000000000000000000001";
/// A SYN to port 80: ports, number, acknowledgement, length and flags, window, checksum, urgent pointer.
const SYN: &str = "9c40 0050 00000001 00000000 5002 ffff 0000 0000";
/// A datagram of 4 bytes to port 53.
const UDP: &str = "9c40 0035 000c 0000 01020304";
/// IPv4 headers before the addresses, with a SYN and with such a datagram.
const TCP4: &str = "4500 0028 0001 4000 40 06 0000";
const UDP4: &str = "4500 0020 0001 4000 40 11 0000";
/// IPv6 headers before the addresses, likewise.
const TCP6: &str = "60000000 0014 06 40";
const UDP6: &str = "60000000 000c 11 40";

/// Bytes of hexadecimal digits; blanks do not count.
fn frame(parts: &[&str]) -> Vec<u8> {
    let digits: Vec<u32> = parts
        .concat()
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_digit(16).expect("a digit"))
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "{parts:?}");
    pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect()
}

type Row<'a> = (&'a str, &'a [&'a str], Action, &'a str);

/// One program for all tests, as its verdicts here depend on no packet before.
static EXPLAINER: LazyLock<Mutex<Explainer>> = LazyLock::new(|| {
    let config = DataPathConfig {
        reflection_ports: vec![53],
        ..config(WORKERS)
    };
    Mutex::new(explainer(&config))
});

#[track_caller]
fn check(rows: &[Row<'_>]) {
    let mut explainer = EXPLAINER.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, parts, action, reason) in rows {
        let frame = frame(parts);
        let answer = run(&mut explainer, &frame);
        assert_eq!((answer.action, answer.reason), (*action, *reason), "{name}");
        assert_eq!(answer.packet_out, frame, "{name}: the frame is left as it was");
    }
}

#[test]
fn ipv4_headers_are_held_to_their_lengths() {
    check(&[
        ("a SYN", &[ETH4, TCP4, TO4, SYN], Pass, "deliver"),
        ("a datagram", &[ETH4, UDP4, TO4, UDP], Pass, "deliver"),
        (
            "padding behind the packet",
            &[ETH4, TCP4, TO4, SYN, "000000000000"],
            Pass,
            "deliver",
        ),
        (
            "version 6",
            &[ETH4, "6500 0028 0001 4000 40 06 0000", TO4, SYN],
            Drop,
            "bad_ipv4_version",
        ),
        (
            "a header of 4 words",
            &[ETH4, "4400 0028 0001 4000 40 06 0000", TO4, SYN],
            Drop,
            "bad_ipv4_header_length",
        ),
        (
            "a packet shorter than its header",
            &[ETH4, "4500 0013 0001 4000 40 06 0000", TO4, SYN],
            Drop,
            "bad_ipv4_header_length",
        ),
        (
            "a packet one byte longer than the frame",
            &[ETH4, "4500 0029 0001 4000 40 06 0000", TO4, SYN],
            Drop,
            "bad_ipv4_total_length",
        ),
        (
            "a frame that ends in the addresses",
            &[ETH4, TCP4, "cb007109 0a4d64"],
            Drop,
            "truncated_ipv4",
        ),
        (
            "options",
            &[
                ETH4,
                "4700 0030 0001 4000 40 06 0000",
                TO4,
                "9404000001010100",
                SYN,
            ],
            Pass,
            "deliver",
        ),
        (
            "options, and flags that are wrong",
            &[
                ETH4,
                "4700 0030 0001 4000 40 06 0000",
                TO4,
                "9404000001010100",
                "9c40 0050 00000001 00000000 5003 ffff 0000 0000",
            ],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "more options than the frame has bytes",
            &[ETH4, "4f00 003c 0001 4000 40 06 0000", TO4, SYN],
            Drop,
            "truncated_ipv4",
        ),
        (
            "a first fragment",
            &[ETH4, "4500 0028 0001 2000 40 06 0000", TO4, SYN],
            Drop,
            "fragment",
        ),
        (
            "a fragment in the middle",
            &[ETH4, "4500 0028 0001 2001 40 06 0000", TO4, SYN],
            Drop,
            "fragment",
        ),
        (
            "the last fragment",
            &[ETH4, "4500 0020 0001 0003 40 11 0000", TO4, UDP],
            Drop,
            "fragment",
        ),
        (
            "a tag",
            &["020000000001 020000000002 8100 0007 0800", TCP4, TO4, SYN],
            Pass,
            "deliver",
        ),
        (
            "a frame that ends in its tag",
            &["020000000001 020000000002 8100 00"],
            Drop,
            "truncated_vlan",
        ),
        (
            "two tags, and flags that are wrong",
            &[
                "020000000001 020000000002 88a8 0007 8100 0008 0800",
                TCP4,
                TO4,
                "9c40 0050 00000001 00000000 5000 ffff 0000 0000",
            ],
            Drop,
            "bad_tcp_flags",
        ),
    ]);
}

#[test]
fn ipv6_headers_and_extensions_are_held_to_their_lengths() {
    /// Extension headers: the next one's type, length in 8 bytes beyond the first, padding.
    const TO_TCP: &str = "06 00 010400000000";
    check(&[
        ("a SYN", &[ETH6, TCP6, TO6, SYN], Pass, "deliver"),
        ("a datagram", &[ETH6, UDP6, TO6, UDP], Pass, "deliver"),
        (
            "version 4",
            &[ETH6, "40000000 0014 06 40", TO6, SYN],
            Drop,
            "bad_ipv6_version",
        ),
        (
            "a packet one byte longer than the frame",
            &[ETH6, "60000000 0015 06 40", TO6, SYN],
            Drop,
            "bad_ipv6_payload_length",
        ),
        (
            "a frame that ends in the addresses",
            &[ETH6, TCP6, "20010db8000000000000000000000009 fd77"],
            Drop,
            "truncated_ipv6",
        ),
        (
            "hop-by-hop options",
            &[ETH6, "60000000 001c 00 40", TO6, TO_TCP, SYN],
            Pass,
            "deliver",
        ),
        (
            "destination options of 16 bytes",
            &[
                ETH6,
                "60000000 0024 3c 40",
                TO6,
                "06 01 010c000000000000000000000000",
                SYN,
            ],
            Pass,
            "deliver",
        ),
        (
            "a routing header, and flags that are wrong",
            &[
                ETH6,
                "60000000 001c 2b 40",
                TO6,
                TO_TCP,
                "9c40 0050 00000001 00000000 5006 ffff 0000 0000",
            ],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "options, and a datagram from a reflection port",
            &[
                ETH6,
                "60000000 0014 00 40",
                TO6,
                "11 00 010400000000",
                "0035 0035 000c 0000 01020304",
            ],
            Drop,
            "reflection_port",
        ),
        (
            "options that are longer than the packet",
            &[ETH6, "60000000 001c 00 40", TO6, "06 ff 010400000000", SYN],
            Drop,
            "truncated_ipv6_extension",
        ),
        (
            "options beyond the packet, within the frame",
            &[ETH6, "60000000 0004 00 40", TO6, TO_TCP, SYN],
            Drop,
            "truncated_ipv6_extension",
        ),
        (
            "more extension headers than anybody needs",
            &[
                ETH6,
                "60000000 0054 3c 40",
                TO6,
                "3c00010400000000 3c00010400000000 3c00010400000000 3c00010400000000",
                "3c00010400000000 3c00010400000000 3c00010400000000 0600010400000000",
                SYN,
            ],
            Drop,
            "ipv6_extension_limit",
        ),
        (
            "a first fragment",
            &[ETH6, "60000000 001c 2c 40", TO6, "06 00 0001 00000009", SYN],
            Drop,
            "fragment",
        ),
        (
            "a later fragment",
            &[ETH6, "60000000 001c 2c 40", TO6, "06 00 0008 00000009", SYN],
            Drop,
            "fragment",
        ),
        (
            "a fragment that is all of its packet",
            &[ETH6, "60000000 001c 2c 40", TO6, "06 00 0000 00000009", SYN],
            Pass,
            "deliver",
        ),
        (
            "no next header",
            &[ETH6, "60000000 0014 3b 40", TO6, SYN],
            Pass,
            "other_protocol",
        ),
    ]);
}

#[test]
fn transport_headers_are_held_to_their_lengths_and_flags() {
    check(&[
        (
            "19 bytes of TCP, and padding",
            &[ETH4, "4500 0027 0001 4000 40 06 0000", TO4, SYN],
            Drop,
            "truncated_tcp",
        ),
        (
            "19 bytes of TCP over IPv6, and padding",
            &[ETH6, "60000000 0013 06 40", TO6, SYN],
            Drop,
            "truncated_tcp",
        ),
        (
            "a TCP header of 4 words over IPv6",
            &[ETH6, TCP6, TO6, "9c40 0050 00000001 00000000 4002 ffff 0000 0000"],
            Drop,
            "bad_tcp_data_offset",
        ),
        (
            "TCP options beyond the packet over IPv6",
            &[ETH6, TCP6, TO6, "9c40 0050 00000001 00000000 6002 ffff 0000 0000"],
            Drop,
            "truncated_tcp",
        ),
        (
            "7 bytes of UDP",
            &[ETH4, "4500 001b 0001 4000 40 11 0000", TO4, UDP],
            Drop,
            "truncated_udp",
        ),
        (
            "7 bytes of UDP over IPv6",
            &[ETH6, "60000000 0007 11 40", TO6, UDP],
            Drop,
            "truncated_udp",
        ),
        (
            "a datagram shorter than its header over IPv6",
            &[ETH6, UDP6, TO6, "9c40 0035 0007 0000 01020304"],
            Drop,
            "bad_udp_length",
        ),
        (
            "a datagram longer than its packet over IPv6",
            &[ETH6, UDP6, TO6, "9c40 0035 000d 0000 01020304"],
            Drop,
            "bad_udp_length",
        ),
        (
            "no flags over IPv6",
            &[ETH6, TCP6, TO6, "9c40 0050 00000001 00000000 5000 ffff 0000 0000"],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "SYN and FIN over IPv6",
            &[ETH6, TCP6, TO6, "9c40 0050 00000001 00000000 5003 ffff 0000 0000"],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "SYN and ACK over IPv6",
            &[ETH6, TCP6, TO6, "9c40 0050 00000001 00000000 5012 ffff 0000 0000"],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "FIN, PSH and URG",
            &[ETH4, TCP4, TO4, "9c40 0050 00000001 00000000 5029 ffff 0000 0000"],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "RST and FIN",
            &[ETH4, TCP4, TO4, "9c40 0050 00000001 00000000 5005 ffff 0000 0000"],
            Drop,
            "bad_tcp_flags",
        ),
        (
            "RST and ACK over IPv6",
            &[ETH6, TCP6, TO6, "9c40 0050 00000001 00000000 5014 ffff 0000 0000"],
            Pass,
            "deliver",
        ),
        (
            "from port 0",
            &[ETH4, TCP4, TO4, "0000 0050 00000001 00000000 5002 ffff 0000 0000"],
            Drop,
            "port_zero",
        ),
        (
            "from port 0 over IPv6",
            &[ETH6, UDP6, TO6, "0000 0035 000c 0000 01020304"],
            Drop,
            "port_zero",
        ),
        (
            "from a reflection port",
            &[ETH4, UDP4, TO4, "0035 0035 000c 0000 01020304"],
            Drop,
            "reflection_port",
        ),
    ]);
}

#[test]
fn sources_and_messages_that_nobody_sends_are_dropped() {
    let vip6 = "fd770100000000000000000000000001";
    check(&[
        ("land", &[ETH4, UDP4, "0a4d6401 0a4d6401", UDP], Drop, "land"),
        ("land over IPv6", &[ETH6, TCP6, vip6, vip6, SYN], Drop, "land"),
        (
            "from 0.0.0.0",
            &[ETH4, UDP4, "00000000 0a4d6401", UDP],
            Drop,
            "bad_address",
        ),
        (
            "from 224.0.0.1",
            &[ETH4, TCP4, "e0000001 0a4d6401", SYN],
            Drop,
            "bad_address",
        ),
        (
            "from 255.255.255.255",
            &[ETH4, UDP4, "ffffffff 0a4d6401", UDP],
            Drop,
            "bad_address",
        ),
        (
            "from 223.255.255.255",
            &[ETH4, TCP4, "dfffffff 0a4d6401", SYN],
            Pass,
            "deliver",
        ),
        (
            "from ::1",
            &[ETH6, TCP6, "00000000000000000000000000000001", vip6, SYN],
            Drop,
            "bad_address",
        ),
        (
            "from ::ffff:203.0.113.9",
            &[ETH6, UDP6, "00000000000000000000ffffcb007109", vip6, UDP],
            Drop,
            "bad_address",
        ),
        (
            "7 bytes of ICMP",
            &[ETH4, "4500 001b 0001 4000 40 01 0000", TO4, "0800 0000 000700"],
            Drop,
            "truncated_icmp",
        ),
        (
            "a redirect",
            &[ETH4, "4500 001c 0001 4000 40 01 0000", TO4, "0501 0000 00000000"],
            Drop,
            "icmp_type",
        ),
        (
            "a fragment of an echo request",
            &[ETH4, "4500 001c 0001 2000 40 01 0000", TO4, "0800 0000 00070001"],
            Drop,
            "fragment",
        ),
        (
            "7 bytes of ICMPv6",
            &[ETH6, "60000000 0007 3a 40", TO6, "8000 0000 000700"],
            Drop,
            "truncated_icmp",
        ),
        (
            "a listener report over IPv6",
            &[ETH6, "60000000 0008 3a 40", TO6, "8300 0000 00000000"],
            Drop,
            "icmp_type",
        ),
        (
            "neighbour discovery",
            &[ETH6, "60000000 0008 3a ff", TO6, "8700 0000 00000000"],
            Pass,
            "other_protocol",
        ),
        (
            "neighbour discovery by a router",
            &[ETH6, "60000000 0008 3a fe", TO6, "8700 0000 00000000"],
            Drop,
            "icmp_type",
        ),
    ]);
}
