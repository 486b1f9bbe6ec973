//! Tunnels on a real link: what a load balancer sends reaches a socket, whose answer goes to the client directly. Needs
//! root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_common::checksum;
use edge_common::decap::{GUE_PORT, IPV4_IN_IP, IPV6_IN_IP};
use edge_datapath::{DataPath, LoadOptions, WorkerSocket};
use edge_datapath_tests::node::{Pair, inside, tunnels};
use edge_datapath_tests::setup::{VIP4, VIP6, config};
use edge_model::{DataPathConfig, Protocol, TunnelRole, Tunnels, WorkerId};
use socket2::{Domain, Socket, Type};

/// Port of the server behind the virtual addresses; a VIP of the gateway's configuration.
const PORT: u16 = 53;
/// Ample for a datagram on a virtual link.
const LIMIT: Duration = Duration::from_secs(10);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// The node's ends, for the client's networks alone.
fn trusting(role: TunnelRole) -> Tunnels {
    let prefix = |text: &str| text.parse().expect("literal");
    Tunnels {
        trusted: vec![prefix("10.77.0.0/24"), prefix("fd77::/64")],
        ..tunnels(role)
    }
}

/// A datagram as an IP packet, with right checksums.
fn packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut udp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let (mut header, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + udp.len() as u16).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            header.extend([from.octets(), to.octets()].concat());
            let right = checksum::of(sum(&header));
            header[10..12].copy_from_slice(&right.to_be_bytes());
            let addresses = sum(&header[12..]);
            (header, addresses)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((udp.len() as u16).to_be_bytes());
            header.extend([17, 64]);
            header.extend([from.octets(), to.octets()].concat());
            let addresses = sum(&header[8..]);
            (header, addresses)
        }
        _ => panic!("{from} and {to} are of different families"),
    };
    let right = checksum::of(pseudo + 17 + udp.len() as u64 + sum(&udp));
    udp[6..8].copy_from_slice(&right.to_be_bytes());
    header.extend(udp);
    header
}

/// Sum of 16-bit words; an odd byte at the end is the upper half of one.
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

/// How a load balancer would send.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// In an IP header.
    Ip,
    /// In a UDP datagram.
    Gue,
}

/// Sends a packet through a tunnel from the calling thread's namespace.
fn send(way: Way, packet: &[u8], end: IpAddr) -> Result<()> {
    match way {
        Way::Gue => {
            let any: IpAddr = if end.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
            UdpSocket::bind((any, 0))?.send_to(packet, (end, GUE_PORT))?;
        }
        Way::Ip => {
            let protocol = if packet[0] >> 4 == 4 {
                IPV4_IN_IP
            } else {
                IPV6_IN_IP
            };
            let domain = if end.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::RAW, Some(i32::from(protocol).into()))?;
            socket.send_to(packet, &SocketAddr::new(end, 0).into())?;
        }
    }
    Ok(())
}

/// Sends datagrams to both virtual addresses through every tunnel, lets `server` answer each, and reads the answers at
/// the client.
fn ask_through_every_tunnel(pair: &Pair, server: &UdpSocket) -> Result<()> {
    for (client, vip) in [("10.77.0.1", VIP4.into()), ("fd77::1", VIP6.into())] {
        let vip: IpAddr = vip;
        for end in ["10.77.0.2", "fd77::2"] {
            for way in [Way::Ip, Way::Gue] {
                let name = format!("{way:?} to {end} for {vip}");
                let question = name.as_bytes();
                let socket = inside(&pair.client, || {
                    let socket = UdpSocket::bind((ip(client), 0))?;
                    socket.set_read_timeout(Some(LIMIT))?;
                    let to = SocketAddr::new(vip, PORT);
                    send(way, &packet(socket.local_addr()?, to, question), ip(end))?;
                    Ok(socket)
                })?;
                let mut bytes = [0; 256];
                let (len, from) = server.recv_from(&mut bytes).with_context(|| name.clone())?;
                ensure!(&bytes[..len] == question, "{name}: other bytes arrived");
                ensure!(from.port() == socket.local_addr()?.port(), "{name}: from {from}");
                ensure!(from.ip().to_canonical() == ip(client), "{name}: from {from}");
                server.send_to(&bytes[..len], from)?;
                let (len, from) = socket
                    .recv_from(&mut bytes)
                    .with_context(|| format!("{name}: the answer"))?;
                ensure!(&bytes[..len] == question, "{name}: another answer");
                ensure!(from.port() == PORT, "{name}: answered by {from}");
            }
        }
    }
    Ok(())
}

fn load() -> Result<DataPath> {
    let options = LoadOptions {
        interfaces: vec!["node0".into()],
        manage_local_routes: true,
        ..LoadOptions::default()
    };
    Ok(DataPath::load(options)?)
}

#[test]
fn a_plain_hosts_server_gets_what_came_by_any_tunnel_and_answers_the_client_directly() -> Result<()> {
    let pair = Pair::new()?;
    pair.client.complete_checksums("client0")?;
    for address in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
        let len = if address.is_ipv4() { 32 } else { 128 };
        pair.node.ip(&format!("address add {address}/{len} dev lo"))?;
    }
    inside(&pair.node, || {
        let addresses = vec![VIP4.into(), VIP6.into()];
        let host = DataPathConfig {
            tunnels: Some(trusting(TunnelRole::PlainHost { addresses })),
            ..DataPathConfig::default()
        };
        let mut datapath = load()?;
        datapath.reconcile(&host, &[])?;
        let server = UdpSocket::bind(("::", PORT))?;
        server.set_read_timeout(Some(LIMIT))?;
        ask_through_every_tunnel(&pair, &server)?;
        let stats = datapath.stats()?;
        let unpacked = stats
            .passed
            .iter()
            .find(|(reason, _)| reason.name() == "decapsulated");
        assert_eq!(unpacked.map(|(_, count)| *count), Some(8));
        assert_eq!(stats.dropped_total(), 0);
        Ok(())
    })
}

#[test]
fn a_gateway_workers_socket_gets_what_came_by_any_tunnel() -> Result<()> {
    let pair = Pair::new()?;
    pair.client.complete_checksums("client0")?;
    inside(&pair.node, || {
        let socket = UdpSocket::bind("[::]:5300")?;
        socket.set_read_timeout(Some(LIMIT))?;
        let worker = WorkerSocket {
            worker: WorkerId(0),
            port: 5300,
            address: None,
            protocol: Protocol::Udp,
            fd: socket.as_fd(),
        };
        let gateway = DataPathConfig {
            tunnels: Some(trusting(TunnelRole::Gateway)),
            ..config(1)
        };
        let mut datapath = load()?;
        datapath.reconcile(&gateway, &[worker])?;
        inside(&pair.client, || {
            let from = SocketAddr::new(ip("10.77.0.1"), 40_000);
            let to = SocketAddr::new(VIP4.into(), PORT);
            send(Way::Ip, &packet(from, to, b"one"), ip("10.77.0.2"))?;
            send(Way::Gue, &packet(from, to, b"two"), ip("fd77::2"))?;
            // For no virtual address: it must not get out of its tunnel.
            let elsewhere = SocketAddr::new(ip("10.77.0.2"), 5300);
            send(Way::Ip, &packet(from, elsewhere, b"three"), ip("10.77.0.2"))
        })?;
        for expected in [&b"one"[..], b"two"] {
            let mut bytes = [0; 16];
            let (len, from) = socket.recv_from(&mut bytes)?;
            assert_eq!((&bytes[..len], from.port()), (expected, 40_000));
        }
        let stats = datapath.stats()?;
        assert_eq!(stats.workers[0].steering.steered, 2);
        let refused = stats.dropped_for(edge_common::DropReason::TunnelInner);
        assert_eq!(refused, 1);
        Ok(())
    })
}
