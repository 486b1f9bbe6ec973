//! `bench-routing`: what a routing decision costs, and what it costs to make the tables.
//!
//! Requests are drawn beforehand and asked in turn, so that no branch or cache line is learned by heart. Criterion takes
//! the samples, of processor time and not of the clock's, and their median counts.
#![forbid(unsafe_code)]

mod change;
mod compile;
mod harness;
mod lookup;
mod report;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::harness::{FEWEST_SAMPLES, Harness};
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
    /// Samples of each case; the median counts.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = samples)]
    samples: usize,
    /// Take no time over it: to see that every case can be measured.
    #[arg(long)]
    quick: bool,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
    /// Decide about so many requests of a lookup case, without a clock: for valgrind --tool=callgrind.
    #[arg(long, value_name = "N", requires = "cases")]
    only_run: Option<usize>,
}

fn samples(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| "a number is needed".to_owned())?;
    (FEWEST_SAMPLES..=10_000)
        .contains(&number)
        .then_some(number)
        .ok_or_else(|| format!("{FEWEST_SAMPLES} to 10000 samples can be taken"))
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
    let names: Vec<_> = lookup::NAMES
        .iter()
        .chain(compile::NAMES)
        .chain(change::NAMES)
        .collect();
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
    let lookups: Vec<Lookup> = lookup::NAMES
        .iter()
        .filter(|name| is_wanted(name))
        .filter_map(|name| Lookup::new(name))
        .collect();
    if let Some(count) = arguments.only_run {
        lookups.iter().for_each(|lookup| lookup.only_run(count));
        return Ok(());
    }
    let output = harness::set_output_aside()?;
    let mut report = Report::new(Box::new(output), arguments.json)?;
    let mut harness = Harness::new(arguments.samples, arguments.quick)?;
    lookup::measure(&lookups, &mut harness, &mut report)?;
    if compile::NAMES.iter().any(|name| is_wanted(name)) {
        compile::measure(is_wanted, &mut harness, &mut report)?;
    }
    change::measure(is_wanted, &mut harness, &mut report)?;
    report.close()
}
