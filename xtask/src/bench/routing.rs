//! `cargo xtask bench routing`: what a routing decision costs, and making the tables.

use std::process::ExitCode;

use anyhow::Result;

use crate::sh::{self, say};

/// Nanoseconds of a routing decision with few and with many routes, beside the walk through the list; time and memory
/// for ten thousand hosts; time for one change to them. Criterion measures, by the processor's time.
///
/// Needs neither root nor a network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask bench routing\n  \
                  cargo xtask bench routing --json --case routes_10 --case routes_1000\n  \
                  cargo xtask bench routing --list")]
pub(crate) struct Args {
    /// Print one JSON object a line: {"case","value","unit","goal"}.
    #[arg(long)]
    json: bool,
    /// Measure only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Samples of each case; the median counts.
    #[arg(long, default_value_t = 50)]
    samples: usize,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
}

/// The verb.
///
/// # Errors
/// If the build or the measurement fails.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    say("bench: building with optimisation, some minutes the first time");
    let mut bench = sh::cargo();
    bench.args(["run", "--quiet", "--release", "--package", "edge-bench-routing"]);
    bench.args(["--bin", "bench-routing", "--"]);
    for case in &args.cases {
        bench.args(["--case", case]);
    }
    bench.args(["--samples", &args.samples.to_string()]);
    bench.args(args.json.then_some("--json"));
    bench.args(args.list.then_some("--list"));
    sh::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
