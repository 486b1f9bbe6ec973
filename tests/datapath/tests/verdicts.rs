//! Packets through the real program (BPF_PROG_TEST_RUN): action, reason and worker of each. Needs root.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use edge_common::{Address, Flow, HashKey, TCP};
use edge_datapath::{Action, Explainer, Explanation, maglev};
use edge_datapath_tests::frame::{ACK, Packet, TCP4, TCP6, UDP4, UDP6, inserted, tagged, with};
use edge_datapath_tests::setup::{config, limited};
use edge_model::{
    DataPathConfig, Measure, Penalty, PenaltyReason, PenaltyScope, Prefix, SourceLists, SynCookies,
    TokenRate, Worker,
};

const WORKERS: u16 = 4;

fn explainer(config: &DataPathConfig) -> Explainer {
    let mut explainer = Explainer::load().expect("needs root and a kernel with BPF");
    explainer.configure(config).expect("the configuration fits");
    explainer
}

fn run(explainer: &mut Explainer, frame: &[u8]) -> Explanation {
    explainer.run(frame).expect("the kernel runs the frame")
}

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
fn a_source_beyond_its_rate_of_packets_is_dropped_and_no_other() {
    let mut explainer = explainer(&limited(WORKERS, 5, 5));
    let ack = Packet { flags: ACK, ..TCP4 };
    for _ in 0..5 {
        assert_eq!(run(&mut explainer, &ack.frame()).reason, "deliver");
    }
    let unserved = Packet {
        destination_port: 22,
        ..ack
    };
    let other = Packet {
        source: IpAddr::from([10, 77, 0, 9]),
        ..ack
    };
    check(
        &mut explainer,
        vec![
            ("the sixth packet", ack.frame(), Action::Drop, "flood_packets"),
            (
                "from another port",
                Packet {
                    source_port: 1,
                    ..ack
                }
                .frame(),
                Action::Drop,
                "flood_packets",
            ),
            (
                "to a port nobody serves",
                unserved.frame(),
                Action::Drop,
                "no_service",
            ),
            ("from another source", other.frame(), Action::Pass, "deliver"),
        ],
    );
}

#[test]
fn a_source_beyond_its_rate_of_connections_keeps_those_it_has() {
    let mut explainer = explainer(&limited(WORKERS, 1000, 3));
    let neighbour: IpAddr = "fd77::ffff:2".parse().expect("literal");
    let stranger: IpAddr = "fd77:0:0:1::1".parse().expect("literal");
    for _ in 0..3 {
        assert_eq!(run(&mut explainer, &TCP6.frame()).reason, "deliver");
    }
    check(
        &mut explainer,
        vec![
            (
                "a fourth connection",
                TCP6.frame(),
                Action::Drop,
                "flood_new_connections",
            ),
            (
                "from the same /64",
                Packet {
                    source: neighbour,
                    ..TCP6
                }
                .frame(),
                Action::Drop,
                "flood_new_connections",
            ),
            (
                "from another /64",
                Packet {
                    source: stranger,
                    ..TCP6
                }
                .frame(),
                Action::Pass,
                "deliver",
            ),
            (
                "a packet of a connection",
                Packet { flags: ACK, ..TCP6 }.frame(),
                Action::Pass,
                "deliver",
            ),
        ],
    );
}

#[test]
fn a_penalty_drops_its_source_until_it_ends() {
    let mut explainer = explainer(&config(WORKERS));
    let penalty = |source: IpAddr, time| penalty(&source.to_string(), time, Measure::default());
    let minute = Duration::from_secs(60);
    explainer.penalise(&penalty(TCP4.source, minute)).expect("fits");
    explainer
        .penalise(&penalty(TCP6.source, Duration::ZERO))
        .expect("fits");
    // The data path's clock is as old as the last timer tick, at most 10 ms.
    std::thread::sleep(Duration::from_millis(20));
    let other = Packet {
        source: IpAddr::from([10, 77, 0, 9]),
        ..TCP4
    };
    let not_for_us = Packet {
        destination: IpAddr::from([10, 77, 0, 2]),
        ..TCP4
    };
    check(
        &mut explainer,
        vec![
            ("a SYN", TCP4.frame(), Action::Drop, "penalty"),
            ("UDP", UDP4.frame(), Action::Drop, "penalty"),
            (
                "a port nobody serves",
                Packet {
                    destination_port: 22,
                    ..TCP4
                }
                .frame(),
                Action::Drop,
                "no_service",
            ),
            ("another source", other.frame(), Action::Pass, "deliver"),
            (
                "the source's packets to other addresses",
                not_for_us.frame(),
                Action::Pass,
                "no_vip",
            ),
            (
                "a source whose penalty is over",
                TCP6.frame(),
                Action::Pass,
                "deliver",
            ),
        ],
    );
}

fn penalty(source: &str, time: Duration, measure: Measure) -> Penalty {
    Penalty {
        source: source.parse().expect("literal"),
        until: Instant::now() + time,
        reason: PenaltyReason::RateLimit,
        measure,
    }
}

#[test]
fn a_penalty_holds_a_prefix_to_a_rate_or_only_its_new_connections() {
    let mut explainer = explainer(&config(WORKERS));
    let minute = Duration::from_secs(60);
    let rate = Some(TokenRate {
        per_second: 1,
        burst: 3,
    });
    let measure = |rate, scope| Measure { rate, scope };
    for (source, measure) in [
        ("10.77.0.0/24", measure(rate, PenaltyScope::Everything)),
        ("fd77::/64", measure(None, PenaltyScope::NewConnections)),
        ("10.78.0.0/15", measure(rate, PenaltyScope::NewConnections)),
    ] {
        explainer
            .penalise(&penalty(source, minute, measure))
            .expect("fits");
    }
    let from = |source: &str, packet: Packet| Packet {
        source: source.parse().expect("literal"),
        ..packet
    };
    let ack = |packet: Packet| Packet { flags: ACK, ..packet };
    for (name, source) in [("first", 1), ("second", 2), ("third", 3)] {
        let packet = ack(from(&format!("10.77.0.{source}"), TCP4));
        assert_eq!(run(&mut explainer, &packet.frame()).reason, "deliver", "{name}");
        let opens = from(&format!("10.79.0.{source}"), TCP4);
        assert_eq!(run(&mut explainer, &opens.frame()).reason, "deliver", "{name}");
    }
    use Action::{Drop, Pass};
    let rows = [
        (
            "a fourth packet",
            ack(from("10.77.0.9", TCP4)),
            Drop,
            "penalty_rate",
        ),
        ("of another prefix", ack(from("10.77.1.9", TCP4)), Pass, "deliver"),
        (
            "a fourth connection",
            from("10.78.0.9", TCP4),
            Drop,
            "penalty_rate",
        ),
        (
            "a connection that exists",
            ack(from("10.78.0.9", TCP4)),
            Pass,
            "deliver",
        ),
        ("any new connection", from("fd77::9", TCP6), Drop, "penalty"),
        ("an old one", ack(from("fd77::9", TCP6)), Pass, "deliver"),
        ("a datagram", from("fd77::9", UDP6), Pass, "deliver"),
    ];
    let rows = rows.map(|(name, packet, action, reason)| (name, packet.frame(), action, reason));
    check(&mut explainer, rows.into());
}

#[test]
fn thousands_of_penalties_are_taken_kept_apart_and_forgotten() {
    let mut explainer = explainer(&config(WORKERS));
    let source = |n: u32| IpAddr::from((0x0a00_0000 + n * 97).to_be_bytes());
    let minute = Duration::from_secs(60);
    let start = Instant::now();
    for n in 0..10_000 {
        let penalty = penalty(&source(n).to_string(), minute, Measure::default());
        explainer.penalise(&penalty).expect("fits");
        // An update is no second penalty.
        explainer.penalise(&penalty).expect("fits");
    }
    let updates = 20_000.0 / start.elapsed().as_secs_f64();
    println!("{updates:.0} penalties and updates of them a second");
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let n = random.u32(..1_000_000);
        let packet = Packet {
            source: source(n),
            ..TCP4
        };
        let expected = if n < 10_000 { "penalty" } else { "deliver" };
        assert_eq!(
            run(&mut explainer, &packet.frame()).reason,
            expected,
            "{packet:?}"
        );
    }
}

#[test]
fn lists_decide_about_sources_and_the_allow_list_outweighs() {
    let list = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("literal")).collect();
    let with = |allow: &[&str], deny: &[&str]| DataPathConfig {
        sources: SourceLists {
            allow: list(allow),
            deny: list(deny),
        },
        ..limited(WORKERS, 1, 1)
    };
    let from = |source: &str| {
        let template = if source.contains(':') { TCP6 } else { TCP4 };
        Packet {
            source: source.parse().expect("literal"),
            ..template
        }
    };
    let deny = [
        "198.51.100.0/24",
        "203.0.112.0/21",
        "203.0.113.7",
        "2001:db8::/31",
        "11.0.0.0/8",
    ];
    let mut explainer = explainer(&with(&["203.0.113.0/25", "2001:db8:0:1::/64"], &deny));
    explainer
        .penalise(&penalty(
            "203.0.113.9",
            Duration::from_secs(60),
            Measure::default(),
        ))
        .expect("fits");
    use Action::{Drop, Pass};
    let not_for_us = Packet {
        destination: IpAddr::from([10, 77, 0, 2]),
        ..from("198.51.100.1")
    };
    let rows = [
        ("denied", from("198.51.100.255"), Drop, "denied"),
        ("next to it", from("198.51.101.0"), Pass, "deliver"),
        ("in a short prefix", from("11.255.0.1"), Drop, "denied"),
        ("in a wide one", from("203.0.113.200"), Drop, "denied"),
        ("allowed inside of it", from("203.0.113.100"), Pass, "deliver"),
        (
            "again, beyond the limit of others",
            from("203.0.113.100"),
            Pass,
            "deliver",
        ),
        (
            "allowed and denied by itself",
            from("203.0.113.7"),
            Pass,
            "deliver",
        ),
        ("allowed, with a penalty", from("203.0.113.9"), Pass, "deliver"),
        ("IPv6, denied", from("2001:db9::1"), Drop, "denied"),
        (
            "IPv6, allowed inside of it",
            from("2001:db8:0:1::9"),
            Pass,
            "deliver",
        ),
        ("IPv6, next to it", from("2001:dba::1"), Pass, "deliver"),
        ("denied, for another address", not_for_us, Pass, "no_vip"),
    ];
    let rows = rows.map(|(name, packet, action, reason)| (name, packet.frame(), action, reason));
    check(&mut explainer, rows.into());

    explainer.configure(&with(&[], &["203.0.113.7"])).expect("fits");
    let rows = [
        ("no longer denied", from("198.51.100.255"), Pass, "deliver"),
        ("no longer allowed", from("203.0.113.7"), Drop, "denied"),
    ];
    let rows = rows.map(|(name, packet, action, reason)| (name, packet.frame(), action, reason));
    check(&mut explainer, rows.into());
}

#[test]
fn the_data_path_agrees_with_a_long_deny_list() {
    let mut random = fastrand::Rng::with_seed(3);
    let deny: Vec<Prefix> = (0..5_000)
        .map(|n| match n % 5 {
            0 => Prefix::new(
                (random.u128(..) >> 3 | 1 << 125).to_be_bytes().into(),
                random.u8(29..=64),
            ),
            _ => Prefix::new(random.u32(..).to_be_bytes().into(), random.u8(14..=32)),
        })
        .map(|prefix| prefix.expect("a length of the family"))
        .collect();
    let config = DataPathConfig {
        sources: SourceLists {
            deny: deny.clone().into(),
            ..SourceLists::default()
        },
        ..config(WORKERS)
    };
    let mut explainer = explainer(&config);
    let mut denied = 0;
    for n in 0..4_000 {
        let near = deny[random.usize(..deny.len())];
        let source = match near.address() {
            IpAddr::V4(v4) if n % 2 == 0 => IpAddr::from((v4.to_bits() ^ random.u32(..) >> 16).to_be_bytes()),
            IpAddr::V4(_) => IpAddr::from(random.u32(..).to_be_bytes()),
            IpAddr::V6(v6) => {
                IpAddr::from((v6.to_bits() ^ random.u128(..) >> random.u32(32..100)).to_be_bytes())
            }
        };
        let first = source
            .to_string()
            .split('.')
            .next()
            .and_then(|octet| octet.parse::<u8>().ok());
        if first.is_some_and(|first| first == 0 || first == 127 || first >= 224) {
            continue;
        }
        let template = if source.is_ipv4() { TCP4 } else { TCP6 };
        let expected = deny
            .iter()
            .any(|prefix| Prefix::new(source, prefix.prefix_len()).is_some_and(|of| of == *prefix));
        denied += u32::from(expected);
        let answer = run(&mut explainer, &Packet { source, ..template }.frame());
        assert_eq!(
            answer.reason,
            if expected { "denied" } else { "deliver" },
            "{source}"
        );
    }
    assert!((500..3500).contains(&denied), "both kinds are tried: {denied}");
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

/// A SYN with the options of Linux.
fn linux_syn(packet: Packet) -> Vec<u8> {
    let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
    let frame = packet.frame();
    let (tcp, lengths) = if packet.source.is_ipv4() {
        (34, (16, 60))
    } else {
        (54, (18, 40))
    };
    let frame = with(frame, tcp + 12, &[0xa0]);
    let frame = with(frame, lengths.0, &[0, lengths.1]);
    inserted(frame, tcp + 20, &options)
}

#[test]
fn a_syn_is_answered_with_a_cookie_that_its_ack_brings_back() {
    let mut explainer = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Always),
        ..config(WORKERS)
    });
    for (packet, tcp, tagged_too) in [(TCP4, 34, false), (TCP6, 54, false), (TCP4, 38, true)] {
        let syn = if tagged_too {
            tagged(linux_syn(packet))
        } else {
            linux_syn(packet)
        };
        // One a second is left to the kernel.
        if !tagged_too {
            assert_eq!(run(&mut explainer, &syn).reason, "deliver");
        }
        let answer = run(&mut explainer, &syn);
        assert_eq!((answer.action, answer.reason), (Action::Tx, "syn_cookie"));
        let out = &answer.packet_out;
        assert_eq!(
            (&out[..6], &out[6..12]),
            (&syn[6..12], &syn[..6]),
            "MAC addresses"
        );
        assert_eq!(
            (&out[tcp..tcp + 2], &out[tcp + 2..tcp + 4]),
            (&syn[tcp + 2..tcp + 4], &syn[tcp..tcp + 2])
        );
        assert_eq!(out[tcp + 13], 0x12, "SYN and ACK");
        assert_eq!(
            out[tcp + 8..tcp + 12],
            [0, 0, 0, 2],
            "the SYN's number, and one more"
        );
        assert_eq!(&out[tcp + 20..tcp + 22], [2, 4], "the MSS");
        let cookie = u32::from_be_bytes(out[tcp + 4..tcp + 8].try_into().expect("four bytes"));
        let ack = |number: u32| {
            let ack = Packet { flags: ACK, ..packet }.frame();
            let ack = if tagged_too { tagged(ack) } else { ack };
            let ack = with(ack, tcp + 4, &[0, 0, 0, 2]);
            with(ack, tcp + 8, &number.to_be_bytes())
        };
        let right = run(&mut explainer, &ack(cookie.wrapping_add(1)));
        assert_eq!((right.action, right.reason), (Action::Pass, "deliver"));
        let wrong = run(&mut explainer, &ack(cookie.wrapping_add(1000)));
        assert_eq!((wrong.action, wrong.reason), (Action::Drop, "bad_syn_cookie"));
    }
    let options = with(inserted(TCP4.frame(), 34, &[1; 8]), 14, &[0x47, 0, 0, 48]);
    assert_eq!(run(&mut explainer, &options).reason, "syn_options");
}

#[test]
fn cookies_begin_above_the_rate_of_syns_and_a_vip_is_held_to_its_rate() {
    let rate = |burst| TokenRate { per_second: 1, burst };
    let mut auto = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Above(rate(3))),
        ..config(WORKERS)
    });
    let again: Vec<_> = (0..9).map(|_| run(&mut auto, &TCP4.frame()).reason).collect();
    assert_eq!(
        again, ["deliver"; 9],
        "one that is sent again is not counted again"
    );
    let mut others =
        (1000..2000).map(|source_port| run(&mut auto, &Packet { source_port, ..TCP4 }.frame()).reason);
    let first = others.position(|reason| reason == "syn_cookie");
    // Three are within the rate, and the next is left to the kernel; a slow machine's second admits one more.
    assert!(first.is_some_and(|first| first >= 3), "{first:?}");
    assert_eq!(run(&mut auto, &TCP6.frame()).reason, "deliver", "another VIP");
    let mut limited = explainer(&DataPathConfig {
        vip_limit: Some(rate(2)),
        ..config(WORKERS)
    });
    let reasons: Vec<_> = (0..3).map(|_| run(&mut limited, &TCP4.frame()).reason).collect();
    assert_eq!(reasons, ["deliver", "deliver", "vip_new_connections"]);
    let ack = Packet { flags: ACK, ..TCP4 };
    assert_eq!(run(&mut limited, &ack.frame()).reason, "deliver");
}

#[test]
fn a_syn_whose_handshake_ends_is_not_counted_and_a_made_up_end_does_not_help() {
    let mut always = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Always),
        ..config(WORKERS)
    });
    // The first is left to the kernel.
    run(&mut always, &TCP4.frame());
    let mut auto = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Above(TokenRate {
            per_second: 1,
            burst: 3,
        })),
        ..config(WORKERS)
    });
    // Where the TCP header begins, and the number of a SYN of the tests and one more.
    let (tcp, next) = (34, [0, 0, 0, 2]);
    let ack = |source_port, number: u32| {
        let ack = Packet {
            flags: ACK,
            source_port,
            ..TCP4
        };
        with(with(ack.frame(), tcp + 4, &next), tcp + 8, &number.to_be_bytes())
    };
    for source_port in 1000..1020 {
        let syn = Packet { source_port, ..TCP4 }.frame();
        // Once a second one is left to the kernel.
        let answer =
            std::iter::repeat_with(|| run(&mut always, &syn)).find(|answer| answer.reason == "syn_cookie");
        let answer = answer.expect("without end").packet_out;
        let cookie = u32::from_be_bytes(answer[tcp + 4..tcp + 8].try_into().expect("four bytes"));
        assert_eq!(run(&mut auto, &syn).reason, "deliver", "{source_port}");
        let ack = ack(source_port, cookie.wrapping_add(1));
        assert_eq!(run(&mut auto, &ack).reason, "deliver", "{source_port}");
    }
    let mut made_up = (2000..3000).map(|source_port| {
        let reason = run(&mut auto, &Packet { source_port, ..TCP4 }.frame()).reason;
        run(&mut auto, &ack(source_port, 77));
        reason
    });
    assert!(made_up.any(|reason| reason == "syn_cookie"));
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
