//! The short way of ordinary packets and the general way of all others: every packet meets the same fate on both, byte by
//! byte. Needs root.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use edge_common::{TCP, UDP};
use edge_datapath::Explainer;
use edge_datapath_tests::frame::{ACK, Packet, SYN, TCP4, TCP6, UDP4, UDP6, mutated};
use edge_datapath_tests::setup::{self, config};
use edge_model::{
    DataPathConfig, FloodLimits, ForwardMode, Measure, Member, MemberState, Penalty, PenaltyReason, Pool,
    Spread, SynCookies, TokenRate, TunnelRole, Tunnels, Vip,
};
use fastrand::Rng;

/// Packets for each configuration.
const PACKETS: u32 = 30_000;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// A local service behind lists, penalties and limits that do not depend on the time of a packet.
fn guarded(syns_per_second: u32) -> DataPathConfig {
    let rate = |per_second| TokenRate {
        per_second,
        burst: per_second,
    };
    let mut node = config(4);
    node.flood = Some(FloodLimits {
        packets: rate(1_000_000_000),
        new_connections: rate(syns_per_second),
    });
    node.sources.deny = ["10.77.0.64/26", "10.77.0.17", "fd77::40/122"]
        .map(|prefix| prefix.parse().expect("literal"))
        .into();
    node.sources.allow = ["10.77.0.66".parse().expect("literal")].into();
    node.reflection_ports = vec![123, 40_003];
    node
}

fn member(number: u8, mode: ForwardMode, next_hop: Option<[u8; 6]>) -> Member {
    let address = IpAddr::from([10, 0, 0, number]);
    Member {
        next_hop,
        ..setup::member(&format!("worker {number}"), address, mode)
    }
}

/// The same services with workers elsewhere, that are reached in several ways.
fn forwarding(spread: Spread) -> DataPathConfig {
    let node = guarded(1_000_000_000);
    let gue = ForwardMode::Gue { port: 6080 };
    let members = vec![
        member(1, ForwardMode::Ipip, None),
        member(2, gue, None),
        member(3, ForwardMode::Ipip, Some([2, 0, 0, 0, 0, 7])),
        member(4, ForwardMode::L2, Some([2, 0, 0, 0, 0, 8])),
        Member {
            address: ip("fd00::5"),
            ..member(5, gue, None)
        },
        Member {
            address: ip("fd00::6"),
            ..member(6, ForwardMode::Ipip, None)
        },
    ];
    let vips = node.vips.iter().map(|vip| Vip {
        pool: Some(0),
        spread,
        ..*vip
    });
    DataPathConfig {
        vips: vips.collect(),
        pools: vec![Pool {
            name: "web".into(),
            members,
        }],
        tunnel: setup::tunnel(Some([2, 0, 0, 0, 0, 0xfe])),
        ..node
    }
}

/// A packet of one of a few flows, or something near one.
fn frame(random: &mut Rng) -> Vec<u8> {
    let mut packet: Packet = [TCP4, UDP4, TCP6, UDP6][random.usize(..4)];
    let host = random.u8(..128);
    packet.source = match packet.source {
        IpAddr::V4(_) => IpAddr::from([10, 77, 0, host]),
        IpAddr::V6(_) => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host)]),
    };
    packet.source_port = 40_000 + random.u16(..4);
    packet.flags = if random.u8(..4) == 0 { SYN } else { ACK };
    if random.u8(..16) == 0 {
        packet.protocol ^= TCP ^ UDP;
    }
    if random.bool() {
        packet.frame()
    } else {
        mutated(random, &[packet.frame()])
    }
}

struct Both {
    ordinary: Explainer,
    general: Explainer,
    random: Rng,
}

impl Both {
    fn load() -> Self {
        let load = "needs root and a kernel with BPF";
        let mut both = Self {
            ordinary: Explainer::load().expect(load),
            general: Explainer::load_general().expect(load),
            random: Rng::with_seed(2026),
        };
        for explainer in [&mut both.ordinary, &mut both.general] {
            for source in ["10.77.0.5", "10.77.0.32/28", "fd77::5"] {
                let penalty = Penalty {
                    source: source.parse().expect("literal"),
                    until: Instant::now() + Duration::from_secs(3600),
                    reason: PenaltyReason::RateLimit,
                    measure: Measure::default(),
                };
                explainer.penalise(&penalty).expect("there is room");
            }
        }
        both
    }

    /// Runs packets by both ways.
    fn compare(&mut self, config: &DataPathConfig) {
        self.ordinary.configure(config).expect("the configuration fits");
        self.general.configure(config).expect("the configuration fits");
        for _ in 0..PACKETS {
            let frame = frame(&mut self.random);
            let ordinary = self.ordinary.run(&frame).expect("the kernel runs the frame");
            let general = self.general.run(&frame).expect("the kernel runs the frame");
            assert_eq!(ordinary, general, "{frame:02x?}");
        }
    }
}

#[test]
fn packets_to_workers_of_this_node_meet_the_same_fate_on_both_ways() {
    let mut both = Both::load();
    both.compare(&guarded(1_000_000_000));
    both.compare(&guarded(0));
    both.compare(&DataPathConfig {
        tunnels: Some(Tunnels {
            endpoints: vec![ip("10.9.0.2"), ip("fd09::2")],
            relays: vec![],
            trusted: vec![],
            gue_port: 6080,
            role: TunnelRole::Gateway,
        }),
        ..guarded(1_000_000_000)
    });
}

#[test]
fn packets_to_workers_elsewhere_meet_the_same_fate_on_both_ways() {
    let mut both = Both::load();
    let mut config = forwarding(Spread::default());
    both.compare(&config);
    // Flows are given to others, and stay.
    config.pools[0].members[0].state = MemberState::Down;
    config.pools[0].members[1].weight = 0;
    both.compare(&config);
    // Connections that began elsewhere look for their worker.
    config.pools[0].members[0].state = MemberState::Active;
    config.pools[0].members[2].state = MemberState::Draining;
    config.tunnel.second_hop = true;
    both.compare(&config);
    config.tunnel.second_hop = false;
    both.compare(&forwarding(Spread::Source));
    config.vips.iter_mut().for_each(|vip| vip.remembers = false);
    both.compare(&config);
}

/// Options that SYNs bring.
const OPTIONS: [&[u8]; 6] = [
    // Linux, FreeBSD, Apple, Windows, the MSS alone, another first.
    &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
    &[2, 4, 5, 0xb4, 1, 3, 3, 6, 4, 2, 8, 10, 7, 7, 7, 7, 0, 0, 0, 0],
    &[
        2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 9, 9, 9, 9, 0, 0, 0, 0, 4, 2, 0, 0,
    ],
    &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
    &[2, 4, 2, 0],
    &[1, 1, 1, 1, 2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0],
];

/// A SYN with options, and where its TCP header begins.
fn syn(random: &mut Rng) -> (Vec<u8>, usize) {
    let options = OPTIONS[random.usize(..OPTIONS.len())];
    let mut packet: Packet = [TCP4, TCP6][random.usize(..2)];
    packet.source_port = random.u16(1..);
    let mut frame = packet.frame();
    frame.extend(options);
    frame.extend((0..random.usize(..20)).map(|_| 0));
    let len = frame.len() as u16 - 14;
    let tcp = if packet.source.is_ipv4() { 34 } else { 54 };
    let (at, len) = if tcp == 34 { (16, len) } else { (18, len - 40) };
    frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
    frame[tcp + 12] = (5 + options.len() as u8 / 4) << 4;
    (frame, tcp)
}

#[test]
fn syns_are_answered_alike_on_both_ways() {
    let config = DataPathConfig {
        syn_cookies: Some(SynCookies::Always),
        ..config(4)
    };
    let mut both = Both::load();
    both.ordinary.configure(&config).expect("the configuration fits");
    both.general.configure(&config).expect("the configuration fits");
    let start = Instant::now();
    let mut left_to_the_kernel = 0;
    for _ in 0..PACKETS {
        let (frame, tcp) = syn(&mut both.random);
        let mut answers = [&mut both.ordinary, &mut both.general]
            .map(|explainer| explainer.run(&frame).expect("the kernel runs the frame"));
        if answers.iter().any(|answer| answer.reason != "syn_cookie") {
            assert!(
                answers
                    .iter()
                    .all(|answer| ["syn_cookie", "deliver"].contains(&answer.reason)),
                "{answers:?}"
            );
            left_to_the_kernel += 1;
            continue;
        }
        // The kernel counts minutes in its cookies, and so the checksum is not always the same.
        for answer in &mut answers {
            answer.packet_out[tcp + 4..tcp + 8].fill(0);
            answer.packet_out[tcp + 16..tcp + 18].fill(0);
        }
        let [ordinary, general] = answers;
        assert_eq!(ordinary, general, "{frame:02x?}");
    }
    // One SYN in a second of each program, and not at the same time.
    let allowed = 2 * (start.elapsed().as_secs() + 2);
    assert!(left_to_the_kernel <= allowed, "{left_to_the_kernel}");
}
