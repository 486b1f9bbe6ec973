//! SYN cookies for what load balancers send to this node: the answer goes to the client by the node's own route. Needs root.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use edge_common::verdict::{LeftToKernel, ReplyReason};
use edge_datapath::{Action, DataPath, Explainer, Explanation, LoadOptions};
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{Packet, TCP4, TCP6, completed, tagged, with};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets, syn_ack, tunnels};
use edge_datapath_tests::setup::{LISTENER_PORT, VIP4, VIP6, balancer, config, member};
use edge_datapath_tests::tunnel::{Kind, aged, tunnelled};
use edge_lab::{NetNs, wait_until};
use edge_model::{DataPathConfig, ForwardMode, SynCookies, TokenRate, TunnelRole, Tunnels, Vip};

const WORKERS: u16 = 4;
const GUE: Kind = Kind::Gue(6080);
/// Who is first on the way to the client.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const LIMIT: Duration = Duration::from_secs(10);

/// What is done to the node before a row.
type Prepare = fn(&Pair) -> Result<()>;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// A worker's node that answers every SYN with a cookie.
fn worker() -> DataPathConfig {
    DataPathConfig {
        tunnels: Some(tunnels(TunnelRole::Gateway)),
        syn_cookies: Some(SynCookies::Always),
        ..config(WORKERS)
    }
}

/// From a load balancer to this node.
fn to_node(frame: &[u8], kind: Kind, over_v6: bool) -> Vec<u8> {
    let (from, to) = if over_v6 {
        ("fd77::9", "fd77::2")
    } else {
        ("10.77.0.9", "10.77.0.2")
    };
    tunnelled(frame, kind, ip(from), ip(to))
}

/// Where the TCP header begins.
fn tcp(packet: Packet) -> usize {
    if packet.source.is_ipv4() { 34 } else { 54 }
}

/// A node with ways to the client.
fn pair() -> Result<Pair> {
    let pair = Pair::new()?;
    let [a, b, c, d, e, f] = ROUTER;
    for client in ["10.77.0.1", "fd77::1"] {
        pair.node.ip(&format!(
            "neighbour replace {client} lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} dev node0 nud permanent"
        ))?;
    }
    open_routes(&pair.node, "1")?;
    Ok(pair)
}

/// Whether the kernel says the node's own routes.
fn open_routes(node: &NetNs, value: &str) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        node.sysctl(&format!("net.{family}.conf.lo.forwarding"), value)?;
    }
    Ok(())
}

/// What becomes of a SYN, but for the one in a second that is the kernel's to answer.
fn answer(explainer: &mut Explainer, frame: &[u8]) -> Explanation {
    let mut answers = std::iter::repeat_with(|| run(explainer, frame)).take(3);
    let last = answers.next().expect("three");
    answers.fold(
        last,
        |last, next| if last.reason == "deliver" { next } else { last },
    )
}

/// A cookie of this kernel for a SYN, which all its namespaces take.
fn cookie(answer: &Explanation, tcp: usize) -> u32 {
    u32::from_be_bytes(
        answer.packet_out[tcp + 4..tcp + 8]
            .try_into()
            .expect("four bytes"),
    )
}

#[test]
fn a_syn_in_any_tunnel_is_answered_to_the_client_by_the_nodes_route() -> Result<()> {
    let pair = pair()?;
    let mac = pair.mac()?;
    inside(&pair.node, || {
        let mut explainer = explainer(&worker());
        explainer.set_interfaces(&["node0".into()])?;
        for packet in [TCP4, TCP6] {
            for kind in [Kind::Ip, GUE, Kind::GueWithHeader(6080)] {
                for (over_v6, tags) in [(false, 0), (true, 0), (false, 1), (true, 2)] {
                    let name = format!("{packet:?}, {kind:?}, IPv6: {over_v6}, {tags} tags");
                    let in_tunnel = |frame: &[u8]| {
                        (0..tags).fold(to_node(frame, kind, over_v6), |frame, _| tagged(frame))
                    };
                    let answer = answer(&mut explainer, &in_tunnel(&packet.linux_syn()));
                    assert_eq!(
                        (answer.action, answer.reason),
                        (Action::Redirect, "routed_syn_cookie"),
                        "{name}"
                    );
                    let (out, tcp) = (&answer.packet_out, tcp(packet));
                    assert_eq!((&out[..6], &out[6..12]), (&ROUTER[..], &mac[..]), "{name}");
                    let [ethertype, mss]: [&[u8]; 2] = if packet.source.is_ipv4() {
                        [&[8, 0], &[2, 4, 5, 0xb4]]
                    } else {
                        [&[0x86, 0xdd], &[2, 4, 5, 0xa0]]
                    };
                    assert_eq!(&out[12..14], ethertype, "{name}: in no VLAN");
                    let octets = |address| match address {
                        IpAddr::V4(address) => address.octets().to_vec(),
                        IpAddr::V6(address) => address.octets().to_vec(),
                    };
                    let addresses = [octets(packet.destination), octets(packet.source)].concat();
                    assert_eq!(out[tcp - addresses.len()..tcp], addresses, "{name}");
                    assert_eq!(out[tcp..tcp + 4], [0, 80, 0x9c, 0x40], "{name}: ports");
                    assert_eq!(out[tcp + 13], 0x12, "{name}: SYN and ACK");
                    assert_eq!(&out[tcp + 20..tcp + 24], mss, "{name}: MSS");
                    let cookie = cookie(&answer, tcp);
                    for (cookie, expected) in [
                        (cookie, (Action::Pass, "deliver")),
                        (cookie.wrapping_add(999), (Action::Drop, "bad_syn_cookie")),
                    ] {
                        let ack = run(&mut explainer, &in_tunnel(&packet.cookie_ack(cookie)));
                        assert_eq!((ack.action, ack.reason), expected, "{name}");
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_syn_that_no_way_is_known_to_answer_goes_on_as_it_is() -> Result<()> {
    let pair = pair()?;
    inside(&pair.node, || {
        let mut explainer = explainer(&worker());
        let node0 = ["node0".to_owned()];
        let strangers = [ip("203.0.113.9"), ip("2001:db8::9")];
        let rows: [(&str, &[String], Prepare, bool); 4] = [
            ("edge is not on the interface", &[], |_| Ok(()), false),
            ("there is no route", &node0, |_| Ok(()), true),
            (
                "there is no neighbour",
                &node0,
                |pair| {
                    pair.node.ip("-4 neighbour flush dev node0 nud permanent")?;
                    pair.node
                        .ip("-6 neighbour flush dev node0 nud permanent")
                        .map(drop)
                },
                false,
            ),
            (
                "the kernel does not say",
                &node0,
                |pair| open_routes(&pair.node, "0"),
                false,
            ),
        ];
        for (name, interfaces, prepare, is_stranger) in rows {
            explainer.set_interfaces(interfaces)?;
            prepare(&pair)?;
            for (mut packet, stranger) in [TCP4, TCP6].into_iter().zip(strangers) {
                if is_stranger {
                    packet.source = stranger;
                }
                // One may be the kernel's to answer in any case.
                for _ in 0..3 {
                    let answer = run(&mut explainer, &to_node(&packet.linux_syn(), GUE, false));
                    assert_eq!(
                        (answer.action, answer.reason),
                        (Action::Pass, "deliver"),
                        "{name}"
                    );
                    assert_eq!(answer.packet_out, aged(packet.linux_syn()), "{name}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn only_what_is_for_this_node_is_answered_by_route() -> Result<()> {
    let pair = pair()?;
    let elsewhere = || {
        let members = vec![member("w1", ip("10.0.0.1"), ForwardMode::Ipip)];
        DataPathConfig {
            tunnels: Some(tunnels(TunnelRole::Gateway)),
            syn_cookies: Some(SynCookies::Always),
            workers: config(WORKERS).workers,
            ..balancer(members, Some(ROUTER))
        }
    };
    let mut all_ports = elsewhere();
    all_ports.vips = vec![Vip {
        port: 0,
        ..all_ports.vips[0]
    }];
    let mut relay = worker();
    relay.tunnels = Some(Tunnels {
        endpoints: vec![],
        relays: vec![ip("10.77.0.2")],
        ..tunnels(TunnelRole::Gateway)
    });
    let host = DataPathConfig {
        vips: vec![],
        tunnels: Some(tunnels(TunnelRole::PlainHost {
            addresses: vec![VIP4.into(), VIP6.into()],
        })),
        ..worker()
    };
    let syn = TCP4.linux_syn();
    let in_tunnel = || to_node(&syn, Kind::Ip, false);
    let rows = [
        (
            "a pool's VIP, which this node serves, too",
            elsewhere(),
            in_tunnel(),
            "routed_syn_cookie",
        ),
        ("the same, not by a tunnel", elsewhere(), syn.clone(), "forward"),
        ("a VIP of all ports", all_ports, in_tunnel(), "deliver"),
        ("for a relay", relay, in_tunnel(), "deliver"),
        ("on a plain host", host, in_tunnel(), "decapsulated"),
        ("not by a tunnel", worker(), syn.clone(), "syn_cookie"),
    ];
    inside(&pair.node, || {
        for (name, config, frame, expected) in rows {
            let mut explainer = explainer(&config);
            explainer.set_interfaces(&["node0".into()])?;
            assert_eq!(answer(&mut explainer, &frame).reason, expected, "{name}");
        }
        Ok(())
    })
}

#[test]
fn an_explained_answer_offers_what_the_interfaces_allow() -> Result<()> {
    let pair = pair()?;
    inside(&pair.node, || {
        let config = DataPathConfig {
            syn_cookies: Some(SynCookies::Always),
            ..config(WORKERS)
        };
        let mut explainer = explainer(&config);
        let node0 = ["node0".to_owned()];
        for (mtu, interfaces, expected) in [
            // Where it is not said which they are, they are Ethernet.
            (9000, &[][..], [1460, 1440]),
            (9000, &node0[..], [8960, 8940]),
            (1400, &node0[..], [1360, 1340]),
        ] {
            pair.node.ip(&format!("link set node0 mtu {mtu}"))?;
            explainer.set_interfaces(interfaces)?;
            // A configuration that comes later changes nothing of it.
            explainer.configure(&config)?;
            for (packet, expected) in [TCP4, TCP6].into_iter().zip(expected) {
                let answer = answer(&mut explainer, &packet.linux_syn());
                assert_eq!(answer.reason, "syn_cookie");
                let tcp = tcp(packet);
                let mss: [u8; 2] = answer.packet_out[tcp + 22..tcp + 24].try_into()?;
                assert_eq!(u16::from_be_bytes(mss), expected, "{mtu}, {interfaces:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn unanswered_syns_in_tunnels_bring_cookies_above_their_rate() -> Result<()> {
    let pair = pair()?;
    let auto = |burst| Some(SynCookies::Above(TokenRate { per_second: 1, burst }));
    inside(&pair.node, || {
        let mut always = explainer(&worker());
        always.set_interfaces(&["node0".into()])?;
        let mut explainer = explainer(&DataPathConfig {
            syn_cookies: auto(5),
            ..worker()
        });
        explainer.set_interfaces(&["node0".into()])?;
        let in_tunnel = |frame: &[u8]| to_node(frame, GUE, true);
        let syn = |source_port| in_tunnel(&Packet { source_port, ..TCP4 }.linux_syn());
        // Those whose handshake ends do not count.
        for source_port in 1000..1020 {
            let packet = Packet { source_port, ..TCP4 };
            assert_eq!(run(&mut explainer, &syn(source_port)).reason, "deliver");
            let cookie = cookie(&answer(&mut always, &syn(source_port)), tcp(packet));
            assert_eq!(
                run(&mut explainer, &in_tunnel(&packet.cookie_ack(cookie))).reason,
                "deliver"
            );
        }
        let mut unanswered = (2000..3000).map(|port| run(&mut explainer, &syn(port)).reason);
        let first = unanswered.position(|reason| reason == "routed_syn_cookie");
        assert!(first.is_some_and(|first| first >= 5), "{first:?}");
        let other = run(&mut explainer, &in_tunnel(&TCP6.linux_syn()));
        assert_eq!(other.reason, "deliver", "another VIP");
        Ok(())
    })
}

/// A SYN of this port by tunnel, for the node as it is.
fn wire(pair: &Pair, packet: Packet, kind: Kind, over_v6: bool) -> Result<Vec<u8>> {
    Ok(with(
        to_node(&completed(packet.linux_syn()), kind, over_v6),
        0,
        &pair.mac()?,
    ))
}

/// Leads to the clients by routes that ask for segments of at most so many bytes, over IPv4 and IPv6, which fit into the
/// tunnel.
fn lead_to_clients(pair: &Pair, [advmss4, advmss6]: [u16; 2]) -> Result<()> {
    for route in [
        format!("-4 route replace 198.51.100.0/24 via 10.77.0.1 advmss {advmss4}"),
        format!("-6 route replace 2001:db8:77::/64 via fd77::1 advmss {advmss6}"),
    ] {
        pair.node.ip(&route)?;
    }
    Ok(())
}

#[test]
fn the_answer_on_the_wire_offers_what_the_kernels_would_and_what_is_left_to_it_is_counted() -> Result<()> {
    let pair = Pair::new()?;
    for client in ["198.51.100.1/32", "2001:db8:77::1/128"] {
        pair.client.ip(&format!("address add {client} dev lo nodad"))?;
    }
    lead_to_clients(&pair, [1200, 1210])?;
    pair.client.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
    let _program = pair.client_program()?;
    inside(&pair.node, || {
        std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "2")?;
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = DataPath::load(LoadOptions {
            interfaces: vec!["node0".into()],
            manage_local_routes: true,
            ..LoadOptions::default()
        })?;
        datapath.reconcile(&worker(), &sockets(&listeners, LISTENER_PORT))?;
        // What the routes say may change, as they may themselves.
        lead_to_clients(&pair, [1400, 1380])?;
        datapath.keep_routes()?;
        let replied = |datapath: &DataPath| -> Result<u64> {
            Ok(datapath.stats()?.replied_with(ReplyReason::RoutedSynCookie))
        };
        for (of, client, kind, over_v6, advmss) in [
            (TCP4, "198.51.100.1", Kind::Ip, false, 1400),
            (TCP6, "2001:db8:77::1", GUE, true, 1380),
        ] {
            let packet = |source_port| Packet {
                source: ip(client),
                source_port,
                ..of
            };
            let mut socket = pair.segments_to(ip(client))?;
            let before = replied(&datapath)?;
            pair.send(&wire(&pair, packet(5000), kind, over_v6)?)?;
            let by_kernel = syn_ack(&mut socket, 5000)?;
            assert_eq!(replied(&datapath)?, before, "{client}: the kernel has answered");
            pair.send(&wire(&pair, packet(5001), kind, over_v6)?)?;
            let by_xdp = syn_ack(&mut socket, 5001)?;
            assert_eq!(replied(&datapath)?, before + 1, "{client}: XDP has answered");
            let mss = |segment: &[u8]| u16::from_be_bytes([segment[22], segment[23]]);
            assert_eq!((mss(&by_kernel), mss(&by_xdp)), (advmss, advmss), "{client}");
            // All but the values of the time stamps.
            for (name, part) in [("flags, window", 12..16), ("options", 20..28), ("scale", 36..40)] {
                assert_eq!(by_kernel[part.clone()], by_xdp[part], "{client}: {name}");
            }
        }
        left_to_kernel(&pair, &mut datapath)?;
        datapath.detach()?;
        Ok(())
    })
}

/// Sends SYNs that XDP finds no way for, and looks at the counts.
fn left_to_kernel(pair: &Pair, datapath: &mut DataPath) -> Result<()> {
    let blackhole = |pair: &Pair| pair.node.ip("route add blackhole 203.0.113.0/24").map(drop);
    let other = |pair: &Pair| {
        pair.node.ip("link add other0 type veth peer name other1")?;
        pair.node.ip("link set other0 up")?;
        pair.node.ip("route add 192.0.2.0/24 dev other0")?;
        // A neighbour that is not there is the first obstacle otherwise.
        let neighbour = "neighbour replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev other0 nud permanent";
        pair.node.ip(neighbour).map(drop)
    };
    let rows: [(LeftToKernel, &str, Prepare); 4] = [
        (LeftToKernel::NoRoute, "203.0.113.9", blackhole),
        (LeftToKernel::NoNeighbour, "10.77.0.200", |_| Ok(())),
        (LeftToKernel::OtherInterface, "192.0.2.9", other),
        (LeftToKernel::ForwardingOff, "10.77.0.1", |pair| {
            open_routes(&pair.node, "0")
        }),
    ];
    for (reason, client, prepare) in rows {
        prepare(pair)?;
        let mut source_port = 6000;
        let packet = |source_port| Packet {
            source: ip(client),
            source_port,
            ..TCP4
        };
        wait_until(reason.name(), LIMIT, || {
            source_port += 1;
            pair.send(&wire(pair, packet(source_port), Kind::Ip, false)?)?;
            Ok(datapath.stats()?.left_to_kernel_for(reason) > 0)
        })?;
    }
    let stats = datapath.stats()?;
    ensure!(stats.dropped_total() == 0, "none is lost: {:?}", stats.dropped);
    // The next configuration sets it again.
    datapath.reconcile(&worker(), &[])?;
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/conf/lo/forwarding")?;
    ensure!(forwarding.trim() == "1", "{forwarding}");
    Ok(())
}
