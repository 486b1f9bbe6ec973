//! Packets of another balancer's tests through the real program: action, inner packet and tunnel of each. Needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use edge_datapath::{Action, Explainer, Explanation};
use edge_datapath_tests::setup;
use edge_model::{
    DataPathConfig, ForwardMode, Member, MemberState, Pool, Prefix, Protocol, Spread, Tunnel, TunnelRole,
    Tunnels, Unserved, Vip,
};
use serde_json::Value;

const CORPUS: &str = include_str!("../data/katran-packets.json");
/// Port that the fixtures' GUE goes to.
const GUE_PORT: u16 = 9886;
/// Where the fixtures' GUE comes from, and what else is taken out of tunnels there.
const GUE_SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0x2307, 0, 0, 0, 0, 0, 0x1337);
/// MAC address of the fixtures' gateway.
const GATEWAY: [u8; 6] = [0, 0, 0xde, 0xad, 0xbe, 0xaf];

/// Cases that come out otherwise, by suite and number.
const DIFFERENT: [(&str, &[u64]); 0] = [];

#[test]
fn packets_of_another_balancers_tests_come_out_as_it_sends_them() {
    let corpus: Value = serde_json::from_str(CORPUS).expect("JSON");
    for suite in list(&corpus["suites"]) {
        let name = text(&suite["suite"]);
        let mut explainer = Explainer::load().expect("needs root and a kernel with BPF");
        let config = config(&corpus, suite);
        explainer.configure(&config).expect("the configuration fits");
        let mut workers = BTreeMap::new();
        let mut different = Vec::new();
        for case in list(&suite["cases"]) {
            if let Err(why) = check(&mut explainer, &config, case, &mut workers) {
                println!("{name} {}: {}: {why}", case["n"], text(&case["name"]));
                different.push(case["n"].as_u64().expect("a number"));
            }
        }
        let expected = DIFFERENT.iter().find(|(suite, _)| *suite == name);
        assert_eq!(
            expected.map_or(&[][..], |(_, numbers)| numbers),
            different,
            "{name}"
        );
    }
}

/// Runs a case. `workers` are those of the flows so far, by their addresses and ports.
fn check(
    explainer: &mut Explainer,
    config: &DataPathConfig,
    case: &Value,
    workers: &mut BTreeMap<Vec<u8>, IpAddr>,
) -> Result<(), String> {
    let (input, expected) = (bytes(&case["input"]), bytes(&case["expect_packet"]));
    let answer = explainer.run(&input).map_err(|error| error.to_string())?;
    let action = text(&case["expect_ret"]);
    if answer.action.name() != action {
        return Err(format!(
            "{} ({}) instead of {action}",
            answer.action.name(),
            answer.reason
        ));
    }
    let Some(inner) = tunnelled(&expected).filter(|_| answer.action == Action::Tx) else {
        return same(&answer.packet_out, &expected);
    };
    let (destination, own) = match tunnelled(&answer.packet_out) {
        Some(own) => (own.0, own.1),
        None => return Err("not in a tunnel".to_owned()),
    };
    same(own, inner.1)?;
    same(&answer.packet_out[..6], &expected[..6])?;
    let member = answer.member.as_ref().map(|member| member.address);
    if member != Some(destination) || !pool(config, &answer).contains(&destination) {
        return Err(format!("to {destination}, which is no worker of the VIP"));
    }
    let flow = own.get(..44.min(own.len())).unwrap_or_default().to_vec();
    match workers.insert(flow, destination) {
        Some(before) if before != destination => Err(format!("to {destination}, before to {before}")),
        _ => Ok(()),
    }
}

fn same(own: &[u8], expected: &[u8]) -> Result<(), String> {
    if own == expected {
        Ok(())
    } else {
        Err(format!("{} instead of {}", hex(own), hex(expected)))
    }
}

/// Workers of the VIP that a packet was for.
fn pool(config: &DataPathConfig, answer: &Explanation) -> BTreeSet<IpAddr> {
    let is_it = |vip: &&Vip| {
        answer
            .vip
            .is_some_and(|id| (id.address, id.port, id.protocol) == (vip.address, vip.port, vip.protocol))
    };
    let pool = config.vips.iter().find(is_it).and_then(|vip| vip.pool);
    let pool = pool.and_then(|pool| config.pools.get(usize::from(pool)));
    pool.map(|pool| pool.members.iter().map(|member| member.address).collect())
        .unwrap_or_default()
}

/// Outer destination and inner packet of a frame, if it is in a tunnel.
fn tunnelled(frame: &[u8]) -> Option<(IpAddr, &[u8])> {
    let packet = frame.get(14..)?;
    let (protocol, destination, rest) = if packet.first()? >> 4 == 4 {
        let destination: [u8; 4] = *packet.get(16..)?.first_chunk()?;
        (*packet.get(9)?, IpAddr::from(destination), packet.get(20..)?)
    } else {
        let destination: [u8; 16] = *packet.get(24..)?.first_chunk()?;
        (
            *packet.get(6)?,
            Ipv6Addr::from(destination).into(),
            packet.get(40..)?,
        )
    };
    match protocol {
        4 | 41 => Some((destination, rest)),
        17 if rest.get(2..4)? == GUE_PORT.to_be_bytes() => Some((destination, rest.get(8..)?)),
        _ => None,
    }
}

/// What the operations of a suite set up.
fn config(corpus: &Value, suite: &Value) -> DataPathConfig {
    let features: Vec<_> = list(&suite["features"]).iter().map(text).collect();
    let is_gue = features.contains(&"GUE_ENCAP");
    let mode = if is_gue {
        ForwardMode::Gue { port: GUE_PORT }
    } else {
        ForwardMode::Ipip
    };
    let prefix = |text: &str| Some(text.parse::<Prefix>().expect("literal"));
    let mut config = DataPathConfig {
        tunnel: Tunnel {
            source4: prefix(if is_gue { "10.0.13.37/32" } else { "172.16.0.0/16" }),
            source6: prefix(if is_gue { "fc00:2307::1337/128" } else { "100::/96" }),
            next_hop: Some(GATEWAY),
            ..Tunnel::default()
        },
        tunnels: features.contains(&"INLINE_DECAP_GUE").then(|| Tunnels {
            endpoints: vec![GUE_SOURCE6.into()],
            relays: vec![],
            trusted: Vec::new(),
            gue_port: GUE_PORT,
            role: TunnelRole::Gateway,
        }),
        hash_seed: 0x6564_6765,
        ..DataPathConfig::default()
    };
    for provision in list(&suite["provision"]) {
        for operation in list(&corpus["provision"][text(provision)]) {
            apply(&mut config, operation, mode);
        }
    }
    config
}

fn apply(config: &mut DataPathConfig, operation: &Value, mode: ForwardMode) {
    let vip = &operation["vip"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let address = |value: &Value| text(value).parse::<IpAddr>().expect("an address");
    let same = |found: &Vip| {
        (
            found.address,
            u64::from(found.port),
            u64::from(found.protocol.number()),
        ) == (
            address(&vip["address"]),
            number(&vip["port"]),
            number(&vip["proto"]),
        )
    };
    match text(&operation["op"]) {
        "add_vip" => {
            let protocol = if number(&vip["proto"]) == 17 {
                Protocol::Udp
            } else {
                Protocol::Tcp
            };
            let port = number(&vip["port"]) as u16;
            let index = config.pools.len() as u16;
            config.pools.push(Pool {
                name: format!("pool {index}").into(),
                members: Vec::new(),
            });
            config.vips.push(Vip {
                pool: Some(index),
                unserved: Unserved::Pass,
                ..Vip::local(address(&vip["address"]), port, protocol, port)
            });
        }
        "set_vip_flags" => {
            let flags = number(&operation["flags"]);
            for vip in config.vips.iter_mut().filter(|vip| same(vip)) {
                vip.remembers = flags & 2 == 0;
                vip.spread = match flags {
                    _ if flags & 8 != 0 => Spread::DestinationPort,
                    _ if flags & 1 != 0 => Spread::NoSourcePort,
                    _ => Spread::Flow,
                };
            }
        }
        "add_real" => {
            let at = config.vips.iter().position(same).expect("the VIP is there");
            let address = address(&operation["address"]);
            config.pools[at].members.push(Member {
                weight: u32::try_from(number(&operation["weight"])).expect("a weight"),
                ..setup::member(&address.to_string(), address, mode)
            });
        }
        "down_real" => {
            let at = config.vips.iter().position(same).expect("the VIP is there");
            let member = usize::try_from(number(&operation["real_index"])).expect("an index");
            if let Some(member) = config.pools[at].members.get_mut(member) {
                member.state = MemberState::Down;
            }
        }
        "decap_dst" => {
            if let Some(tunnels) = &mut config.tunnels {
                tunnels.relays.push(address(&operation["address"]));
            }
        }
        // Connection IDs of QUIC, and where health checks go: not this balancer's.
        "server_id" | "hc_dst" => {}
        other => panic!("unknown operation {other}"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn bytes(value: &Value) -> Vec<u8> {
    let (pairs, _) = text(value).as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hexadecimal")
    };
    pairs.iter().map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
