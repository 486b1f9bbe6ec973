//! Connections whose worker is not the selected one: a balancer that did not see them begin, the worker's node that it
//! asks, and the one before. Needs root.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_datapath::{DataPath, Explainer, LoadOptions, OnStop, Pinning, Stats};
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{ACK, Packet, TCP4, TCP6, UDP4, tagged, with};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::{self, VIP4, VIP6};
use edge_datapath_tests::tunnel::{Kind, aged, complete_checksum, tunnelled};
use edge_lab::{BpfFs, wait_until};
use edge_model::{DataPathConfig, ForwardMode, MemberState, SynCookies, TunnelRole, Tunnels};
use socket2::{Domain, Socket, Type};

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const LIMIT: Duration = Duration::from_secs(10);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// A balancer of two workers.
fn balancer(mode: ForwardMode, addresses: [&str; 2]) -> DataPathConfig {
    let members = addresses.map(|address| setup::member(address, ip(address), mode));
    let mut config = setup::balancer(members.into(), Some(GATEWAY));
    config.tunnel.second_hop = true;
    config
}

/// A host that serves the virtual addresses without gateway workers.
fn host(endpoint: &str, trusted: &[&str]) -> DataPathConfig {
    DataPathConfig {
        tunnels: Some(Tunnels {
            endpoints: vec![ip(endpoint)],
            relays: vec![],
            trusted: trusted
                .iter()
                .map(|text| text.parse().expect("literal"))
                .collect(),
            gue_port: 6080,
            role: TunnelRole::PlainHost {
                addresses: vec![VIP4.into(), VIP6.into()],
            },
        }),
        ..DataPathConfig::default()
    }
}

/// How a packet of a balancer was found its worker, and which it is.
fn flow(explainer: &mut Explainer, packet: &Packet) -> (Option<&'static str>, Option<IpAddr>, Vec<u8>) {
    let answer = explainer.run(&packet.frame()).expect("the kernel runs the frame");
    let member = answer.member.map(|member| member.address);
    (answer.flow, member, answer.packet_out)
}

/// Packets of connections that nobody saw begin.
fn unknown(of: Packet) -> impl Iterator<Item = Packet> {
    (0..64).map(move |number| Packet {
        source_port: 20_000 + number,
        flags: ACK,
        ..of
    })
}

#[test]
fn a_balancer_sends_connections_that_it_does_not_know_by_way_of_who_drains() {
    let gue = ForwardMode::Gue { port: 6080 };
    let rows = [
        (ForwardMode::Ipip, ["10.0.0.1", "10.0.0.2"], TCP4),
        (ForwardMode::Ipip, ["fd07::1", "fd07::2"], TCP4),
        (ForwardMode::Ipip, ["10.0.0.1", "fd07::2"], TCP6),
        (gue, ["10.0.0.1", "10.0.0.2"], TCP6),
        (gue, ["fd07::1", "fd07::2"], TCP4),
    ];
    for (mode, addresses, of) in rows {
        let mut config = balancer(mode, addresses);
        let mut before = explainer(&config);
        let owners: Vec<_> = unknown(of).map(|packet| flow(&mut before, &packet).1).collect();
        config.pools[0].members[1].state = MemberState::Draining;
        let mut after = explainer(&config);
        let drains = Some(ip(addresses[1]));
        let sources = &["172.16.0.0/16", "fd00:ed9e::/64"];
        let [mut worker, mut other] = addresses.map(|address| explainer(&host(address, sources)));
        for (packet, owner) in unknown(of).zip(owners) {
            for round in ["first", "second"] {
                let name = format!("{mode:?} {addresses:?} {packet:?}: the {round}");
                let (reason, chosen, out) = flow(&mut after, &packet);
                assert_eq!(chosen, Some(ip(addresses[0])), "{name}");
                let nests = reason == Some("second_hop");
                assert_eq!(nests, owner == drains, "{name}: {reason:?}");
                // What the first worker's node takes off, and then the second's.
                let len = |at: usize| {
                    let ip = if ip(addresses[at]).is_ipv4() { 20 } else { 40 };
                    ip + if mode == gue { 8 } else { 0 }
                };
                if nests {
                    let packet_len = packet.frame().len();
                    assert_eq!(out.len(), packet_len + len(0) + len(1), "{name}");
                    let ethertype: [u8; 2] = if ip(addresses[1]).is_ipv4() {
                        [8, 0]
                    } else {
                        [0x86, 0xdd]
                    };
                    let inside = [&out[..12], &ethertype, &out[14 + len(0)..]].concat();
                    let answer = other.run(&inside).expect("the kernel runs the frame");
                    assert_eq!(answer.reason, "decapsulated", "{name}");
                    assert_eq!(answer.packet_out[12..], aged(packet.frame())[12..], "{name}");
                    // Its destination is not one that packets may be sent on to.
                    let answer = worker.run(&out).expect("the kernel runs the frame");
                    assert_eq!(answer.reason, "tunnel_inner", "{name}");
                } else {
                    let answer = worker.run(&out).expect("the kernel runs the frame");
                    assert_eq!(answer.reason, "decapsulated", "{name}");
                    assert_eq!(answer.packet_out[12..], aged(packet.frame())[12..], "{name}");
                }
            }
        }
        // What opens a connection goes to the selected worker alone, and so does all that follows it.
        for packet in unknown(of) {
            let packet = Packet {
                source_port: packet.source_port + 1000,
                ..packet
            };
            let opens = Packet { flags: 2, ..packet };
            assert_eq!(flow(&mut after, &opens).0, Some("new"));
            assert_eq!(flow(&mut after, &packet).0, Some("known"));
        }
    }
}

#[test]
fn there_is_no_second_hop_without_somebody_to_go_to() {
    let base = || {
        let mut config = balancer(ForwardMode::Ipip, ["10.0.0.1", "10.0.0.2"]);
        config.pools[0].members[1].state = MemberState::Draining;
        config
    };
    let mut off = base();
    off.tunnel.second_hop = false;
    let mut down = base();
    down.pools[0].members[1].state = MemberState::Down;
    let mut segment = base();
    segment.pools[0].members[1].mode = ForwardMode::L2;
    let mut stateless = base();
    for vip in &mut stateless.vips {
        vip.remembers = false;
    }
    for (name, config, expected) in [
        ("switched off", off, "adopted"),
        ("it is down", down, "adopted"),
        ("it takes no tunnel", segment, "adopted"),
        ("a VIP without table", stateless, "stateless"),
    ] {
        let mut explainer = explainer(&config);
        for packet in unknown(TCP4) {
            let (reason, worker, _) = flow(&mut explainer, &packet);
            assert_eq!((reason, worker), (Some(expected), Some(ip("10.0.0.1"))), "{name}");
        }
    }
    let mut udp = explainer(&base());
    let reasons: BTreeSet<_> = unknown(UDP4).map(|packet| flow(&mut udp, &packet).0).collect();
    assert_eq!(reasons, BTreeSet::from([Some("new")]), "UDP");
}

#[test]
fn a_worker_with_weight_0_is_who_had_its_slots_on_a_node_that_starts_now() {
    let mut config = balancer(ForwardMode::Ipip, ["10.0.0.1", "10.0.0.2"]);
    let mut before = explainer(&config);
    let owners: Vec<_> = unknown(TCP4).map(|packet| flow(&mut before, &packet).1).collect();
    config.pools[0].members[1].weight = 0;
    let mut after = explainer(&config);
    for (packet, owner) in unknown(TCP4).zip(owners) {
        let nests = flow(&mut after, &packet).0 == Some("second_hop");
        assert_eq!(nests, owner == Some(ip("10.0.0.2")));
    }
}

/// The cookie with which this kernel, in all its namespaces, answers the SYN of a packet.
fn cookie(answers: &mut Explainer, packet: &Packet) -> u32 {
    let tcp = if packet.source.is_ipv4() { 34 } else { 54 };
    let syn = packet.linux_syn();
    // Once a second one is left to the kernel.
    let mut tries = std::iter::repeat_with(|| run(answers, &syn));
    let answer = tries.find(|answer| answer.reason == "syn_cookie");
    let out = answer.expect("without end").packet_out;
    u32::from_be_bytes(out[tcp + 4..tcp + 8].try_into().expect("four bytes"))
}

/// A node that answers SYNs with cookies.
fn answering() -> Explainer {
    explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Always),
        ..setup::config(4)
    })
}

#[test]
fn what_brings_a_nodes_cookie_is_not_handed_on() {
    let mut answers = answering();
    let trusted = ["10.77.0.0/24", "fd77::/64"];
    let gateway = |endpoint: &str| DataPathConfig {
        tunnels: host(endpoint, &trusted).tunnels.map(|tunnels| Tunnels {
            role: TunnelRole::Gateway,
            ..tunnels
        }),
        ..setup::config(4)
    };
    let gue = Kind::Gue(6080);
    let rows = [
        (TCP4, Kind::Ip, ["10.77.0.2", "10.77.0.3"]),
        (TCP4, gue, ["fd77::2", "fd77::3"]),
        (TCP6, Kind::Ip, ["10.77.0.2", "fd77::3"]),
        (TCP6, gue, ["fd77::2", "10.77.0.3"]),
        (TCP6, Kind::GueWithHeader(6080), ["fd77::2", "fd77::3"]),
    ];
    for (packet, kind, ends) in rows {
        let name = format!("{packet:?} {kind:?} {ends:?}");
        let cookie = cookie(&mut answers, &packet);
        let nested = |frame: &[u8]| {
            ends.iter().rev().fold(frame.to_vec(), |frame, end| {
                let from = if ip(end).is_ipv4() { "10.77.0.9" } else { "fd77::9" };
                tunnelled(&frame, kind, ip(from), ip(end))
            })
        };
        for (config, taken) in [
            (host(ends[0], &trusted), "decapsulated"),
            (gateway(ends[0]), "deliver"),
        ] {
            let mut worker = explainer(&config);
            let right = packet.cookie_ack(cookie);
            let answer = run(&mut worker, &nested(&right));
            assert_eq!(answer.reason, taken, "{name}");
            assert_eq!(answer.packet_out[12..], aged(right.clone())[12..], "{name}");
            let flags = right.len() - 20 + 13;
            for (what, frame) in [
                ("another number", packet.cookie_ack(cookie.wrapping_add(999))),
                ("a reset", with(right.clone(), flags, &[0x14])),
            ] {
                let reason = run(&mut worker, &nested(&frame)).reason;
                let goes_on = ["hand_on", "handed_to_stack", "no_route"].contains(&reason);
                assert!(goes_on, "{name}, {what}: {reason}");
            }
        }
    }
}

#[test]
fn a_balancer_that_is_a_worker_keeps_what_brings_its_cookie() {
    let mut answers = answering();
    let mut config = balancer(ForwardMode::Ipip, ["127.0.0.1", "10.0.0.2"]);
    let mut before = explainer(&config);
    let owners: Vec<_> = unknown(TCP4).map(|packet| flow(&mut before, &packet).1).collect();
    config.pools[0].members[1].state = MemberState::Draining;
    let mut after = explainer(&config);
    let mut handed_on = 0;
    for (packet, owner) in unknown(TCP4).zip(owners) {
        let cookie = cookie(&mut answers, &packet);
        let right = run(&mut after, &packet.cookie_ack(cookie));
        let worker = right.member.map(|member| member.address);
        assert_eq!(
            (right.reason, worker),
            ("deliver", Some(ip("127.0.0.1"))),
            "{packet:?}"
        );
        let wrong = run(&mut after, &packet.cookie_ack(cookie.wrapping_add(999)));
        let is_others = owner == Some(ip("10.0.0.2"));
        assert_eq!(
            wrong.flow == Some("second_hop"),
            is_others,
            "{packet:?}: {wrong:?}"
        );
        handed_on += u32::from(is_others);
    }
    assert!(handed_on > 0);
}

#[test]
fn who_had_a_slot_is_known_after_a_restart() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let load = || {
            DataPath::load(LoadOptions {
                interfaces: vec!["node0".into()],
                pinning: Some(Pinning {
                    path: fs.path().to_owned(),
                    on_stop: OnStop::Keep,
                }),
                ..LoadOptions::default()
            })
        };
        let all = balancer(ForwardMode::Ipip, ["10.0.0.1", "10.0.0.2"]);
        let mut one_down = all.clone();
        one_down.pools[0].members[1].state = MemberState::Down;
        // It fails and returns: who had its slots meanwhile may have connections of them.
        let mut first = load()?;
        first.reconcile(&one_down, &[])?;
        first.reconcile(&all, &[])?;
        let had = first.previous_owners("web");
        drop(first);
        let mut second = load()?;
        second.reconcile(&all, &[])?;
        let has = second.previous_owners("web");
        ensure!(had == has, "{had:?} before, {has:?} after");
        let slots = had.get(&ip("10.0.0.1")).copied().unwrap_or_default();
        ensure!(slots > 30_000, "about half of the slots: {had:?}");
        second.detach()?;
        Ok(())
    })
}

/// Packets that were handed on, and that were taken out of tunnels for this node.
fn counts(stats: &Stats) -> (u64, u64) {
    let handed_on = stats.flows.iter().find(|(of, _)| of.name() == "second_hop");
    let taken = stats.passed.iter().find(|(of, _)| of.name() == "decapsulated");
    (
        handed_on.map_or(0, |(_, count)| *count),
        taken.map_or(0, |(_, count)| *count),
    )
}

#[test]
fn a_workers_node_keeps_what_it_has_and_hands_the_rest_on_once() -> Result<()> {
    let pair = Pair::new()?;
    pair.client.complete_checksums("client0")?;
    pair.node
        .ip(&format!("address add {}/32 dev lo", IpAddr::from(VIP4)))?;
    for interface in ["all", "node0"] {
        pair.node
            .sysctl(&format!("net.ipv4.conf.{interface}.forwarding"), "1")?;
    }
    let _program = pair.client_program()?;
    inside(&pair.node, || {
        let mut datapath = DataPath::load(LoadOptions {
            interfaces: vec!["node0".into()],
            ..LoadOptions::default()
        })?;
        datapath.reconcile(&host("10.77.0.2", &["10.77.0.0/24"]), &[])?;
        let server = TcpListener::bind((IpAddr::from(VIP4), 80))?;
        // The worker before is where the client is, as far as this node can see.
        let tunnels = inside(&pair.client, || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(4.into()))?;
            socket.set_read_timeout(Some(LIMIT))?;
            Ok(socket)
        })?;
        let node = pair.mac()?;
        let nested = |source_port: u16| {
            let packet = Packet {
                source: ip("10.77.0.1"),
                source_port,
                flags: ACK,
                ..TCP4
            };
            let mut inner = packet.frame();
            complete_checksum(&mut inner[14..]);
            let once = tunnelled(&inner, Kind::Ip, ip("10.77.0.9"), ip("10.77.0.1"));
            let twice = tunnelled(&once, Kind::Ip, ip("10.77.0.9"), ip("10.77.0.2"));
            with(twice, 0, &node)
        };
        // A connection that the node has: the packet is its own.
        let client = inside(&pair.client, || Ok(TcpStream::connect((IpAddr::from(VIP4), 80))?))?;
        let (mut accepted, _) = server.accept()?;
        let before = counts(&datapath.stats()?);
        pair.send(&nested(client.local_addr()?.port()))?;
        wait_until("the packet is taken", LIMIT, || {
            Ok(counts(&datapath.stats()?) == (before.0, before.1 + 1))
        })?;
        (&client).write_all(b"ping")?;
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes)?;
        // One that it does not have, though it listens: the packet goes on, in the tunnel that it held, and in no VLAN.
        let IpAddr::V4(from) = ip("10.77.0.9") else {
            anyhow::bail!("IPv4")
        };
        for (name, frame) in [("untagged", nested(9)), ("tagged", tagged(nested(10)))] {
            pair.send(&frame)?;
            let mut received = [0; 256];
            let len = (&tunnels).read(&mut received).context(name)?;
            ensure!(
                received[12..16] == from.octets(),
                "{name}: from the balancer: {received:02x?}"
            );
            ensure!(
                frame.ends_with(&received[20..len]),
                "{name}: the packet inside is as it was"
            );
        }
        let after = counts(&datapath.stats()?);
        assert_eq!(after, (before.0 + 2, before.1 + 1));
        datapath.detach()?;
        Ok(())
    })
}
