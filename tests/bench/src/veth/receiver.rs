//! Dropping the flood on the node.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode as AyaMode};
use edge_common::bench;
use edge_datapath::{CoreStats, DataPath, Flows, LoadOptions, XdpMode, object};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::config;
use edge_model::{DataPathConfig, ForwardMode, Member, MemberState, Pool, Prefix, SourceLists};

use crate::cpu::Ticks;
use crate::generator::{Generator, SOURCES};
use crate::{Core, Run};

/// Node's interface.
const INTERFACE: &str = "node0";
/// Client's interface.
const PEER: &str = "client0";
/// Denied prefixes beside the flood's own.
const DENIED: u32 = 10_000;

/// What drops the flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// An XDP program that drops at once.
    Drop,
    /// Tier 1, by its deny list.
    Edge,
    /// Tier 1, which sends it on to a worker in a tunnel, back by the same interface.
    Forward,
    /// A rule in the raw table of iptables.
    Iptables,
    /// A rule of nftables at the same hook and priority.
    Nft,
}

/// A receiver at work; it ends with the value.
pub(crate) struct Attached<'p> {
    pair: &'p Pair,
    receiver: Receiver,
    /// Held for its drop, which detaches the program.
    _program: Option<Ebpf>,
    edge: Option<DataPath>,
}

impl Receiver {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 5] = [Self::Drop, Self::Edge, Self::Forward, Self::Iptables, Self::Nft];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "XDP_DROP",
            Self::Edge => "edge",
            Self::Forward => "forward",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
        }
    }

    /// Puts it to work on the node.
    pub(crate) fn attach(self, pair: &Pair) -> Result<Attached<'_>> {
        let (mut program, mut edge) = (None, None);
        match self {
            Self::Drop => program = Some(inside(&pair.node, || drop_at_once(INTERFACE))?),
            Self::Edge => edge = Some(inside(&pair.node, deny)?),
            Self::Forward => {
                // Frames that XDP sends back arrive at a veth's peer only if that has a program, too.
                program = Some(inside(&pair.client, || drop_at_once(PEER))?);
                edge = Some(inside(&pair.node, forward)?);
            }
            Self::Iptables => {
                // Without a program, frames need GRO to be taken from the ring (veth, `veth_xdp_rcv`).
                pair.node.exec(&["ethtool", "-K", INTERFACE, "gro", "on"])?;
                pair.node.exec(&[
                    "iptables",
                    "-t",
                    "raw",
                    "-A",
                    "PREROUTING",
                    "-p",
                    "udp",
                    "-j",
                    "DROP",
                ])?;
            }
            Self::Nft => {
                pair.node.exec(&["ethtool", "-K", INTERFACE, "gro", "on"])?;
                pair.node.exec(&["nft", "add table ip bench"])?;
                let chain = "add chain ip bench raw { type filter hook prerouting priority raw; }";
                pair.node.exec(&["nft", chain])?;
                pair.node
                    .exec(&["nft", "add rule ip bench raw meta l4proto udp counter drop"])?;
            }
        }
        Ok(Attached {
            pair,
            receiver: self,
            _program: program,
            edge,
        })
    }
}

impl Attached<'_> {
    /// Lets the flood come.
    pub(crate) fn measure(self, generator: &Generator<'_>, time: Duration) -> Result<Run> {
        let before = Ticks::now()?;
        let sent = generator.send(time)?;
        let load = before.load(&Ticks::now()?);
        let rate = |count: u64| count as f64 / sent.seconds;
        let cores = self.edge.as_ref().map(DataPath::cores).transpose()?;
        let cores = cores.map_or_else(Vec::new, |cores| {
            let core = |core: &CoreStats| Core {
                received: rate(core.packets()),
                forwarded: rate(core.forwarded),
                dropped: rate(core.dropped),
            };
            cores.iter().map(core).collect()
        });
        // Tier 1 counts for itself; of the others, what the interface took and nobody got was dropped.
        let dropped = match &self.edge {
            Some(edge) => edge.stats()?.dropped_total(),
            None => sent.taken,
        };
        Ok(Run {
            received: rate(sent.taken),
            made: rate(sent.made),
            forwarded: cores.iter().fold(0.0, |sum, core| sum + core.forwarded),
            dropped: rate(dropped),
            load,
            cores,
        })
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let done = match self.receiver {
            Receiver::Iptables => self.pair.node.exec(&["iptables", "-t", "raw", "-F"]),
            Receiver::Nft => self.pair.node.exec(&["nft", "delete table ip bench"]),
            Receiver::Drop | Receiver::Edge | Receiver::Forward => Ok(String::new()),
        };
        if let Err(error) = done {
            eprintln!("bench-veth: {error:#}");
        }
    }
}

fn drop_at_once(interface: &str) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(object::BENCH)?;
    let program = ebpf
        .program_mut(bench::DROP_AT_ONCE)
        .context("the object has no such program")?;
    let program: &mut Xdp = program.try_into()?;
    program.load()?;
    program.attach(interface, AyaMode::Driver)?;
    Ok(ebpf)
}

/// Tier 1 with workers elsewhere, and the client's own interface for the next hop.
fn forward() -> Result<DataPath> {
    let mut edge = DataPath::load(LoadOptions {
        interfaces: vec![INTERFACE.into()],
        mode: XdpMode::Native,
        flows: Flows { limit: 1 << 20 },
        ..LoadOptions::default()
    })?;
    let mut config = config(1);
    for vip in &mut config.vips {
        vip.pool = Some(0);
    }
    let member = |number: u8| Member {
        name: format!("worker {number}").into(),
        number: None,
        address: IpAddr::from([10, 77, 0, 10 + number]),
        mode: ForwardMode::Ipip,
        weight: 1,
        state: MemberState::Active,
        next_hop: Some([2, 0, 0, 0, 0, number]),
    };
    config.pools = vec![Pool {
        name: "bench".into(),
        members: (1..=4).map(member).collect(),
    }];
    config.tunnel.source4 = Some(Prefix::new(IpAddr::from([172, 16, 0, 0]), 16).context("a prefix")?);
    edge.reconcile(&config, &[])?;
    Ok(edge)
}

/// Tier 1 with the flood's sources in a long deny list.
fn deny() -> Result<DataPath> {
    let mut edge = DataPath::load(LoadOptions {
        interfaces: vec![INTERFACE.into()],
        mode: XdpMode::Native,
        manage_local_routes: true,
        ..LoadOptions::default()
    })?;
    let others = (0..DENIED).filter_map(|n| {
        let address = std::net::Ipv4Addr::from(0x4000_0000 + (n << 12));
        Prefix::new(address.into(), 20 + (n % 13) as u8)
    });
    let flood = Prefix::new(SOURCES.parse()?, 20);
    edge.reconcile(
        &DataPathConfig {
            sources: SourceLists {
                deny: others.chain(flood).collect(),
                ..SourceLists::default()
            },
            ..config(4)
        },
        &[],
    )?;
    Ok(edge)
}
