//! One place for automation: `cargo xtask <verb>`.
//!
//! Every verb but `setup` itself begins with [`setup::ensure`], so that a fresh clone needs no other
//! preparation. The verbs run what a person would type, say which step failed, and what to do about it.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod demo;
mod fuzz;
mod paths;
mod pktgen;
mod release;
mod setup;
mod sh;
mod test;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::sh::say;

/// The command line of `cargo xtask`.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Sets up, tests and demonstrates the edge load balancer"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// One verb, one file.
#[derive(Debug, Subcommand)]
enum Verb {
    Setup(setup::Args),
    Build(release::Args),
    Demo(demo::Args),
    Test(test::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Pktgen(pktgen::Args),
    Train(train::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Build(args) => release::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Pktgen(args) => pktgen::run(&args),
        Verb::Train(args) => train::run(&args),
        Verb::Ci(args) => ci::run(&args),
    };
    done.unwrap_or_else(|error| {
        // Not by returning it from `main`: with RUST_BACKTRACE set, a backtrace would bury the advice.
        say(format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
