//! Virtual addresses, pools of workers, and the tunnels to them: checked.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use edge_model::{
    Connections, ForwardMode, Member, MemberState, Pool, Prefix, Protocol, Spread, Tunnel, Unserved,
};

use super::check::Check;
use super::raw::{
    RawConnections, RawForwarding, RawMode, RawPool, RawSpread, RawState, RawUnserved, RawVirtualAddress,
    RawVirtualPort, RawWorker,
};
use super::{VirtualAddress, VirtualPort};

/// Most pools: what the data path has Maglev tables for, beside that of this node's gateway workers.
const MAX_POOLS: usize = 63;
/// Most workers of all pools together.
const MAX_WORKERS: usize = 3072;
/// Longest time that idle flows may be remembered for: well within that after which the table's clock comes round
/// (`edge_common::connection`).
const MAX_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Most flows that may be asked for: the tables take 3 GiB.
const MAX_FLOWS: u32 = 1 << 26;
/// Largest number of a pool's worker: more than there can be workers, so that numbers of those that left need not be used
/// again soon.
const MAX_NUMBER: u16 = 4095;
/// Largest weight: so that sums of them stay in range, and beyond any need.
const MAX_WEIGHT: u32 = 65_535;
/// Smallest MTU that a packet of IPv6 must be carried with, tunnel included (RFC 8200 5).
const MIN_MTU: u32 = 1280;

impl Check<'_> {
    pub(super) fn virtual_addresses(
        &mut self,
        raw: &[RawVirtualAddress],
        pools: &[RawPool],
    ) -> Vec<VirtualAddress> {
        let mut seen = HashSet::new();
        let mut addresses = Vec::new();
        for (index, address) in raw.iter().enumerate() {
            let at = format!("virtualAddresses[{index}]");
            let Some((first, free_bits)) = self.virtual_address(&address.address, &format!("{at}.address"))
            else {
                continue;
            };
            if !seen.insert((first, free_bits)) {
                let hint = "list all ports of an address together";
                self.error(&format!("{at}.address"), "stands twice", hint);
            }
            let ports = self.ports(&address.ports, pools, &format!("{at}.ports"));
            if free_bits > 0 && (ports.is_empty() || ports.iter().any(|port| port.pool.is_none())) {
                let hint =
                    "give each port of a prefix a pool; the gateway workers have addresses, not prefixes";
                self.error(&format!("{at}.ports"), "need a pool on a prefix", hint);
            }
            addresses.push(VirtualAddress {
                address: first,
                free_bits,
                unserved: match address.unserved_ports {
                    RawUnserved::Drop => Unserved::Drop,
                    RawUnserved::Pass => Unserved::Pass,
                },
                ports,
            });
        }
        addresses
    }

    /// An address, or the first one of a prefix with its free bits.
    fn virtual_address(&mut self, text: &str, field: &str) -> Option<(IpAddr, u8)> {
        if !text.contains('/') {
            return Some((self.address(text, field)?, 0));
        }
        let prefix: Option<Prefix> = text
            .parse()
            .ok()
            .filter(|prefix: &Prefix| prefix.prefix_len() > 0);
        let Some(prefix) = prefix else {
            self.error(
                field,
                "is no prefix",
                "write an address and a length, such as 192.0.2.0/24",
            );
            return None;
        };
        let bits: u8 = if prefix.address().is_ipv4() { 32 } else { 128 };
        Some((prefix.address(), bits - prefix.prefix_len()))
    }

    fn ports(&mut self, raw: &[RawVirtualPort], pools: &[RawPool], path: &str) -> Vec<VirtualPort> {
        let mut seen = HashSet::new();
        let mut ports = Vec::new();
        for (index, port) in raw.iter().enumerate() {
            let at = format!("{path}[{index}]");
            let pool = port
                .pool
                .as_deref()
                .and_then(|name| self.pool(name, pools, &format!("{at}.pool")));
            let has_pool = port.pool.is_some();
            let protocol = match port.protocol.to_ascii_uppercase().as_str() {
                "TCP" => Protocol::Tcp,
                "UDP" if has_pool => Protocol::Udp,
                _ => {
                    let hint = "write TCP, or UDP with a pool: the gateway workers speak nothing but TCP";
                    self.error(&format!("{at}.protocol"), "unsupported protocol", hint);
                    Protocol::Tcp
                }
            };
            if !seen.insert((port.port, protocol)) {
                self.error(&format!("{at}.port"), "stands twice", "list each port once");
            }
            let number = if port.port == 0 && has_pool {
                Some(0)
            } else {
                self.port(port.port, &format!("{at}.port"))
            };
            let listener = port.listener_port;
            let listener_port = listener.and_then(|port| self.port(port, &format!("{at}.listenerPort")));
            let only_pools = port.spread != RawSpread::Flow || !port.connection_table;
            if !has_pool && only_pools {
                let hint = "give the port a pool; a node's own workers have sockets, which connections stay with anyway";
                self.error(&at, "has spread or connectionTable without a pool", hint);
            }
            ports.extend(number.map(|number| VirtualPort {
                port: number,
                protocol,
                listener_port,
                pool,
                spread: match port.spread {
                    RawSpread::Flow => Spread::Flow,
                    RawSpread::NoSourcePort => Spread::NoSourcePort,
                    RawSpread::DestinationPort => Spread::DestinationPort,
                    RawSpread::Source => Spread::Source,
                },
                remembers: port.connection_table,
            }));
        }
        ports
    }

    fn pool(&mut self, name: &str, pools: &[RawPool], field: &str) -> Option<u16> {
        let index = pools.iter().position(|pool| pool.name == name);
        if index.is_none() {
            self.error(field, "names a pool that is not there", "name one of `pools`");
        }
        index.and_then(|index| u16::try_from(index).ok())
    }

    pub(super) fn pools(&mut self, raw: &[RawPool], tunnel: &RawForwarding) -> Vec<Pool> {
        if raw.len() > MAX_POOLS {
            self.error(
                "pools",
                &format!("has more than {MAX_POOLS}"),
                "let VIPs with the same workers share a pool",
            );
        }
        if raw.iter().map(|pool| pool.workers.len()).sum::<usize>() > MAX_WORKERS {
            self.error(
                "pools",
                &format!("has more than {MAX_WORKERS} workers"),
                "take fewer",
            );
        }
        let mut seen = HashSet::new();
        let mut pools = Vec::new();
        for (index, pool) in raw.iter().enumerate() {
            let at = format!("pools[{index}]");
            if pool.name.is_empty() || !seen.insert(&pool.name) {
                self.error(
                    &format!("{at}.name"),
                    "is empty or stands twice",
                    "give each pool a name of its own",
                );
            }
            pools.push(Pool {
                name: pool.name.as_str().into(),
                members: self.members(&pool.workers, tunnel, &format!("{at}.workers")),
            });
        }
        pools
    }

    fn members(&mut self, raw: &[RawWorker], tunnel: &RawForwarding, path: &str) -> Vec<Member> {
        let mut seen = HashSet::new();
        let mut members = Vec::new();
        let numbers = self.numbers(raw, path);
        for (index, (worker, number)) in raw.iter().zip(numbers).enumerate() {
            let at = format!("{path}[{index}]");
            let Some(address) = self.address(&worker.address, &format!("{at}.address")) else {
                continue;
            };
            let name = if worker.name.is_empty() {
                address.to_string()
            } else {
                worker.name.clone()
            };
            if !seen.insert(name.clone()) {
                self.error(
                    &format!("{at}.name"),
                    "stands twice",
                    "give each worker of a pool a name of its own",
                );
            }
            if worker.weight > MAX_WEIGHT {
                let message = format!("is more than {MAX_WEIGHT}");
                self.error(
                    &format!("{at}.weight"),
                    &message,
                    "weights are relative to each other",
                );
            }
            let mode = match worker.mode {
                RawMode::Local => ForwardMode::Local,
                RawMode::Ipip => ForwardMode::Ipip,
                RawMode::L2 => ForwardMode::L2,
                RawMode::Gue => ForwardMode::Gue {
                    port: self.port(worker.port, &format!("{at}.port")).unwrap_or_default(),
                },
            };
            let source = if address.is_ipv4() {
                &tunnel.source4
            } else {
                &tunnel.source6
            };
            if matches!(worker.mode, RawMode::Ipip | RawMode::Gue) && source.is_none() {
                let key = if address.is_ipv4() {
                    "forwarding.source4"
                } else {
                    "forwarding.source6"
                };
                let hint = "set the addresses that tunnels to this family leave from";
                self.error(
                    &format!("{at}.mode"),
                    &format!("is a tunnel, but {key} is not set"),
                    hint,
                );
            }
            members.push(Member {
                name: name.into(),
                number,
                address,
                mode,
                weight: worker.weight,
                state: match worker.state {
                    RawState::Active => MemberState::Active,
                    RawState::Draining => MemberState::Draining,
                    RawState::Down => MemberState::Down,
                },
                next_hop: self.mac(worker.next_hop.as_deref(), &format!("{at}.nextHop")),
            });
        }
        members
    }

    /// The numbers that a pool's workers are given. Each is one's own, places in the list that count as numbers included.
    fn numbers(&mut self, raw: &[RawWorker], path: &str) -> Vec<Option<u16>> {
        let hint = "give each worker of the pool a number of its own; one without has its place in the list, counted from 0";
        let mut owners = BTreeMap::new();
        let mut numbers = Vec::new();
        for (index, worker) in raw.iter().enumerate() {
            let field = format!("{path}[{index}].number");
            let given = worker
                .number
                .map(|number| u16::try_from(number).unwrap_or(u16::MAX));
            numbers.push(given);
            if given.is_some_and(|number| number > MAX_NUMBER) {
                self.error(&field, &format!("is not between 0 and {MAX_NUMBER}"), hint);
                continue;
            }
            let number = given.map_or(index, usize::from);
            if let Some(other) = owners.insert(number, index) {
                let what = match given {
                    Some(number) => format!("is {number}"),
                    None => format!("is not set, and so {number}, its place in the list"),
                };
                self.error(&field, &format!("{what}, as that of {path}[{other}]"), hint);
            }
        }
        numbers
    }

    fn mac(&mut self, text: Option<&str>, field: &str) -> Option<[u8; 6]> {
        let text = text?;
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok())
            .collect();
        let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let mac = mac.filter(|mac| mac.first().is_some_and(|first| first & 1 == 0) && *mac != [0; 6]);
        if mac.is_none() {
            let hint = "write the address of one interface, such as 52:54:00:12:34:56";
            self.error(field, "is no MAC address", hint);
        }
        mac
    }

    pub(super) fn tunnel(&mut self, raw: &RawForwarding) -> Tunnel {
        if !(MIN_MTU..=u32::from(u16::MAX)).contains(&raw.mtu) {
            let message = format!("is not between {MIN_MTU} and {}", u16::MAX);
            self.error(
                "forwarding.mtu",
                &message,
                "write the MTU of the network between the nodes",
            );
        }
        Tunnel {
            source4: self.source(raw.source4.as_deref(), true, "forwarding.source4"),
            source6: self.source(raw.source6.as_deref(), false, "forwarding.source6"),
            mtu: u16::try_from(raw.mtu).unwrap_or(u16::MAX),
            next_hop: self.mac(raw.next_hop.as_deref(), "forwarding.nextHop"),
            second_hop: raw.second_hop,
        }
    }

    /// Warns where the second hop can bring nothing.
    pub(super) fn second_hop(&mut self, pools: &[RawPool], has_seed: bool) {
        let takes_part = |worker: &&RawWorker| worker.mode != RawMode::L2;
        let has_two = |pool: &RawPool| pool.workers.iter().filter(takes_part).count() > 1;
        if !pools.iter().any(has_two) {
            self.warn(
                "forwarding.secondHop",
                "brings nothing: no pool has two workers of mode ipip, gue or local to choose from",
                "leave it out, or give the workers another mode than l2",
            );
        } else if !has_seed {
            self.warn(
                "forwarding.secondHop",
                "brings nothing for connections of other load balancers: without hashSeed each has its own owners of slots",
                "set hashSeed to the same number on all of them",
            );
        }
    }

    fn source(&mut self, text: Option<&str>, is_v4: bool, field: &str) -> Option<Prefix> {
        let prefix: Option<Prefix> = text?.parse().ok();
        let prefix = prefix.filter(|prefix| prefix.address().is_ipv4() == is_v4);
        if prefix.is_none() {
            let hint = if is_v4 {
                "write an IPv4 address or prefix"
            } else {
                "write an IPv6 address or prefix"
            };
            self.error(field, "is no address or prefix of its family", hint);
        }
        prefix
    }

    pub(super) fn connections(&mut self, raw: &RawConnections) -> Connections {
        let idle = raw.idle.0;
        if idle > MAX_IDLE {
            let hint = "the connection table tells times apart for a day and a half";
            self.error("connections.idle", "is longer than 24h", hint);
        }
        Connections { idle }
    }

    pub(super) fn flows(&mut self, raw: &RawConnections) -> u32 {
        if !(1..=MAX_FLOWS).contains(&raw.flows) {
            let message = format!("is not between 1 and {MAX_FLOWS}");
            self.error("connections.flows", &message, "a million takes 48 MiB");
        }
        raw.flows
    }
}
