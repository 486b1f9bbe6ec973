//! Packets that load balancers send in tunnels, through the real program (BPF_PROG_TEST_RUN). Needs root.

use std::net::IpAddr;

use edge_datapath::Action;
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{Packet, TCP4, TCP6, UDP4, UDP6, tagged, with};
use edge_datapath_tests::setup::config;
use edge_datapath_tests::tunnel::{Kind, aged, complete_checksum, tunnelled};
use edge_model::{DataPathConfig, TunnelRole, Tunnels};

const GUE: Kind = Kind::Gue(6080);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// A node with ends of tunnels of both families.
fn node(trusted: &[&str], role: TunnelRole) -> DataPathConfig {
    DataPathConfig {
        tunnels: Some(Tunnels {
            endpoints: vec![ip("10.9.0.2"), ip("fd09::2")],
            relays: vec![],
            trusted: trusted
                .iter()
                .map(|text| text.parse().expect("literal"))
                .collect(),
            gue_port: 6080,
            role,
        }),
        ..config(4)
    }
}

/// From a load balancer to this node.
fn to_node(packet: Packet, kind: Kind, over_v6: bool) -> Vec<u8> {
    let (from, to) = if over_v6 {
        ("fd09::1", "fd09::2")
    } else {
        ("10.9.0.1", "10.9.0.2")
    };
    tunnelled(&packet.frame(), kind, ip(from), ip(to))
}

#[test]
fn every_tunnel_is_taken_off_and_its_packet_goes_the_way_of_any_other() {
    let mut explainer = explainer(&node(&[], TunnelRole::Gateway));
    for packet in [TCP4, UDP4, TCP6, UDP6] {
        let alone = run(&mut explainer, &packet.frame());
        for kind in [Kind::Ip, GUE, Kind::GueWithHeader(6080)] {
            for over_v6 in [false, true] {
                let frame = to_node(packet, kind, over_v6);
                let name = format!(
                    "{kind:?} over {}: {packet:?}",
                    if over_v6 { "IPv6" } else { "IPv4" }
                );
                let answer = run(&mut explainer, &frame);
                assert_eq!(
                    (answer.action, answer.reason),
                    (Action::Pass, "deliver"),
                    "{name}"
                );
                assert_eq!((answer.worker, answer.vip), (alone.worker, alone.vip), "{name}");
                assert_eq!(answer.packet_out, aged(packet.frame()), "{name}");
                let in_vlan = run(&mut explainer, &tagged(tagged(frame)));
                assert_eq!(
                    in_vlan.packet_out,
                    tagged(tagged(aged(packet.frame()))),
                    "{name}, QinQ"
                );
            }
        }
    }
}

#[test]
fn what_came_by_a_tunnel_is_judged_like_any_other_packet() {
    let mut explainer = explainer(&node(&[], TunnelRole::Gateway));
    let rows = [
        (
            "a port nobody serves",
            Packet {
                destination_port: 22,
                ..TCP4
            },
            "no_service",
        ),
        (
            "flags that no TCP sends",
            Packet { flags: 0x03, ..TCP4 },
            "bad_tcp_flags",
        ),
        (
            "land",
            Packet {
                source: TCP4.destination,
                ..TCP4
            },
            "land",
        ),
    ];
    for (name, packet, reason) in rows {
        let answer = run(&mut explainer, &to_node(packet, GUE, false));
        assert_eq!((answer.action, answer.reason), (Action::Drop, reason), "{name}");
    }
}

#[test]
fn a_tunnel_that_breaks_a_rule_is_dropped_with_its_reason() {
    use Action::{Drop, Pass};
    let mut explainer = explainer(&node(&["10.9.0.0/31", "fd09::/127"], TunnelRole::Gateway));
    let ipip = || to_node(TCP4, Kind::Ip, false);
    let elsewhere = Packet {
        destination: ip("10.77.0.2"),
        ..TCP4
    };
    let header = |at: usize, byte: u8| {
        let mut frame = with(ipip(), 14 + at, &[byte]);
        complete_checksum(&mut frame[14..]);
        frame
    };
    let inner = TCP4.frame();
    let from = |source| tunnelled(&inner, Kind::Ip, ip(source), ip("10.9.0.2"));
    let nested = tunnelled(&ipip(), Kind::Ip, ip("10.9.0.1"), ip("10.9.0.2"));
    let rows = [
        ("a trusted source", ipip(), Pass, "deliver"),
        ("another", from("10.9.0.3"), Drop, "tunnel_source"),
        (
            "for no virtual address",
            to_node(elsewhere, Kind::Ip, false),
            Drop,
            "tunnel_inner",
        ),
        ("a tunnel in a tunnel", nested, Drop, "tunnel_inner"),
        ("options", header(0, 0x46), Drop, "tunnel_options"),
        ("a fragment", header(6, 0x20), Drop, "tunnel_fragment"),
        (
            "a wrong checksum",
            with(ipip(), 24, &[1]),
            Drop,
            "tunnel_checksum",
        ),
        (
            "congestion that cannot be told",
            header(1, 3),
            Drop,
            "tunnel_congestion",
        ),
        ("at its end", with(ipip(), 42, &[0]), Drop, "tunnel_ttl"),
        ("at its last hop", with(ipip(), 42, &[1]), Drop, "tunnel_ttl"),
        (
            "GUE of another variant",
            with(to_node(TCP4, GUE, false), 42, &[0x80]),
            Drop,
            "tunnel_header",
        ),
        (
            "the node's own datagrams",
            to_node(TCP4, Kind::Gue(53), false),
            Pass,
            "no_vip",
        ),
        (
            "the node's own TCP",
            Packet {
                destination: ip("10.9.0.2"),
                ..TCP4
            }
            .frame(),
            Pass,
            "no_vip",
        ),
        (
            "a tunnel that ends elsewhere",
            tunnelled(&inner, Kind::Ip, ip("10.9.0.1"), ip("10.9.0.9")),
            Pass,
            "no_vip",
        ),
    ];
    for (name, frame, action, reason) in rows {
        let answer = run(&mut explainer, &frame);
        assert_eq!((answer.action, answer.reason), (action, reason), "{name}");
    }
}

#[test]
fn a_mark_of_congestion_is_carried_over_with_a_right_checksum() {
    let mut explainer = explainer(&node(&[], TunnelRole::Gateway));
    for packet in [TCP4, TCP6] {
        let is_v6 = packet.source.is_ipv6();
        // ECT(0), then what it is to become.
        let marked = |mark: u8| {
            let mut frame = packet.frame();
            if is_v6 {
                frame[15] |= mark << 4;
            } else {
                frame[15] |= mark;
                complete_checksum(&mut frame[14..]);
            }
            frame
        };
        let mut frame = tunnelled(&marked(2), Kind::Ip, ip("10.9.0.1"), ip("10.9.0.2"));
        frame[15] = 3;
        complete_checksum(&mut frame[14..]);
        let answer = run(&mut explainer, &frame);
        assert_eq!(answer.packet_out, aged(marked(3)));
    }
}

#[test]
fn a_plain_host_takes_packets_out_of_tunnels_and_does_nothing_else() {
    let addresses = vec![TCP4.destination, TCP6.destination];
    let host = DataPathConfig {
        vips: vec![],
        workers: vec![],
        ..node(&[], TunnelRole::PlainHost { addresses })
    };
    let mut explainer = explainer(&host);
    let odd = Packet {
        destination_port: 9999,
        ..UDP6
    };
    for (name, frame, out, reason) in [
        (
            "in a tunnel",
            to_node(TCP4, GUE, false),
            aged(TCP4.frame()),
            "decapsulated",
        ),
        (
            "to any port",
            to_node(odd, Kind::Ip, true),
            aged(odd.frame()),
            "decapsulated",
        ),
        ("not in a tunnel", TCP4.frame(), TCP4.frame(), "no_vip"),
    ] {
        let answer = run(&mut explainer, &frame);
        assert_eq!((answer.action, answer.reason), (Action::Pass, reason), "{name}");
        assert_eq!(answer.packet_out, out, "{name}");
    }
    let elsewhere = Packet {
        destination: ip("10.77.0.2"),
        ..TCP4
    };
    let answer = run(&mut explainer, &to_node(elsewhere, Kind::Ip, false));
    assert_eq!((answer.action, answer.reason), (Action::Drop, "tunnel_inner"));
}
