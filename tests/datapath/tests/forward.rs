//! Packets to workers elsewhere through the real program: tunnels, the connection table, changes. Needs root.

use std::net::IpAddr;

use edge_common::connection::WAYS;
use edge_common::{Flow, HashKey, checksum};
use edge_datapath::{Action, Detached, Explainer, Flows};
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{ACK, Packet, SYN, TCP4, TCP6, UDP4, inserted, tagged, with};
use edge_datapath_tests::setup;
use edge_model::{DataPathConfig, ForwardMode, Member, MemberState, Spread, Unserved, Vip};

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// Room for the packets that the kernel's verifier may look at before it gives up at a million.
const VERIFIED: u32 = 600_000;

fn member(number: u8, mode: ForwardMode) -> Member {
    setup::member(
        &format!("worker {number}"),
        IpAddr::from([10, 0, 0, number]),
        mode,
    )
}

fn config(mode: ForwardMode) -> DataPathConfig {
    let members = (1..=4).map(|number| member(number, mode)).collect();
    setup::balancer(members, Some(GATEWAY))
}

/// How a packet's worker was found, and which it is.
fn flow(explainer: &mut Explainer, packet: &Packet) -> (Option<&'static str>, Option<IpAddr>) {
    let answer = run(explainer, &packet.frame());
    (answer.flow, answer.member.map(|member| member.address))
}

#[test]
fn the_verifier_has_room_for_more() {
    let mut tier_1 = Detached::load(Flows::FEW).expect("needs root and a kernel with BPF");
    let walked = tier_1
        .verified_instructions()
        .expect("loaded")
        .unwrap_or(u32::MAX);
    assert!(walked <= VERIFIED, "{walked} instructions were verified");
}

/// A name, a configuration, a frame, how its answer begins behind the addresses, and the bytes of what is put around it.
type TunnelRow = (&'static str, DataPathConfig, Vec<u8>, &'static [u8], usize);

#[test]
fn tunnels_carry_the_packet_as_it_is() {
    let v6_worker: IpAddr = "fd00::1".parse().expect("literal");
    let gue = ForwardMode::Gue { port: 6080 };
    let to = |mode, address: Option<IpAddr>| {
        let mut config = config(mode);
        for member in &mut config.pools[0].members {
            member.address = address.unwrap_or(member.address);
        }
        config.pools[0]
            .members
            .truncate(if address.is_some() { 1 } else { 4 });
        config
    };
    let rows: [TunnelRow; 9] = [
        (
            "IPIP",
            to(ForwardMode::Ipip, None),
            TCP4.frame(),
            &[0x08, 0, 0x45],
            20,
        ),
        (
            "6in4",
            to(ForwardMode::Ipip, None),
            TCP6.frame(),
            &[0x08, 0, 0x45],
            20,
        ),
        (
            "IPv4 in IPv6",
            to(ForwardMode::Ipip, Some(v6_worker)),
            TCP4.frame(),
            &[0x86, 0xdd, 0x60],
            40,
        ),
        (
            "IP6IP6",
            to(ForwardMode::Ipip, Some(v6_worker)),
            TCP6.frame(),
            &[0x86, 0xdd, 0x60],
            40,
        ),
        ("GUE", to(gue, None), UDP4.frame(), &[0x08, 0, 0x45], 28),
        (
            "GUE over IPv6",
            to(gue, Some(v6_worker)),
            TCP6.frame(),
            &[0x86, 0xdd, 0x60],
            48,
        ),
        (
            "VLAN",
            to(ForwardMode::Ipip, None),
            tagged(TCP4.frame()),
            &[0x81, 0, 0, 7, 0x08, 0, 0x45],
            20,
        ),
        (
            "QinQ",
            to(gue, None),
            tagged(tagged(TCP4.frame())),
            &[0x81, 0, 0, 7, 0x81, 0, 0, 7, 0x08, 0, 0x45],
            28,
        ),
        (
            "layer 2",
            to(ForwardMode::L2, None),
            TCP4.frame(),
            &[0x08, 0, 0x45],
            0,
        ),
    ];
    for (name, mut config, frame, head, overhead) in rows {
        for member in &mut config.pools[0].members {
            member.next_hop = Some(GATEWAY);
        }
        let answer = run(&mut explainer(&config), &frame);
        assert_eq!((answer.action, answer.reason), (Action::Tx, "forward"), "{name}");
        let out = &answer.packet_out;
        assert_eq!(out.len(), frame.len() + overhead, "{name}");
        assert_eq!(out[..6], GATEWAY, "{name}");
        assert_eq!(out[6..12], frame[..6], "{name}");
        assert!(out[12..].starts_with(head), "{name}: {out:02x?}");
        let link = 12 + head.len() - 1;
        assert_eq!(out[link + overhead..], frame[link..], "{name}");
    }
}

#[test]
fn what_no_tunnel_carries_is_dropped_with_its_reason() {
    let mut small = config(ForwardMode::Ipip);
    small.tunnel.mtu = 59;
    let mut nobody = config(ForwardMode::Ipip);
    nobody.pools[0].members.clear();
    let options = with(inserted(TCP4.frame(), 34, &[1; 8]), 14, &[0x47, 0, 0, 48]);
    let all = config(ForwardMode::Ipip);
    let rows = [
        ("options", &all, options, "ip_options"),
        ("a fragment", &all, with(TCP4.frame(), 20, &[0x20, 0]), "fragment"),
        (
            "too big, and fragments allowed",
            &small,
            with(TCP4.frame(), 20, &[0]),
            "too_big",
        ),
        ("no worker", &nobody, TCP4.frame(), "no_worker"),
        (
            "an unserved port",
            &all,
            Packet {
                destination_port: 81,
                ..TCP4
            }
            .frame(),
            "no_service",
        ),
    ];
    for (name, config, frame, reason) in rows {
        let answer = run(&mut explainer(config), &frame);
        assert_eq!((answer.action, answer.reason), (Action::Drop, reason), "{name}");
    }
}

/// Sum of 16-bit words.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

#[test]
fn the_sender_of_a_packet_that_does_not_fit_is_told_what_does() {
    let v6_worker: IpAddr = "fd00::1".parse().expect("literal");
    let gue = ForwardMode::Gue { port: 6080 };
    for (of, mode, address, overhead) in [
        (TCP4, ForwardMode::Ipip, None, 20),
        (TCP4, gue, Some(v6_worker), 48),
        (TCP6, ForwardMode::Ipip, Some(v6_worker), 40),
        (TCP6, gue, None, 28),
        (UDP4, ForwardMode::Ipip, None, 20),
    ] {
        let mut config = config(mode);
        for member in &mut config.pools[0].members {
            member.address = address.unwrap_or(member.address);
        }
        config.pools[0].members.truncate(1);
        let is_v6 = of.source.is_ipv6();
        for (extra, vlan) in [(1, false), (600, false), (1481, true)] {
            // A packet that is `extra` bytes too long.
            let mut frame = of.frame();
            let fits = 1500 - overhead;
            frame.resize(14 + fits + extra, 0x5a);
            let len = (frame.len() - 14) as u16;
            if is_v6 {
                frame = with(frame, 18, &(len - 40).to_be_bytes());
            } else {
                frame = with(frame, 16, &len.to_be_bytes());
            }
            if of.protocol == 17 {
                frame = with(frame, 38, &(len - 20).to_be_bytes());
            }
            let link = if vlan { 18 } else { 14 };
            let frame = if vlan { tagged(frame) } else { frame };
            let name = format!("{mode:?} {of:?}, {extra} bytes");
            let answer = run(&mut explainer(&config), &frame);
            assert_eq!(
                (answer.action, answer.reason),
                (Action::Tx, "icmp_too_big"),
                "{name}"
            );
            let out = &answer.packet_out;
            assert_eq!((&out[..6], &out[6..12]), (&frame[6..12], &frame[..6]), "{name}");
            assert_eq!(out[12..link], frame[12..link], "{name}");
            let (packet, asked) = (&out[link..], &frame[link..]);
            if is_v6 {
                assert_eq!(packet.len(), 1280, "{name}");
                assert_eq!((&packet[8..24], &packet[24..40]), (&asked[24..40], &asked[8..24]));
                let len = packet.len() as u64 - 40;
                assert_eq!((packet[6], sum(&packet[4..6])), (58, len), "{name}");
                assert_eq!(checksum::of(sum(&packet[8..]) + len + 58), 0, "{name}");
                assert_eq!((packet[40], packet[41]), (2, 0), "{name}");
                assert_eq!(
                    sum(&packet[44..46]) << 16 | sum(&packet[46..48]),
                    fits as u64,
                    "{name}"
                );
                assert_eq!(packet[48..], asked[..1232], "{name}");
            } else {
                assert_eq!(packet.len(), 576, "{name}");
                assert_eq!(
                    (&packet[12..16], &packet[16..20]),
                    (&asked[16..20], &asked[12..16])
                );
                assert_eq!(checksum::of(sum(&packet[..20])), 0, "{name}");
                assert_eq!((packet[9], sum(&packet[2..4])), (1, 576), "{name}");
                assert_eq!(checksum::of(sum(&packet[20..])), 0, "{name}");
                assert_eq!(
                    (packet[20], packet[21], sum(&packet[26..28])),
                    (3, 4, fits as u64)
                );
                assert_eq!(packet[28..], asked[..548], "{name}");
            }
        }
    }
}

#[test]
fn errors_about_big_packets_are_few() {
    let mut small = config(ForwardMode::Ipip);
    small.tunnel.mtu = 59;
    let mut explainer = explainer(&small);
    let reasons: Vec<_> = (0..2000)
        .map(|_| run(&mut explainer, &TCP4.frame()).reason)
        .collect();
    let count = |reason| reasons.iter().filter(|of| **of == reason).count();
    // Fifty at once and a thousand a second: the rest comes too fast, unless each took a millisecond.
    assert!(count("icmp_too_big") >= 50, "{}", count("icmp_too_big"));
    assert_eq!(count("icmp_too_big") + count("icmp_rate"), 2000);
}

#[test]
fn a_flow_stays_with_its_worker_while_others_come_drain_and_fail() {
    let mut now = config(ForwardMode::Ipip);
    let mut explainer = explainer(&now);
    let flows: Vec<Packet> = (0..64)
        .map(|number| Packet {
            source_port: 20_000 + number,
            ..TCP4
        })
        .collect();
    let later = |packet: &Packet| Packet {
        flags: ACK,
        ..*packet
    };
    let first: Vec<_> = flows.iter().map(|packet| flow(&mut explainer, packet)).collect();
    assert!(
        first.iter().all(|(reason, _)| *reason == Some("new")),
        "{first:?}"
    );
    let busy = first[0].1;
    let of_busy = first.iter().filter(|(_, worker)| *worker == busy).count();
    let index = now.pools[0]
        .members
        .iter()
        .position(|member| Some(member.address) == busy)
        .expect("it is one of them");
    let check = |explainer: &mut Explainer, now: &DataPathConfig, moved: usize| {
        explainer.configure(now).expect("the configuration fits");
        let answers: Vec<_> = flows
            .iter()
            .map(|packet| flow(explainer, &later(packet)))
            .collect();
        let others = answers
            .iter()
            .zip(&first)
            .filter(|(answer, first)| answer.1 != first.1);
        assert_eq!(others.count(), moved);
        answers
    };
    check(&mut explainer, &now, 0);
    now.pools[0].members.push(member(9, ForwardMode::Ipip));
    check(&mut explainer, &now, 0);
    now.pools[0].members[index].state = MemberState::Draining;
    check(&mut explainer, &now, 0);
    let new = Packet {
        source_port: 7,
        ..TCP4
    };
    let fresh: Vec<_> = (100..200)
        .map(|port| {
            flow(
                &mut explainer,
                &Packet {
                    source_port: port,
                    ..new
                },
            )
        })
        .collect();
    assert!(
        fresh
            .iter()
            .all(|(reason, worker)| *reason == Some("new") && *worker != busy)
    );
    now.pools[0].members[index].state = MemberState::Down;
    let answers = check(&mut explainer, &now, of_busy);
    let reselected = answers.iter().filter(|(reason, _)| *reason == Some("reselected"));
    assert_eq!(reselected.count(), of_busy);
    // The flows stay with those that took them over.
    now.pools[0].members[index].state = MemberState::Active;
    let back = check(&mut explainer, &now, of_busy);
    assert!(back.iter().all(|(reason, _)| *reason == Some("known")));
    now.pools[0].members.clear();
    explainer.configure(&now).expect("the configuration fits");
    assert_eq!(run(&mut explainer, &later(&flows[0]).frame()).reason, "no_worker");
}

#[test]
fn a_worker_that_takes_the_place_of_another_does_not_get_its_flows() {
    let mut now = config(ForwardMode::Ipip);
    now.pools[0].members.truncate(1);
    let mut explainer = explainer(&now);
    assert_eq!(flow(&mut explainer, &TCP4).0, Some("new"));
    now.pools[0].members = vec![member(2, ForwardMode::Ipip)];
    explainer.configure(&now).expect("the configuration fits");
    now.pools[0].members = vec![member(3, ForwardMode::Ipip)];
    explainer.configure(&now).expect("the configuration fits");
    let ack = Packet { flags: ACK, ..TCP4 };
    let third = Some(IpAddr::from([10, 0, 0, 3]));
    assert_eq!(flow(&mut explainer, &ack), (Some("reselected"), third));
    assert_eq!(flow(&mut explainer, &ack), (Some("known"), third));
}

/// Packets whose flows stand in the first bucket of the connection table, which has as many as `Flows::FEW` asks for.
fn of_the_first_bucket(template: Packet, count: usize) -> Vec<Packet> {
    let key = HashKey::from_seed(config(ForwardMode::Ipip).hash_seed);
    let buckets = u64::from(Flows::FEW.limit) / WAYS as u64;
    let packets = (0..u32::MAX).map(|number| Packet {
        source: IpAddr::from((0x0a4d_0000 + number % 65_536).to_be_bytes()),
        source_port: 1024 + (number / 65_536) as u16,
        ..template
    });
    let flow = |packet: &Packet| Flow {
        source: packet.source.into(),
        destination: packet.destination.into(),
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
    };
    let is_first = |packet: &Packet| key.hash(&flow(packet)).is_multiple_of(buckets);
    packets.filter(is_first).take(count).collect()
}

#[test]
fn syns_and_datagrams_push_out_no_flow_that_lives() {
    for load in [Explainer::load, Explainer::load_general] {
        let mut explainer = load().expect("needs root and a kernel with BPF");
        let config = config(ForwardMode::Ipip);
        explainer.configure(&config).expect("the configuration fits");
        let established = of_the_first_bucket(Packet { flags: ACK, ..TCP4 }, WAYS);
        for packet in &established {
            assert_eq!(
                flow(
                    &mut explainer,
                    &Packet {
                        flags: SYN,
                        ..*packet
                    }
                )
                .0,
                Some("new")
            );
            assert_eq!(flow(&mut explainer, packet).0, Some("known"));
        }
        let syns = of_the_first_bucket(TCP4, 3 * WAYS).split_off(WAYS);
        let datagrams = of_the_first_bucket(UDP4, 2 * WAYS);
        for packet in syns.iter().chain(&datagrams) {
            for _ in 0..2 {
                assert_eq!(flow(&mut explainer, packet).0, Some("unrecorded"), "{packet:?}");
            }
        }
        for packet in &established {
            assert_eq!(flow(&mut explainer, packet).0, Some("known"), "{packet:?}");
        }
        // A segment takes the place of one of them, and others that of the first.
        let segments = syns.iter().map(|packet| Packet {
            flags: ACK,
            ..*packet
        });
        for packet in segments {
            assert_eq!(flow(&mut explainer, &packet).0, Some("adopted"), "{packet:?}");
        }
        let left = established
            .iter()
            .filter(|packet| flow(&mut explainer, packet).0 == Some("known"));
        assert_eq!(left.count(), WAYS - 1);
    }
}

#[test]
fn flags_of_a_vip_decide_what_its_flows_have_in_common() {
    let other_port = Packet {
        source_port: 999,
        ..TCP4
    };
    let other_source = Packet {
        source: IpAddr::from([10, 77, 0, 200]),
        ..TCP4
    };
    let workers = |spread, packets: [&Packet; 2]| {
        let mut config = config(ForwardMode::Ipip);
        config.pools[0].members = (1..=200)
            .map(|number| member(number, ForwardMode::Ipip))
            .collect();
        for vip in &mut config.vips {
            vip.spread = spread;
        }
        let mut explainer = explainer(&config);
        packets.map(|packet| flow(&mut explainer, packet))
    };
    let rows = [
        (Spread::Flow, &other_port, false),
        (Spread::NoSourcePort, &other_port, true),
        (Spread::NoSourcePort, &other_source, false),
        (Spread::DestinationPort, &other_source, true),
        (Spread::Source, &other_port, true),
        (Spread::Source, &other_source, false),
    ];
    for (spread, other, is_same) in rows {
        let [one, two] = workers(spread, [&TCP4, other]);
        assert_eq!(one.1 == two.1, is_same, "{spread:?}: {one:?}, {two:?}");
        let second = if spread == Spread::Source && is_same {
            "known"
        } else {
            "new"
        };
        assert_eq!((one.0, two.0), (Some("new"), Some(second)), "{spread:?}");
    }
}

#[test]
fn a_flow_is_explained_by_what_is_known_of_it() {
    let mut now = config(ForwardMode::Ipip);
    let mut with_table = explainer(&now);
    let ack = Packet { flags: ACK, ..TCP4 };
    let other = Packet {
        source_port: 4,
        ..ack
    };
    let udp = Packet {
        source_port: 5,
        ..UDP4
    };
    let rows = [
        ("a SYN", TCP4, "new"),
        ("the SYN again", Packet { flags: SYN, ..TCP4 }, "known"),
        ("its ACK", ack, "known"),
        ("a segment of a connection from elsewhere", other, "adopted"),
        ("a datagram", udp, "new"),
        ("another", udp, "known"),
    ];
    for (name, packet, expected) in rows {
        assert_eq!(flow(&mut with_table, &packet).0, Some(expected), "{name}");
    }
    for vip in &mut now.vips {
        vip.remembers = false;
    }
    let mut without = explainer(&now);
    assert_eq!(flow(&mut without, &TCP4).0, Some("stateless"));
    assert_eq!(flow(&mut without, &ack).0, Some("stateless"));
}

/// An ICMP error of a router about a packet of a connection of `client`'s, which the virtual address sent.
fn error_about(client: &Packet, kind: u8) -> Vec<u8> {
    let is_v6 = client.source.is_ipv6();
    let quoted = Packet {
        source: client.destination,
        destination: client.source,
        source_port: client.destination_port,
        destination_port: client.source_port,
        flags: ACK,
        ..*client
    };
    let router: IpAddr = if is_v6 { "fd77::99" } else { "10.77.9.9" }
        .parse()
        .expect("literal");
    let mut frame = Packet {
        source: router,
        protocol: if is_v6 { 58 } else { 1 },
        ..*client
    }
    .frame();
    let at = if is_v6 { 54 } else { 34 };
    frame.truncate(at);
    frame.extend([kind, 4, 0, 0, 0, 0, 5, 0x78]);
    frame.extend(&quoted.frame()[14..]);
    let len = (frame.len() - at) as u16;
    let (field, len) = if is_v6 { (18, len) } else { (16, len + 20) };
    with(frame, field, &len.to_be_bytes())
}

#[test]
fn an_icmp_error_goes_to_the_worker_of_the_flow_that_it_quotes() {
    let mut now = config(ForwardMode::Ipip);
    let mut explainer = explainer(&now);
    for (packet, kinds) in [(TCP4, [3, 11, 12]), (TCP6, [1, 2, 3]), (UDP4, [3, 11, 12])] {
        for port in 100..110 {
            let packet = Packet {
                source_port: port,
                ..packet
            };
            let (_, worker) = flow(&mut explainer, &packet);
            for kind in kinds {
                let frame = error_about(&packet, kind);
                let answer = run(&mut explainer, &frame);
                assert_eq!(
                    (answer.action, answer.flow),
                    (Action::Tx, Some("quoted")),
                    "{packet:?}"
                );
                assert_eq!(answer.member.map(|member| member.address), worker, "{packet:?}");
                assert_eq!(answer.packet_out[34..], frame[14..], "{packet:?}");
            }
        }
    }
    // The connection table decides, not the selection of today.
    let packet = Packet {
        source_port: 100,
        ..TCP4
    };
    let (_, worker) = flow(&mut explainer, &packet);
    for member in &mut now.pools[0].members {
        if Some(member.address) == worker {
            member.state = MemberState::Draining;
        }
    }
    explainer.configure(&now).expect("the configuration fits");
    let answer = run(&mut explainer, &error_about(&packet, 3));
    assert_eq!(answer.member.map(|member| member.address), worker);
    // An error proves nothing about a flow: it is not remembered.
    let unknown = Packet {
        source_port: 7,
        ..TCP4
    };
    assert_eq!(
        run(&mut explainer, &error_about(&unknown, 3)).flow,
        Some("quoted")
    );
    assert_eq!(flow(&mut explainer, &unknown).0, Some("new"));
}

#[test]
fn an_icmp_error_that_follows_no_flow_has_its_reason() {
    let mut local = config(ForwardMode::Ipip);
    for member in &mut local.pools[0].members {
        member.mode = ForwardMode::Local;
    }
    let all = config(ForwardMode::Ipip);
    let other_port = Packet {
        destination_port: 81,
        ..TCP4
    };
    let whole = error_about(&TCP4, 3);
    let rows = [
        ("a worker of this node", &local, whole.clone(), "icmp_error"),
        (
            "an unserved port",
            &all,
            error_about(&other_port, 3),
            "icmp_error",
        ),
        (
            "another address's packet",
            &all,
            with(whole.clone(), 14 + 20 + 8 + 12, &[10, 77, 100, 2]),
            "icmp_quote",
        ),
        (
            "a later fragment",
            &all,
            with(whole.clone(), 14 + 20 + 8 + 7, &[9]),
            "icmp_quote",
        ),
        ("no ports", &all, with(whole.clone(), 16, &[0, 48]), "icmp_quote"),
        (
            "options before it",
            &all,
            with(inserted(whole, 34, &[1; 8]), 14, &[0x47, 0, 0, 76]),
            "ip_options",
        ),
    ];
    for (name, config, frame, reason) in rows {
        let answer = run(&mut explainer(config), &frame);
        assert_eq!(answer.reason, reason, "{name}");
        assert_eq!(answer.packet_out, frame, "{name}");
    }
}

#[test]
fn all_ports_and_prefixes_are_served_and_the_closest_counts() {
    let mut now = config(ForwardMode::Ipip);
    let any = Vip {
        port: 0,
        unserved: Unserved::Drop,
        ..now.vips[0]
    };
    let net = Vip {
        address: IpAddr::from([10, 77, 100, 0]),
        free_bits: 8,
        port: 443,
        ..any
    };
    let wide = Vip {
        free_bits: 16,
        address: IpAddr::from([10, 77, 0, 0]),
        port: 0,
        ..net
    };
    now.vips = vec![Vip { port: 80, ..any }, any, net, wide];
    let mut explainer = explainer(&now);
    let to = |last: [u8; 2], port| Packet {
        destination: IpAddr::from([10, 77, last[0], last[1]]),
        destination_port: port,
        ..TCP4
    };
    let rows = [
        (to([100, 1], 80), "10.77.100.1:80/tcp"),
        (to([100, 1], 81), "10.77.100.1:0/tcp"),
        (to([100, 2], 443), "10.77.100.0/24:443/tcp"),
        (to([7, 7], 9), "10.77.0.0/16:0/tcp"),
    ];
    for (packet, vip) in rows {
        let answer = run(&mut explainer, &packet.frame());
        assert_eq!(answer.reason, "forward", "{vip}");
        assert_eq!(answer.vip.map(|vip| vip.to_string()).as_deref(), Some(vip));
    }
    let unserved = run(&mut explainer, &to([100, 2], 80).frame());
    assert_eq!(
        unserved.reason, "no_service",
        "the closer prefix has no such port"
    );
    let elsewhere = Packet {
        destination: IpAddr::from([10, 78, 0, 1]),
        ..TCP4
    };
    assert_eq!(run(&mut explainer, &elsewhere.frame()).reason, "no_vip");
}
