//! Configurations for tests.

use std::net::IpAddr;

use edge_model::{
    DataPathConfig, FloodLimits, ForwardMode, Member, MemberState, Pool, Protocol, TokenRate, Tunnel, Vip,
    Worker, WorkerId, WorkerKind,
};

/// IPv4 address of the VIPs.
pub const VIP4: [u8; 4] = [10, 77, 100, 1];
/// IPv6 address of the VIPs.
pub const VIP6: [u16; 8] = [0xfd77, 0x100, 0, 0, 0, 0, 0, 1];
/// Port on which workers listen for the VIPs' port 80.
pub const LISTENER_PORT: u16 = 8080;

/// VIPs: port 80 on TCP and port 53 on UDP, on one address of each family.
#[must_use]
pub fn config(workers: u16) -> DataPathConfig {
    let services = [(80, LISTENER_PORT, Protocol::Tcp), (53, 5300, Protocol::Udp)];
    let vips = [IpAddr::from(VIP4), IpAddr::from(VIP6)]
        .into_iter()
        .flat_map(|address| {
            services.map(|(port, listener_port, protocol)| Vip::local(address, port, protocol, listener_port))
        });
    let worker = |id| Worker {
        id: WorkerId(id),
        weight: 1,
        kind: WorkerKind::Local,
    };
    DataPathConfig {
        vips: vips.collect(),
        workers: (0..workers).map(worker).collect(),
        hash_seed: 0x6564_6765,
        ..DataPathConfig::default()
    }
}

/// The same with limits per source: packets and new connections, each with its burst and nothing to refill it
/// within a test.
#[must_use]
pub fn limited(workers: u16, packets: u32, new_connections: u32) -> DataPathConfig {
    let rate = |burst| TokenRate { per_second: 1, burst };
    let flood = FloodLimits {
        packets: rate(packets),
        new_connections: rate(new_connections),
    };
    DataPathConfig {
        flood: Some(flood),
        ..config(workers)
    }
}

/// A worker elsewhere, whose next hop is not configured.
#[must_use]
pub fn member(name: &str, address: IpAddr, mode: ForwardMode) -> Member {
    Member {
        name: name.into(),
        number: None,
        address,
        mode,
        weight: 1,
        state: MemberState::Active,
        next_hop: None,
    }
}

/// Tunnels with sources of both families.
///
/// # Panics
/// Never: the literals are prefixes.
#[must_use]
pub fn tunnel(next_hop: Option<[u8; 6]>) -> Tunnel {
    Tunnel {
        source4: Some("172.16.0.0/16".parse().expect("literal")),
        source6: Some("fd00:ed9e::/64".parse().expect("literal")),
        next_hop,
        ..Tunnel::default()
    }
}

/// VIPs with a pool of workers elsewhere: port 80 on TCP of both families, and port 53 on UDP of IPv4.
#[must_use]
pub fn balancer(members: Vec<Member>, next_hop: Option<[u8; 6]>) -> DataPathConfig {
    let vip = |address: IpAddr, port, protocol| Vip {
        pool: Some(0),
        ..Vip::local(address, port, protocol, port)
    };
    DataPathConfig {
        vips: vec![
            vip(VIP4.into(), 80, Protocol::Tcp),
            vip(VIP4.into(), 53, Protocol::Udp),
            vip(VIP6.into(), 80, Protocol::Tcp),
        ],
        pools: vec![Pool {
            name: "web".into(),
            members,
        }],
        tunnel: tunnel(next_hop),
        hash_seed: 0x6564_6765,
        ..DataPathConfig::default()
    }
}
