//! What tier 1 answers for: the virtual addresses with the ports of the Gateways.

use std::collections::BTreeMap;

use edge_config::VirtualAddress;
use edge_model::{DataPathConfig, Protocol, TunnelRole, Vip, Worker, WorkerId, WorkerKind};

use super::gateways::{PortServers, Socket};
use crate::CompileOptions;

/// Ports that clients connect to, with the port that is listened on for each.
pub(crate) type PortMap = BTreeMap<u16, u16>;

/// The declared ports of the servers that are listened for. Two servers that declare one port and are translated to
/// different ones cannot both be reached by it; the lower translated port wins.
pub(crate) fn declared_ports<'s, 'r: 's>(
    bound: impl IntoIterator<Item = (&'s Socket, &'s PortServers<'r>)>,
) -> PortMap {
    let mut ports = PortMap::new();
    for (listened, servers) in bound {
        for server in servers.servers() {
            ports.entry(server.declared_port).or_insert(listened.port);
        }
    }
    ports
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

/// The services of one address: the ports that it is given, else all that the Gateways declare.
fn vips_of(own: &VirtualAddress, ports: &PortMap) -> Vec<Vip> {
    let address = own.address;
    let declared = ports.iter().map(|(port, listener_port)| Vip {
        unserved: own.unserved,
        ..Vip::local(address, *port, Protocol::Tcp, *listener_port)
    });
    let given = own.ports.iter().map(|given| {
        // A port that no Gateway declares yet is listened on as it is.
        let listener_port = given
            .listener_port
            .or_else(|| ports.get(&given.port).copied())
            .unwrap_or(given.port);
        Vip {
            free_bits: own.free_bits,
            pool: given.pool,
            spread: given.spread,
            remembers: given.remembers,
            unserved: own.unserved,
            ..Vip::local(address, given.port, given.protocol, listener_port)
        }
    });
    if own.ports.is_empty() {
        declared.collect()
    } else {
        given.collect()
    }
}

fn local_worker(number: u16) -> Worker {
    Worker {
        id: WorkerId(number),
        weight: 1,
        kind: WorkerKind::Local,
    }
}
