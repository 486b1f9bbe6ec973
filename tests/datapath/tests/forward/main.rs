//! Packets to workers elsewhere through the real program: tunnels, the connection table, changes. Needs root.

mod errors;
mod flows;
mod tunnels;

use std::net::IpAddr;

use edge_common::connection::WAYS;
use edge_common::{Flow, HashKey, checksum};
use edge_datapath::{Action, Detached, Explainer, Flows};
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{ACK, FIN, Packet, RST, SYN, TCP4, TCP6, UDP4, inserted, tagged, with};
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
        config.vips.push(Vip {
            address: IpAddr::from([10, 77, 100, 2]),
            ..config.vips[0]
        });
        for vip in &mut config.vips {
            vip.spread = spread;
        }
        let mut explainer = explainer(&config);
        packets.map(|packet| flow(&mut explainer, packet))
    };
    let other_destination = Packet {
        destination: IpAddr::from([10, 77, 100, 2]),
        ..other_source
    };
    let rows = [
        (Spread::Flow, &other_port, false),
        (Spread::NoSourcePort, &other_port, true),
        (Spread::NoSourcePort, &other_source, false),
        (Spread::DestinationPort, &other_source, true),
        (Spread::DestinationPort, &other_destination, true),
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
