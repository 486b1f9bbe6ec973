//! `bench-veth`: how many packets a second the ways to drop a flood take, on a virtual link that it makes.
//!
//! Generator and receiver share one core: the generator's frames are handed to the receiver's interface, whose work
//! is done on the core that handed them over. So a cheaper receiver lets the generator send more, and what arrives each
//! second is the figure. All receivers are measured in turns in one run.
#![forbid(unsafe_code)]

mod cpu;
mod generator;
mod receiver;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use edge_datapath_tests::node::Pair;
use serde_json::json;

use crate::cpu::Load;
use crate::generator::Generator;
use crate::receiver::Receiver;

/// Measures what a flood of minimal frames costs its receiver.
#[derive(Debug, Parser)]
#[command(name = "bench-veth")]
struct Arguments {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each receiver gets in each round.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// CPU that generator and receiver share.
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// Source addresses, from 10.77.16.0 on.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=4096))]
    sources: u32,
}

/// One receiver's run.
#[derive(Debug, Clone)]
struct Run {
    /// Frames that arrived, a second.
    received: f64,
    /// Frames that the generator made, a second: the interface had no room for the rest.
    made: f64,
    /// Frames that the receiver sent on, a second.
    forwarded: f64,
    /// Frames that the receiver itself says it dropped, a second.
    dropped: f64,
    /// Busy share of each core.
    load: Load,
    /// What each core did; only edge counts that.
    cores: Vec<Core>,
}

/// Frames a second on one core.
#[derive(Debug, Clone, Copy)]
struct Core {
    /// That came.
    received: f64,
    /// That were sent on.
    forwarded: f64,
    /// That were dropped.
    dropped: f64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-veth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let pair = Pair::new()?;
    let generator = Generator::find(&pair, arguments.cpu, arguments.sources)?;
    let time = Duration::from_secs(u64::from(arguments.seconds));
    if !arguments.json {
        println!("generator: {}", generator.name());
    }
    let mut runs: Vec<(Receiver, Vec<Run>)> = Receiver::ALL.map(|receiver| (receiver, Vec::new())).into();
    for _ in 0..arguments.rounds {
        for (receiver, runs) in &mut runs {
            runs.push(receiver.attach(&pair)?.measure(&generator, time)?);
        }
    }
    report(runs, &generator, arguments.json);
    Ok(())
}

fn report(runs: Vec<(Receiver, Vec<Run>)>, generator: &Generator<'_>, as_json: bool) {
    let medians: Vec<(Receiver, Run)> = runs
        .into_iter()
        .filter_map(|(receiver, runs)| Some((receiver, median(runs)?)))
        .collect();
    let of = |wanted| {
        let found = medians.iter().find(|(receiver, _)| *receiver == wanted);
        found.map_or(f64::NAN, |(_, run)| run.received)
    };
    let edge = of(Receiver::Edge);
    if !as_json {
        println!(
            "{:<10} {:>12} {:>12} {:>12} {:>12} {:>16}  CPU busy",
            "receiver", "sent/s", "received/s", "forwarded/s", "dropped/s", "edge is"
        );
    }
    for (receiver, run) in &medians {
        // What edge has to reach: 85 % of a program that only drops, and twice what iptables' raw table does.
        let (case, goal) = match receiver {
            Receiver::Drop => ("veth_drop", Some(0.85)),
            Receiver::Iptables => ("veth_iptables", Some(2.0)),
            Receiver::Nft => ("veth_nft", None),
            Receiver::Edge => ("veth_edge", None),
            Receiver::Forward => ("veth_forward", None),
        };
        let ratio = edge / run.received;
        if as_json {
            let line = json!({
                "case": case, "ns": 1e9 / edge, "floor_ns": 1e9 / run.received, "ratio": ratio, "goal": goal,
                "generator": generator.name(), "made_pps": run.made, "received_pps": run.received,
                "forwarded_pps": run.forwarded, "dropped_pps": run.dropped, "cpu_busy": run.load.0,
                "cores": run.cores.iter().map(|core| json!({
                    "received_pps": core.received, "forwarded_pps": core.forwarded, "dropped_pps": core.dropped,
                })).collect::<Vec<_>>(),
            });
            println!("{line}");
        } else {
            let goal = goal.map_or_else(String::new, |goal| format!(" (aim {goal})"));
            println!(
                "{:<10} {:>12.0} {:>12.0} {:>12.0} {:>12.0} {:>16}  {}",
                receiver.name(),
                run.made,
                run.received,
                run.forwarded,
                run.dropped,
                format!("{ratio:.2} x{goal}"),
                run.load
            );
            for (number, core) in run.cores.iter().enumerate() {
                println!(
                    "{:<10} {:>12} {:>12.0} {:>12.0} {:>12.0}",
                    format!("  core {number}"),
                    "",
                    core.received,
                    core.forwarded,
                    core.dropped
                );
            }
        }
    }
}

/// The run in the middle, by what arrived.
fn median(mut runs: Vec<Run>) -> Option<Run> {
    runs.sort_by(|a, b| a.received.total_cmp(&b.received));
    runs.get(runs.len() / 2).cloned()
}
