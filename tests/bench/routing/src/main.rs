//! `bench-routing`: what a routing decision costs, and what it costs to make the tables.
//!
//! Requests are drawn beforehand and asked in turn, so that no branch or cache line is learned by heart. The cases
//! take turns, round by round, and the median of the rounds counts: a noisy machine moves them all.
#![forbid(unsafe_code)]

mod compile;
mod lookup;
mod report;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::lookup::Lookup;
use crate::report::Report;

/// Measures routing.
#[derive(Debug, Parser)]
#[command(name = "bench-routing")]
struct Arguments {
    /// Print one JSON object a line: {"case","value","unit","goal"}.
    #[arg(long)]
    json: bool,
    /// Measure only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
    /// Decide about so many requests of a lookup case, without a clock: for valgrind --tool=callgrind.
    #[arg(long, value_name = "N", requires = "cases")]
    only_run: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-routing: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let names: Vec<_> = lookup::NAMES.iter().chain(compile::NAMES).collect();
    if arguments.list {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    for name in &arguments.cases {
        ensure!(
            names.iter().any(|known| *known == name),
            "there is no case {name}; `--list` names them"
        );
    }
    let is_wanted =
        |name: &str| arguments.cases.is_empty() || arguments.cases.iter().any(|case| case == name);
    let mut lookups: Vec<Lookup> = lookup::NAMES
        .iter()
        .filter(|name| is_wanted(name))
        .filter_map(|name| Lookup::new(name))
        .collect();
    if let Some(count) = arguments.only_run {
        lookups.iter().for_each(|lookup| lookup.only_run(count));
        return Ok(());
    }
    let mut report = Report::new(arguments.json);
    lookup::measure(&mut lookups, arguments.rounds, &mut report);
    if compile::NAMES.iter().any(|name| is_wanted(name)) {
        compile::measure(arguments.rounds, is_wanted, &mut report)?;
    }
    report.close();
    Ok(())
}
