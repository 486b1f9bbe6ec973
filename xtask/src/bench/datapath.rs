//! `cargo xtask bench datapath`: nanoseconds per packet.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::paths;
use crate::setup;
use crate::sh::{self, say};

/// Nanoseconds that tier 1 takes for a packet, by BPF_PROG_TEST_RUN, beside the cheapest possible programs.
///
/// Needs root. The BPF object is the optimised one that `edge` carries, whatever the profile of the program that
/// loads it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask bench datapath\n  \
                  cargo xtask bench datapath --json --case no_vip --case penalty\n  \
                  cargo xtask bench datapath --list")]
pub(crate) struct Args {
    /// Print one JSON object a line: {"case","ns","floor_ns","ratio","goal"}.
    #[arg(long)]
    json: bool,
    /// Measure only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 31)]
    rounds: u32,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
}

/// The verb.
///
/// # Errors
/// If setup or the build fails, or the measurement does.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        sh::is_root() || args.list,
        "running BPF programs needs root: `sudo -E cargo xtask bench datapath`"
    );
    setup::ensure()?;
    say("bench: building");
    sh::run(sh::cargo().args([
        "build",
        "--quiet",
        "--package",
        "edge-bench",
        "--bin",
        "bench-datapath",
    ]))?;
    let mut bench = Command::new(paths::target().join("debug/bench-datapath"));
    for case in &args.cases {
        bench.args(["--case", case]);
    }
    bench.args(["--rounds", &args.rounds.to_string()]);
    bench.args(args.json.then_some("--json"));
    bench.args(args.list.then_some("--list"));
    sh::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
