//! What tier 1 answers for: the virtual addresses with the ports of the Gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use edge_config::VirtualAddress;
use edge_model::{DataPathConfig, Protocol, TunnelRole, Vip, Worker, WorkerId, WorkerKind};

use super::gateways::{PortServers, Socket};
use crate::CompileOptions;

/// What is listened on for the ports that clients connect to, by port and, of servers that listen on one address alone,
/// that address.
pub(crate) type PortMap = BTreeMap<(u16, Option<IpAddr>), Socket>;

/// The declared ports of the servers that are listened for. Two servers that declare one port and are translated to
/// different ones cannot both be reached by it; the lower translated port wins.
pub(crate) fn declared_ports<'s, 'r: 's>(
    bound: impl IntoIterator<Item = (&'s Socket, &'s PortServers<'r>)>,
) -> PortMap {
    let mut ports = PortMap::new();
    for (listened, servers) in bound {
        for server in servers.servers() {
            ports
                .entry((server.declared_port, listened.bind))
                .or_insert(*listened);
        }
    }
    ports
}

/// What is listened on for a port of a virtual address.
fn socket_of(ports: &PortMap, port: u16, address: IpAddr) -> Option<Socket> {
    let of = |bind| ports.get(&(port, bind)).copied();
    of(Some(address)).or_else(|| of(None))
}

/// The desired state of tier 1.
pub(crate) fn datapath(options: &CompileOptions, ports: &PortMap) -> DataPathConfig {
    let vips = options
        .virtual_addresses
        .iter()
        .flat_map(|own| vips_of(own, ports));
    let mut vips: Vec<_> = vips.collect();
    vips.sort();
    vips.dedup_by_key(|vip| (vip.address, vip.free_bits, vip.port, vip.protocol));
    // A host's own servers take what was in tunnels: no gateway worker answers for a port.
    if is_plain_host(options) {
        vips.clear();
    }
    DataPathConfig {
        vips,
        workers: (0..options.workers.max(1)).map(local_worker).collect(),
        flood: options.flood,
        sources: options.sources.clone(),
        reflection_ports: options.reflection_ports.clone(),
        vip_limit: options.vip_limit,
        syn_cookies: options.syn_cookies,
        tunnels: options.tunnels.clone(),
        hash_seed: options.hash_seed,
        pools: options.pools.clone(),
        health: options.health.clone(),
        tunnel: options.tunnel.clone(),
        connections: options.connections,
    }
}

fn is_plain_host(options: &CompileOptions) -> bool {
    let role = options.tunnels.as_ref().map(|tunnels| &tunnels.role);
    matches!(role, Some(TunnelRole::PlainHost { .. }))
}

/// The services of one address: the ports that it is given, else all that the Gateways declare for it.
fn vips_of(own: &VirtualAddress, ports: &PortMap) -> Vec<Vip> {
    let address = own.address;
    let declared: BTreeSet<u16> = ports.keys().map(|(port, _)| *port).collect();
    let declared = declared.into_iter().filter_map(|port| {
        Some(Vip {
            unserved: own.unserved,
            ..vip(address, port, Protocol::Tcp, socket_of(ports, port, address)?)
        })
    });
    let given = own.ports.iter().map(|given| {
        let socket = match given.listener_port {
            Some(port) => {
                let alone = Socket {
                    port,
                    bind: Some(address),
                };
                let bind = ports.values().any(|socket| *socket == alone).then_some(address);
                Socket { port, bind }
            }
            // A port that no Gateway declares yet is listened on as it is.
            None => socket_of(ports, given.port, address).unwrap_or(Socket {
                port: given.port,
                bind: None,
            }),
        };
        Vip {
            free_bits: own.free_bits,
            pool: given.pool,
            spread: given.spread,
            remembers: given.remembers,
            unserved: own.unserved,
            ..vip(address, given.port, given.protocol, socket)
        }
    });
    if own.ports.is_empty() {
        declared.collect()
    } else {
        given.collect()
    }
}

fn vip(address: IpAddr, port: u16, protocol: Protocol, socket: Socket) -> Vip {
    Vip {
        listener_address: socket.bind,
        ..Vip::local(address, port, protocol, socket.port)
    }
}

fn local_worker(number: u16) -> Worker {
    Worker {
        id: WorkerId(number),
        weight: 1,
        kind: WorkerKind::Local,
    }
}

#[cfg(test)]
mod tests {
    use edge_config::VirtualPort;
    use edge_model::{Spread, Unserved};

    use super::*;

    #[test]
    fn a_virtual_address_gets_the_server_that_listens_on_it_alone() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let own = Socket {
            port: 8080,
            bind: Some(address(1)),
        };
        let (all, other) = (
            Socket { port: 80, bind: None },
            Socket {
                port: 443,
                bind: Some(address(9)),
            },
        );
        let ports = PortMap::from([
            ((80, own.bind), own),
            ((80, None), all),
            ((443, other.bind), other),
        ]);
        let with_ports = |last: u8, given: &[(u16, Option<u16>)]| -> Vec<_> {
            let given = given.iter().map(|(port, listener_port)| VirtualPort {
                port: *port,
                protocol: Protocol::Tcp,
                listener_port: *listener_port,
                pool: None,
                spread: Spread::default(),
                remembers: true,
            });
            let own = VirtualAddress {
                address: address(last),
                free_bits: 0,
                unserved: Unserved::Drop,
                ports: given.collect(),
            };
            let vips = vips_of(&own, &ports).into_iter();
            vips.map(|vip| (vip.port, vip.listener_address, vip.listener_port))
                .collect()
        };
        let listened = |last| with_ports(last, &[]);
        assert_eq!(listened(1), [(80, own.bind, 8080)]);
        assert_eq!(listened(2), [(80, None, 80)]);
        assert_eq!(listened(9), [(80, None, 80), (443, other.bind, 443)]);
        let given = |last, port, listener_port| with_ports(last, &[(port, listener_port)]);
        assert_eq!(given(1, 80, None), [(80, own.bind, 8080)]);
        assert_eq!(given(1, 81, Some(8080)), [(81, own.bind, 8080)]);
        assert_eq!(given(2, 81, Some(8080)), [(81, None, 8080)]);
        assert_eq!(given(2, 90, None), [(90, None, 90)], "no Gateway declares it");
    }
}
