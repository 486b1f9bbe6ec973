//! Where packets to workers leave whose next hop the kernel's routes say. Needs root.

use std::net::IpAddr;

use anyhow::Result;
use edge_datapath::{Action, Explainer, NextHop};
use edge_datapath_tests::frame::{Packet, TCP4, TCP6, UDP4, inserted, tagged};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::{balancer, member};
use edge_model::{DataPathConfig, ForwardMode, Member};

/// MAC addresses: a router's, and the interface's.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0xfe], [2, 0, 0, 0, 0, 0xfd]];
/// Index of the interface that packets come by in a test run: the loopback's.
const CAME_BY: u32 = 1;

fn config(mode: ForwardMode, address: IpAddr, next_hop: Option<[u8; 6]>) -> DataPathConfig {
    let worker = Member {
        next_hop,
        ..member("worker", address, mode)
    };
    balancer(vec![worker], None)
}

fn hop(interface: u32, vlan: u16) -> NextHop {
    NextHop {
        interface,
        vlan,
        mac: MACS[0],
        source_mac: MACS[1],
        is_direct: true,
    }
}

/// The programs of both ways.
fn both() -> [Explainer; 2] {
    [Explainer::load(), Explainer::load_general()]
        .map(|loaded| loaded.expect("needs root and a kernel with BPF"))
}

#[test]
fn packets_leave_in_the_vlan_of_their_worker_whatever_they_came_in() {
    let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), "fd00::1".parse().expect("literal"));
    let packets: [Packet; 3] = [TCP4, UDP4, TCP6];
    for (mode, address) in [
        (ForwardMode::Ipip, v4),
        (ForwardMode::Ipip, v6),
        (ForwardMode::Gue { port: 6080 }, v4),
        (ForwardMode::Gue { port: 6080 }, v6),
        (ForwardMode::L2, v4),
    ] {
        for mut explainer in both() {
            for packet in packets {
                let frame = packet.frame();
                let configured = config(mode, address, Some(MACS[0]));
                explainer.configure(&configured).expect("the configuration fits");
                let untagged = explainer.run(&frame).expect("the kernel runs the frame");
                assert_eq!(untagged.reason, "forward", "{mode:?} {address}");
                let followed = config(mode, address, None);
                explainer.configure(&followed).expect("the configuration fits");
                for vlan in [0, 9] {
                    explainer
                        .set_next_hop(address, hop(CAME_BY, vlan))
                        .expect("the kernel takes it");
                    let tag: &[u8] = if vlan == 0 { &[] } else { &[0x81, 0, 0, 9] };
                    let behind = inserted(untagged.packet_out[12..].to_vec(), 0, tag);
                    let expected = [MACS.as_flattened(), &behind].concat();
                    for frame in [
                        frame.clone(),
                        tagged(frame.clone()),
                        tagged(tagged(frame.clone())),
                    ] {
                        let answer = explainer.run(&frame).expect("the kernel runs the frame");
                        let name = format!("{mode:?} {address} {vlan} {frame:02x?}");
                        assert_eq!((answer.reason, answer.action), ("forward", Action::Tx), "{name}");
                        assert_eq!(answer.packet_out, expected, "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_packet_leaves_by_the_interface_that_leads_to_its_worker() -> Result<()> {
    let pair = Pair::new()?;
    let other = pair.index()?;
    inside(&pair.node, || {
        let address: IpAddr = [10, 0, 0, 1].into();
        for mode in [ForwardMode::Ipip, ForwardMode::L2] {
            for mut explainer in both() {
                explainer.configure(&config(mode, address, None))?;
                let answer = explainer.run(&TCP4.frame())?;
                assert_eq!(answer.reason, "no_route", "{mode:?}: nobody knows where to");
                let rows = [(CAME_BY, Action::Tx), (0, Action::Tx), (other, Action::Redirect)];
                for (interface, expected) in rows {
                    explainer.set_next_hop(address, hop(interface, 0))?;
                    let answer = explainer.run(&TCP4.frame())?;
                    assert_eq!(
                        (answer.reason, answer.action),
                        ("forward", expected),
                        "{mode:?} {interface}"
                    );
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_worker_behind_a_router_gets_no_packets_without_a_tunnel() {
    let address: IpAddr = [10, 0, 0, 1].into();
    for (mode, reason) in [(ForwardMode::Ipip, "forward"), (ForwardMode::L2, "no_route")] {
        for mut explainer in both() {
            explainer
                .configure(&config(mode, address, None))
                .expect("the configuration fits");
            let router = NextHop {
                is_direct: false,
                ..hop(CAME_BY, 0)
            };
            explainer
                .set_next_hop(address, router)
                .expect("the kernel takes it");
            let answer = explainer.run(&TCP4.frame()).expect("the kernel runs the frame");
            assert_eq!(answer.reason, reason, "{mode:?}");
        }
    }
}

#[test]
fn where_nobody_has_looked_for_long_each_packet_asks_the_kernel() -> Result<()> {
    let pair = Pair::new()?;
    let neighbour = [2, 0, 0, 0, 0, 0x99];
    pair.node
        .ip("neighbour replace 10.77.0.1 lladdr 02:00:00:00:00:99 dev node0 nud permanent")?;
    pair.node.sysctl("net.ipv4.ip_forward", "1")?;
    let said = hop(pair.index()?, 0);
    inside(&pair.node, || {
        let address: IpAddr = [10, 77, 0, 1].into();
        for mut explainer in both() {
            explainer.configure(&config(ForwardMode::Ipip, address, None))?;
            for round in 0..2 {
                explainer.set_next_hop(address, said)?;
                for (is_old, mac) in [(false, MACS[0]), (true, neighbour)] {
                    if is_old {
                        explainer.forget_next_hops()?;
                    }
                    let answer = explainer.run(&TCP4.frame())?;
                    assert_eq!(
                        (answer.reason, answer.action, &answer.packet_out[..6]),
                        ("forward", Action::Redirect, &mac[..]),
                        "round {round}, grown old: {is_old}"
                    );
                }
            }
        }
        Ok(())
    })
}
