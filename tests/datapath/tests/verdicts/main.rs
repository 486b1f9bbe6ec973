//! Packets through the real program (BPF_PROG_TEST_RUN): action, reason and worker of each. Needs root.

mod by_hand;
mod cookies;
mod lists;
mod sources;

use std::net::IpAddr;

use edge_common::{Address, Flow, HashKey, TCP};
use edge_datapath::{Action, Explainer, maglev};
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{ACK, Packet, TCP4, TCP6, UDP4, UDP6, inserted, tagged, with};
use edge_datapath_tests::setup::config;
use edge_model::{DataPathConfig, Worker};

const WORKERS: u16 = 4;

/// Runs rows of name, frame, expected action and expected reason.
fn check(explainer: &mut Explainer, rows: Vec<(&str, Vec<u8>, Action, &str)>) {
    for (name, frame, action, reason) in rows {
        let answer = run(explainer, &frame);
        assert_eq!((answer.action, answer.reason), (action, reason), "{name}");
        assert_eq!(answer.packet_out, frame, "{name}: the frame is left as it was");
        assert_eq!(answer.worker.is_some(), reason == "deliver", "{name}: {answer:?}");
    }
}

#[test]
fn packets_to_a_vip_go_to_a_worker_and_others_are_left_alone() {
    use Action::{Drop, Pass};
    let other_v4 = IpAddr::from([10, 77, 0, 2]);
    let mut explainer = explainer(&config(WORKERS));
    let ipv4_options = with(inserted(TCP4.frame(), 34, &[1; 8]), 14, &[0x47, 0, 0, 48]);
    let ipv6_options = with(
        inserted(TCP6.frame(), 54, &[TCP, 0, 1, 4, 0, 0, 0, 0]),
        18,
        &[0, 28, 0],
    );
    check(
        &mut explainer,
        vec![
            ("TCP SYN", TCP4.frame(), Pass, "deliver"),
            ("TCP ACK", Packet { flags: ACK, ..TCP4 }.frame(), Pass, "deliver"),
            ("UDP", UDP4.frame(), Pass, "deliver"),
            ("IPv6 TCP", TCP6.frame(), Pass, "deliver"),
            ("IPv6 UDP", UDP6.frame(), Pass, "deliver"),
            ("VLAN", tagged(TCP4.frame()), Pass, "deliver"),
            ("QinQ", tagged(tagged(UDP6.frame())), Pass, "deliver"),
            ("IPv4 options", ipv4_options, Pass, "deliver"),
            ("IPv6 hop-by-hop options", ipv6_options, Pass, "deliver"),
            (
                "a port nobody serves",
                Packet {
                    destination_port: 22,
                    ..TCP4
                }
                .frame(),
                Drop,
                "no_service",
            ),
            (
                "TCP to the UDP service",
                Packet {
                    destination_port: 53,
                    ..TCP4
                }
                .frame(),
                Drop,
                "no_service",
            ),
            (
                "ESP to the VIP",
                Packet { protocol: 50, ..TCP4 }.frame(),
                Pass,
                "other_protocol",
            ),
            (
                "another address",
                Packet {
                    destination: other_v4,
                    ..TCP4
                }
                .frame(),
                Pass,
                "no_vip",
            ),
            (
                "ICMP to another address",
                Packet {
                    destination: other_v4,
                    protocol: 1,
                    ..TCP4
                }
                .frame(),
                Pass,
                "no_vip",
            ),
            ("ARP", with(TCP4.frame(), 12, &[0x08, 0x06]), Pass, "not_ip"),
            (
                "three VLAN tags",
                tagged(tagged(tagged(TCP4.frame()))),
                Pass,
                "not_ip",
            ),
        ],
    );
}

#[test]
fn malformed_packets_to_a_vip_drop_and_what_is_wrong_with_others_is_not_tier_1s_business() {
    use Action::{Drop, Pass};
    let mut explainer = explainer(&config(WORKERS));
    let elsewhere = |packet: Packet| {
        Packet {
            destination: IpAddr::from([10, 77, 0, 2]),
            ..packet
        }
        .frame()
    };
    check(
        &mut explainer,
        vec![
            (
                "IP version 5",
                with(TCP4.frame(), 14, &[0x55]),
                Drop,
                "bad_ipv4_version",
            ),
            (
                "IPv4 header of 16 bytes",
                with(TCP4.frame(), 14, &[0x44]),
                Drop,
                "bad_ipv4_header_length",
            ),
            (
                "total length beyond the frame",
                with(TCP4.frame(), 16, &[0, 41]),
                Drop,
                "bad_ipv4_total_length",
            ),
            (
                "first fragment",
                with(TCP4.frame(), 20, &[0x20, 0]),
                Drop,
                "fragment",
            ),
            (
                "later fragment",
                with(UDP4.frame(), 20, &[0, 9]),
                Drop,
                "fragment",
            ),
            (
                "data offset 4",
                with(TCP4.frame(), 46, &[0x40]),
                Drop,
                "bad_tcp_data_offset",
            ),
            (
                "data offset beyond the packet",
                with(TCP4.frame(), 46, &[0xf0]),
                Drop,
                "truncated_tcp",
            ),
            (
                "UDP length 7",
                with(UDP4.frame(), 38, &[0, 7]),
                Drop,
                "bad_udp_length",
            ),
            (
                "UDP length beyond the packet",
                with(UDP4.frame(), 38, &[0, 9]),
                Drop,
                "bad_udp_length",
            ),
            (
                "IPv6 header with version 4",
                with(TCP6.frame(), 14, &[0x40]),
                Drop,
                "bad_ipv6_version",
            ),
            (
                "IPv6 payload beyond the frame",
                with(TCP6.frame(), 18, &[0, 21]),
                Drop,
                "bad_ipv6_payload_length",
            ),
            (
                "a TCP header taken for an extension",
                with(TCP6.frame(), 20, &[0]),
                Drop,
                "truncated_ipv6_extension",
            ),
            (
                "a fragment for another address",
                with(elsewhere(TCP4), 20, &[0, 9]),
                Pass,
                "no_vip",
            ),
            (
                "data offset 4 for another address",
                with(elsewhere(TCP4), 46, &[0x40]),
                Pass,
                "no_vip",
            ),
            (
                "total length beyond the frame for another",
                with(elsewhere(TCP4), 16, &[0, 41]),
                Drop,
                "bad_ipv4_total_length",
            ),
        ],
    );
}

#[test]
fn a_frame_of_any_length_up_to_80_bytes_gets_an_answer_and_none_passes_cut_off() {
    let mut explainer = explainer(&config(WORKERS));
    let packets = [TCP4.frame(), UDP4.frame(), TCP6.frame(), UDP6.frame()];
    for frame in packets.iter().cloned().chain(packets.iter().cloned().map(tagged)) {
        for len in 0..=80 {
            let mut cut = frame.clone();
            cut.resize(len, 0);
            let answer = run(&mut explainer, &cut);
            let action = if len < frame.len() {
                Action::Drop
            } else {
                Action::Pass
            };
            assert_eq!(
                answer.action,
                action,
                "{len} of {} bytes: {}",
                frame.len(),
                answer.reason
            );
            assert_ne!(answer.reason, "no_verdict");
        }
    }
}

#[test]
fn the_kernel_and_userspace_agree_on_the_worker_of_every_flow() {
    let config = config(WORKERS);
    let mut explainer = explainer(&config);
    let key = HashKey::from_seed(config.hash_seed);
    let share = |worker: &Worker| maglev::Share::new(worker.id.0, worker.weight);
    let table = maglev::build(&config.workers.iter().map(share).collect::<Vec<_>>());
    let mut seen = [0_u32; WORKERS as usize];
    let mut random = fastrand::Rng::with_seed(7);
    for template in [TCP4, UDP4, TCP6, UDP6] {
        for _ in 0..500 {
            // Unicast addresses only: others drop before a worker is chosen.
            let source = match template.source {
                IpAddr::V4(_) => IpAddr::from(random.u32(0x0100_0000..0x7f00_0000).to_be_bytes()),
                IpAddr::V6(_) => IpAddr::from((random.u128(..) >> 3 | 1 << 125).to_be_bytes()),
            };
            let packet = Packet {
                source,
                source_port: random.u16(1..),
                ..template
            };
            let flow = Flow {
                source: Address::from(packet.source),
                destination: Address::from(packet.destination),
                source_port: packet.source_port,
                destination_port: packet.destination_port,
                protocol: packet.protocol,
            };
            let worker = run(&mut explainer, &packet.frame()).worker.map(|worker| worker.0);
            assert_eq!(worker, table.worker(key.hash(&flow)), "{packet:?}");
            seen[usize::from(worker.expect("delivered"))] += 1;
        }
    }
    // 500 flows a worker are expected; 100 is more than five standard deviations.
    assert!(seen.iter().all(|&count| count.abs_diff(500) < 100), "{seen:?}");
}

#[test]
fn what_no_honest_client_sends_drops_and_says_which_rule_it_broke() {
    use Action::{Drop, Pass};
    let mut explainer = explainer(&DataPathConfig {
        reflection_ports: vec![53, 65_535],
        ..config(WORKERS)
    });
    let flags = |flags| Packet { flags, ..TCP4 };
    let from = |source: &str, packet: Packet| Packet {
        source: source.parse().expect("literal"),
        ..packet
    };
    let port = |source_port, packet: Packet| Packet {
        source_port,
        ..packet
    };
    // The host part of an IPv4 address that pretends to come by IPv6.
    let mapped = with(
        TCP6.frame(),
        22,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 1],
    );
    check(
        &mut explainer,
        vec![
            ("no flags", flags(0).frame(), Drop, "bad_tcp_flags"),
            ("SYN and FIN", flags(0x03).frame(), Drop, "bad_tcp_flags"),
            ("SYN and RST", flags(0x06).frame(), Drop, "bad_tcp_flags"),
            ("all flags", flags(0xff).frame(), Drop, "bad_tcp_flags"),
            ("FIN alone", flags(0x01).frame(), Drop, "bad_tcp_flags"),
            (
                "SYN and ACK to a service",
                flags(0x12).frame(),
                Drop,
                "bad_tcp_flags",
            ),
            ("SYN with ECN", flags(0xc2).frame(), Pass, "deliver"),
            ("RST", flags(0x04).frame(), Pass, "deliver"),
            ("FIN, PSH and ACK", flags(0x19).frame(), Pass, "deliver"),
            ("land", from("10.77.100.1", TCP4).frame(), Drop, "land"),
            ("land over IPv6", from("fd77:100::1", UDP6).frame(), Drop, "land"),
            ("from port 0", port(0, UDP4).frame(), Drop, "port_zero"),
            ("loopback", from("127.0.0.1", TCP4).frame(), Drop, "bad_address"),
            ("multicast", from("ff02::1", TCP6).frame(), Drop, "bad_address"),
            ("unspecified", from("::", UDP6).frame(), Drop, "bad_address"),
            ("IPv4 in IPv6", mapped, Drop, "bad_address"),
            (
                "a reflected answer",
                port(53, UDP4).frame(),
                Drop,
                "reflection_port",
            ),
            (
                "the last port",
                port(65_535, UDP6).frame(),
                Drop,
                "reflection_port",
            ),
            ("TCP from there", port(53, TCP4).frame(), Pass, "deliver"),
            ("another port", port(54, UDP4).frame(), Pass, "deliver"),
        ],
    );
}

#[test]
fn without_configuration_all_passes_and_without_workers_a_vip_drops() {
    let mut explainer = Explainer::load().expect("needs root and a kernel with BPF");
    check(
        &mut explainer,
        vec![(
            "before the first one",
            TCP4.frame(),
            Action::Pass,
            "not_configured",
        )],
    );
    explainer.configure(&config(0)).expect("fits");
    check(
        &mut explainer,
        vec![("no worker", TCP4.frame(), Action::Drop, "no_worker")],
    );
    let vip = run(&mut explainer, &TCP4.frame()).vip.map(|vip| vip.to_string());
    assert_eq!(vip.as_deref(), Some("10.77.100.1:80/tcp"));
    let mut draining = config(2);
    draining.workers.iter_mut().for_each(|worker| worker.weight = 0);
    explainer.configure(&draining).expect("fits");
    check(
        &mut explainer,
        vec![("only draining workers", TCP6.frame(), Action::Drop, "no_worker")],
    );
    explainer.configure(&config(1)).expect("fits");
    check(
        &mut explainer,
        vec![("a worker", TCP4.frame(), Action::Pass, "deliver")],
    );
    explainer
        .configure(&DataPathConfig {
            vips: Vec::new(),
            ..config(1)
        })
        .expect("fits");
    check(
        &mut explainer,
        vec![("the VIP gone", TCP4.frame(), Action::Pass, "no_vip")],
    );
}
