//! The steps from one image to the next, in the order in which they are safe.

use std::fmt;
use std::net::IpAddr;

use edge_common::{vip, worker};
use edge_model::WorkerId;

use crate::image::{Image, Indexes, SocketId, VipId};

/// One change of a map or route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove the local route of an address.
    RemoveRoute(IpAddr),
    /// Forget what was counted for a VIP's index: it had another owner before.
    ForgetVip(u16),
    /// Forget what was counted for the index of a pool's worker: it had another owner before.
    ForgetWorker(u16),
    /// Put a worker's socket into the socket map.
    SetSocket(u32, SocketId),
    /// Write a worker's entry.
    WriteWorker(u16, worker::Entry),
    /// Build and write the Maglev table of a pool.
    WriteTable(u16),
    /// Write a virtual prefix with its free bits.
    WritePrefix(vip::PrefixKey, u32),
    /// Write new entries of the allow and the deny list, and the filter before them.
    AddSources,
    /// Write the ports that datagrams are refused from.
    WriteReflectionPorts,
    /// Write the sources that tunnels are accepted from.
    WriteTunnelPeers,
    /// Insert or change an entry of the VIP map.
    WriteVip(vip::Key, vip::Entry),
    /// Write the settings.
    WriteConfig,
    /// Remove entries of the allow and the deny list.
    RemoveSources,
    /// Remove an entry of the VIP map.
    RemoveVip(vip::Key),
    /// Remove a virtual prefix.
    RemovePrefix(vip::PrefixKey),
    /// Take a worker's socket out of the socket map.
    ClearSocket(u32, SocketId),
    /// Add a local route for an address.
    AddRoute(IpAddr),
}

/// Steps in order. An empty plan means that nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps from one image to another.
    ///
    /// What packets are sent to is there before the first packet is sent to it, and goes after the last: sockets
    /// and table come before VIPs, VIPs before the filter (in the settings) that lets packets to them, and the
    /// route that attracts packets comes last and goes first.
    #[must_use]
    pub fn between(from: &Image, to: &Image) -> Self {
        let mut steps = Vec::new();
        steps.extend(from.routes.difference(&to.routes).copied().map(Step::RemoveRoute));
        steps.extend(given_away(&from.vip_indexes, &to.vip_indexes).map(Step::ForgetVip));
        steps.extend(given_away(&from.pools.members, &to.pools.members).map(Step::ForgetWorker));
        let sockets = to
            .sockets
            .iter()
            .filter(|(index, id)| from.sockets.get(index) != Some(id));
        steps.extend(sockets.map(|(&index, &id)| Step::SetSocket(index, id)));
        let (before, after) = worker_entries(from, to);
        steps.extend(before);
        let tables = to.pools.claims.iter();
        let tables = tables.filter(|(pool, claims)| from.pools.claims.get(pool) != Some(claims));
        steps.extend(tables.map(|(&pool, _)| Step::WriteTable(pool)));
        steps.extend(after);
        if from.sources != to.sources {
            steps.push(Step::AddSources);
        }
        if from.reflection_ports != to.reflection_ports {
            steps.push(Step::WriteReflectionPorts);
        }
        if from.tunnel_peers != to.tunnel_peers {
            steps.push(Step::WriteTunnelPeers);
        }
        let vips = to
            .vips
            .iter()
            .filter(|(key, entry)| from.vips.get(key) != Some(entry));
        steps.extend(vips.map(|(&key, &entry)| Step::WriteVip(key, entry)));
        let prefixes = to.vip_prefixes.iter();
        let prefixes = prefixes.filter(|(key, bits)| from.vip_prefixes.get(key) != Some(bits));
        steps.extend(prefixes.map(|(&key, &bits)| Step::WritePrefix(key, bits)));
        if from.config != to.config {
            steps.push(Step::WriteConfig);
        }
        if from.sources != to.sources {
            steps.push(Step::RemoveSources);
        }
        let gone = from.vips.keys().filter(|key| !to.vips.contains_key(key));
        steps.extend(gone.copied().map(Step::RemoveVip));
        let gone = from
            .vip_prefixes
            .keys()
            .filter(|key| !to.vip_prefixes.contains_key(key));
        steps.extend(gone.copied().map(Step::RemovePrefix));
        let closed = from
            .sockets
            .iter()
            .filter(|(index, _)| !to.sockets.contains_key(index));
        steps.extend(closed.map(|(&index, &id)| Step::ClearSocket(index, id)));
        steps.extend(to.routes.difference(&from.routes).copied().map(Step::AddRoute));
        Self { steps }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Indexes whose owner is another than before.
fn given_away<N: Ord>(from: &Indexes<N>, to: &Indexes<N>) -> impl Iterator<Item = u16> {
    let is_new = |&(name, index): &(_, u16)| from.get(name) != Some(index);
    to.iter().filter(is_new).map(|(_, index)| index)
}

/// Entries of workers that change: those that packets go to, which are written before the tables send any, and those
/// that take none, which are written after.
fn worker_entries(from: &Image, to: &Image) -> (Vec<Step>, Vec<Step>) {
    let (from, to) = (&from.pools.workers, &to.pools.workers);
    let changed = to.iter().filter(|(index, entry)| from.get(index) != Some(entry));
    let changed = changed.map(|(&index, &entry)| (index, entry));
    let gone = from.keys().filter(|index| !to.contains_key(index));
    let gone = gone.map(|&index| (index, worker::Entry::default()));
    let (before, after): (Vec<_>, Vec<_>) = changed.chain(gone).partition(|(_, entry)| entry.keeps_flows());
    let steps = |entries: Vec<(u16, worker::Entry)>| {
        let step = |(index, entry)| Step::WriteWorker(index, entry);
        entries.into_iter().map(step).collect()
    };
    (steps(before), steps(after))
}

/// The steps as an operator reads them in the log.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveRoute(address) => write!(f, "remove the local route of {address}"),
            Self::ForgetVip(index) => write!(f, "zero the counters of VIP index {index}"),
            Self::ForgetWorker(index) => write!(f, "zero the counters of worker {index}"),
            Self::SetSocket(_, id) => write!(f, "add the socket of {}", WorkerPort(id)),
            Self::WriteWorker(index, entry) if entry.state == worker::ABSENT => {
                write!(f, "remove worker {index}")
            }
            Self::WriteWorker(index, _) => write!(f, "write worker {index}"),
            Self::WriteTable(pool) => write!(f, "write the Maglev table of pool {pool}"),
            Self::WritePrefix(key, _) => write!(f, "write virtual prefix {}", Prefix(key)),
            Self::RemovePrefix(key) => write!(f, "remove virtual prefix {}", Prefix(key)),
            Self::AddSources => write!(f, "add to the lists of sources"),
            Self::WriteReflectionPorts => write!(f, "write the reflection ports"),
            Self::WriteTunnelPeers => write!(f, "write the sources of tunnels"),
            Self::RemoveSources => write!(f, "remove from the lists of sources"),
            Self::WriteVip(key, _) => write!(f, "write {}", Entry(key)),
            Self::WriteConfig => write!(f, "write the settings"),
            Self::RemoveVip(key) => write!(f, "remove {}", Entry(key)),
            Self::ClearSocket(_, id) => write!(f, "remove the socket of {}", WorkerPort(id)),
            Self::AddRoute(address) => write!(f, "add a local route for {address}"),
        }
    }
}

struct WorkerPort<'a>(&'a SocketId);

impl fmt::Display for WorkerPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketId {
            worker: WorkerId(worker),
            port,
            ..
        } = self.0;
        write!(f, "worker {worker}, port {port}")
    }
}

struct Prefix<'a>(&'a vip::PrefixKey);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::from(self.0.address);
        let offset = if address.is_ipv4() { 96 } else { 0 };
        write!(f, "{address}/{}", self.0.len.saturating_sub(offset))
    }
}

struct Entry<'a>(&'a vip::Key);

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::from(self.0.address);
        let protocol = match self.0.protocol {
            edge_common::TCP => edge_model::Protocol::Tcp,
            edge_common::UDP => edge_model::Protocol::Udp,
            _ => return write!(f, "virtual address {address}"),
        };
        write!(
            f,
            "VIP {}",
            VipId {
                address,
                free_bits: self.0.free_bits,
                port: self.0.port,
                protocol
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use edge_model::{
        DataPathConfig, FloodLimits, ForwardMode, Member, MemberState, Pool, Protocol, SourceLists,
        TokenRate, Vip, Worker, WorkerKind,
    };

    use super::*;

    fn vip(last: u8, port: u16) -> Vip {
        let address = IpAddr::from([192, 0, 2, last]);
        Vip::local(address, port, Protocol::Tcp, 8080)
    }

    fn config(vips: &[Vip], workers: u16) -> DataPathConfig {
        let worker = |id| Worker {
            id: WorkerId(id),
            weight: 1,
            kind: WorkerKind::Local,
        };
        DataPathConfig {
            vips: vips.to_vec(),
            workers: (0..workers).map(worker).collect(),
            hash_seed: 1,
            ..DataPathConfig::default()
        }
    }

    fn steps(from: &DataPathConfig, to: &DataPathConfig) -> Vec<String> {
        let from = Image::default()
            .next(from, &[], true, &BTreeSet::new())
            .expect("fits");
        let to = from.next(to, &[], true, &BTreeSet::new()).expect("fits");
        Plan::between(&from, &to)
            .steps
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_plan_holds_the_steps_of_the_change_and_no_others() {
        let one = config(&[vip(1, 80)], 2);
        let rate = TokenRate {
            per_second: 10,
            burst: 10,
        };
        let flood = Some(FloodLimits {
            packets: rate,
            new_connections: rate,
        });
        let deny = ["198.51.100.0/24".parse().expect("literal")];
        let sources = SourceLists {
            deny: deny.into(),
            ..SourceLists::default()
        };
        let rows: [(&str, &DataPathConfig, &[&str]); 8] = [
            ("nothing", &one.clone(), &[]),
            (
                "a worker more",
                &config(&[vip(1, 80)], 3),
                &[
                    "write worker 2",
                    "write the Maglev table of pool 0",
                    "write the settings",
                ],
            ),
            (
                "flood limits",
                &DataPathConfig { flood, ..one.clone() },
                &["write the settings"],
            ),
            (
                "a deny list",
                &DataPathConfig {
                    sources,
                    ..one.clone()
                },
                &[
                    "add to the lists of sources",
                    "write the settings",
                    "remove from the lists of sources",
                ],
            ),
            (
                "reflection ports",
                &DataPathConfig {
                    reflection_ports: vec![53, 123],
                    ..one.clone()
                },
                &["write the reflection ports", "write the settings"],
            ),
            (
                "another port of the same address",
                &config(&[vip(1, 80), vip(1, 443)], 2),
                &["zero the counters of VIP index 1", "write VIP 192.0.2.1:443/tcp"],
            ),
            (
                "another listener for the VIP",
                &config(
                    &[Vip {
                        listener_port: 8443,
                        ..vip(1, 80)
                    }],
                    2,
                ),
                &["write VIP 192.0.2.1:80/tcp"],
            ),
            (
                "another address",
                &config(&[vip(2, 80)], 2),
                &[
                    "remove the local route of 192.0.2.1",
                    "zero the counters of VIP index 1",
                    "write virtual address 192.0.2.2",
                    "write VIP 192.0.2.2:80/tcp",
                    "write the settings",
                    "remove virtual address 192.0.2.1",
                    "remove VIP 192.0.2.1:80/tcp",
                    "add a local route for 192.0.2.2",
                ],
            ),
        ];
        for (name, to, expected) in rows {
            assert_eq!(steps(&one, to), expected, "{name}");
        }
    }

    #[test]
    fn a_worker_that_gets_the_index_of_another_begins_without_its_counts() {
        let member = |host: u8| Member {
            name: format!("w{host}").into(),
            number: None,
            address: IpAddr::from([10, 0, 0, host]),
            mode: ForwardMode::Ipip,
            weight: 1,
            state: MemberState::Active,
            next_hop: None,
        };
        let pool = |hosts: &[u8]| DataPathConfig {
            pools: vec![Pool {
                name: "web".into(),
                members: hosts.iter().copied().map(member).collect(),
            }],
            ..DataPathConfig::default()
        };
        let draining = |mut config: DataPathConfig| {
            config.pools[0].members[0].state = MemberState::Draining;
            config
        };
        // Indexes begin at 1024, and one whose owner just left is given away last.
        let rows: [(&str, DataPathConfig, &[u16]); 6] = [
            ("two come", pool(&[1, 2]), &[1024, 1025]),
            ("one drains", draining(pool(&[1, 2])), &[]),
            ("it leaves", pool(&[2]), &[]),
            ("another gets its index", pool(&[2, 3]), &[1024]),
            ("the list is in another order", pool(&[3, 2]), &[]),
            ("two are exchanged", pool(&[4, 5]), &[1026, 1027]),
        ];
        let mut image = Image::default();
        for (name, config, expected) in rows {
            let next = image.next(&config, &[], true, &BTreeSet::new()).expect("fits");
            let steps = Plan::between(&image, &next).steps;
            let at = |step: &Step| {
                if let Step::ForgetWorker(index) = step {
                    Some(*index)
                } else {
                    None
                }
            };
            assert_eq!(
                steps.iter().filter_map(at).collect::<Vec<_>>(),
                expected,
                "{name}"
            );
            let first_write = steps
                .iter()
                .position(|step| matches!(step, Step::WriteWorker(..)));
            let last_zero = steps.iter().rposition(|step| at(step).is_some());
            assert!(
                last_zero < first_write || last_zero.is_none(),
                "{name}: {steps:?}"
            );
            image = next;
        }
    }

    #[test]
    fn a_socket_that_was_opened_anew_replaces_the_old_one() {
        let id = |cookie| SocketId {
            worker: WorkerId(1),
            port: 8080,
            cookie,
        };
        let image = |sockets: &[(u32, SocketId)]| Image {
            sockets: sockets.iter().copied().collect::<BTreeMap<_, _>>(),
            ..Image::default()
        };
        let plan = Plan::between(&image(&[(1, id(7)), (2, id(8))]), &image(&[(1, id(9))]));
        assert_eq!(
            plan.steps,
            [Step::SetSocket(1, id(9)), Step::ClearSocket(2, id(8))]
        );
    }
}
