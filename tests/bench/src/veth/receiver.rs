//! Dropping the flood on the node.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode as AyaMode};
use edge_common::bench;
use edge_datapath::{DataPath, LoadOptions, XdpMode, object};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::config;
use edge_model::{DataPathConfig, Prefix, SourceLists};

use crate::Run;
use crate::cpu::Ticks;
use crate::generator::{Generator, SOURCES};

/// Node's interface.
const INTERFACE: &str = "node0";
/// Denied prefixes beside the flood's own.
const DENIED: u32 = 10_000;

/// What drops the flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// An XDP program that drops at once.
    Drop,
    /// Tier 1, by its deny list.
    Edge,
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
    pub(crate) const ALL: [Self; 4] = [Self::Drop, Self::Edge, Self::Iptables, Self::Nft];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "XDP_DROP",
            Self::Edge => "edge",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
        }
    }

    /// Puts it to work on the node.
    pub(crate) fn attach(self, pair: &Pair) -> Result<Attached<'_>> {
        let (mut program, mut edge) = (None, None);
        match self {
            Self::Drop => program = Some(inside(&pair.node, drop_at_once)?),
            Self::Edge => edge = Some(inside(&pair.node, deny)?),
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
        // Tier 1 counts for itself; of the others, what the interface took and nobody got was dropped.
        let dropped = match &self.edge {
            Some(edge) => edge.stats()?.dropped_total(),
            None => sent.taken,
        };
        Ok(Run {
            received: sent.taken as f64 / sent.seconds,
            made: sent.made as f64 / sent.seconds,
            dropped: dropped as f64 / sent.seconds,
            load,
        })
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let done = match self.receiver {
            Receiver::Iptables => self.pair.node.exec(&["iptables", "-t", "raw", "-F"]),
            Receiver::Nft => self.pair.node.exec(&["nft", "delete table ip bench"]),
            Receiver::Drop | Receiver::Edge => Ok(String::new()),
        };
        if let Err(error) = done {
            eprintln!("bench-veth: {error:#}");
        }
    }
}

fn drop_at_once() -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(object::BENCH)?;
    let program = ebpf
        .program_mut(bench::DROP_AT_ONCE)
        .context("the object has no such program")?;
    let program: &mut Xdp = program.try_into()?;
    program.load()?;
    program.attach(INTERFACE, AyaMode::Driver)?;
    Ok(ebpf)
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
