//! `bench-datapath`: what tier 1 costs a packet, in nanoseconds, beside what the cheapest programs cost.
//!
//! The kernel runs the real program by BPF_PROG_TEST_RUN behind a harness that restores and varies the packet
//! (`edge-ebpf/src/bench.rs`). Every figure includes the harness, as its floors do. Program and floors take turns,
//! and the median of the rounds counts, so that a noisy machine moves both.
#![forbid(unsafe_code)]

mod cases;
mod frame;
mod harness;
mod report;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use edge_lab::NetNs;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cases::Case;
use crate::harness::Harness;
use crate::report::Report;

/// Measures tier 1's cost per packet.
#[derive(Debug, Parser)]
#[command(name = "bench-datapath")]
struct Arguments {
    /// Print one JSON object a line: {"case","ns","floor_ns","ratio","goal"}.
    #[arg(long)]
    json: bool,
    /// Measure only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Flows that the connection table has room for; unless set, as many as edge.yaml's default, or more where a case
    /// needs it.
    #[arg(long)]
    flows: Option<u32>,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
    /// CPU to run on.
    #[arg(long, default_value_t = 1)]
    cpu: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-datapath: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let cases = cases::all();
    if arguments.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    for name in &arguments.cases {
        ensure!(
            cases.iter().any(|case| case.name == *name),
            "there is no case {name}; `--list` names them"
        );
    }
    // In a network namespace of its own: SYN cookies set a sysctl.
    let netns = NetNs::new("bench")?;
    netns.enter(|| measure(&cases, arguments))
}

fn measure(cases: &[Case], arguments: &Arguments) -> Result<()> {
    // Counters and buckets are per CPU: all runs share one. A machine with a single CPU has only the first.
    pin(arguments.cpu)
        .or_else(|_| pin(0))
        .context("cannot pin to a CPU")?;
    let wanted =
        |case: &&Case| arguments.cases.is_empty() || arguments.cases.iter().any(|name| *name == case.name);
    let mut report = Report::new(arguments.json);
    for case in cases.iter().filter(wanted) {
        let mut harness = Harness::load()?;
        let flows = arguments.flows.unwrap_or_else(|| case.table());
        let figures = harness
            .measure(case, arguments.rounds, flows)
            .with_context(|| format!("case {}", case.name))?;
        report.add(case, &figures);
    }
    report.close();
    Ok(())
}

fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}
