//! `cargo xtask pktgen`: packets per second on a virtual link.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::paths;
use crate::setup;
use crate::sh::{self, say};

/// Floods a virtual link with 64-byte frames of many flows, and says how many packets a second edge drops, beside an
/// XDP program that only drops, iptables' raw table, and nftables; and how many it forwards in a tunnel. Packets sent,
/// received, forwarded and dropped are shown, of edge by core, with the share of each core that was busy.
///
/// Frames are made by the kernel's pktgen where it is there, else by an XDP program on live frames. The link and its
/// namespaces are made for it and go with it. Needs root.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask pktgen\n  cargo xtask pktgen --seconds 5 --sources 1 --json"
)]
pub(crate) struct Args {
    /// Print one JSON object a line, with the cases veth_drop, veth_edge, veth_forward, veth_iptables and
    /// veth_nft.
    #[arg(long)]
    json: bool,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds that each receiver gets in each round.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Source addresses of the flood, at most 4096.
    #[arg(long, default_value_t = 4096)]
    sources: u32,
}

/// The verb.
///
/// # Errors
/// If setup or the build fails, or the measurement does.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        sh::is_root(),
        "making a link and loading BPF programs needs root: `sudo -E cargo xtask pktgen`"
    );
    setup::ensure()?;
    say("pktgen: building");
    let bins = ["--bin", "bench-veth", "--bin", "edge-pktgen"];
    let packages = ["--package", "edge-bench", "--package", "edge-datapath-tests"];
    sh::run(sh::cargo().args(["build", "--quiet"]).args(packages).args(bins))?;
    let mut bench = Command::new(paths::target().join("debug/bench-veth"));
    for (name, value) in [
        ("--rounds", args.rounds),
        ("--seconds", args.seconds),
        ("--sources", args.sources),
    ] {
        bench.args([name, &value.to_string()]);
    }
    bench.args(args.json.then_some("--json"));
    sh::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
