//! `bench-proxy`: processor time of tier 2 for a request, a connection or a byte, beside what others take for the same.
//!
//! The proxies run one worker each, on one core; what makes the load and what answers it run on another. They take
//! turns, round by round, and the medians are compared: a noisy machine moves them all. Their processor time is the
//! kernel's account of their processes (proc_pid_stat(5)), so that whoever waits is not charged for it. All of them do
//! what an edge does besides forwarding: request ids, forwarded-for, timeouts, a retry policy, counters, a hundred routes.
#![forbid(unsafe_code)]

mod abuse;
mod backend;
mod case;
mod floor;
mod idle;
mod load;
mod measure;
mod peer;
mod profile;
mod report;
mod site;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::case::CASES;
use crate::measure::Bench;
use crate::report::Report;

/// Measures the proxy.
#[derive(Debug, Parser)]
#[command(name = "bench-proxy")]
pub(crate) struct Arguments {
    /// A part of the bench that runs as a process of its own.
    #[command(subcommand)]
    part: Option<Part>,
    /// Print one JSON object a line:
    /// {"case","unit","edge","haproxy","nginx","envoy","floor","goal","met"}.
    #[arg(long)]
    json: bool,
    /// Measure only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Measure only this proxy besides edge; may be repeated.
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<String>,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each proxy gets in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Connections of the cases that count memory.
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Core of the proxies.
    #[arg(long, default_value_t = 0)]
    proxy_core: u32,
    /// Core of load and backend.
    #[arg(long, default_value_t = 1)]
    load_core: u32,
    /// The program `edge`; unless set, the one beside this program.
    #[arg(long, value_name = "FILE")]
    edge: Option<PathBuf>,
    /// The program `envoy`, if it can be had.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Measure nothing, and print by function where the instructions of a request go, as callgrind counts them: for cases
    /// of requests (h1, h2c, h2_tls, h1_tls, access_log, hosts_10000, routes_1000), which are to be named.
    #[arg(long, requires = "cases", conflicts_with = "json")]
    profile: bool,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Answers requests.
    Backend(backend::Args),
    /// Forwards bytes with as little as the kernel allows.
    Floor {
        #[arg(long)]
        listen: u16,
        #[arg(long)]
        to: SocketAddr,
        /// Moves bytes by splice(2) and never looks at them.
        #[arg(long)]
        splice: bool,
    },
    /// Holds idle connections until it is ended.
    Idle(idle::Args),
    /// Makes full TLS handshakes and counts them.
    Handshakes(idle::HandshakeArgs),
    /// Response times of a good client beside clients that flood, stall or drip, with a proxy that runs already.
    Abuse(abuse::Args),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.part {
        Some(Part::Backend(args)) => backend::run(args),
        Some(Part::Floor { listen, to, splice }) => floor::run(*listen, *to, *splice),
        Some(Part::Idle(args)) => idle::run(args),
        Some(Part::Handshakes(args)) => idle::handshakes(args),
        Some(Part::Abuse(args)) => abuse::run(args),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    for name in &arguments.cases {
        ensure!(
            CASES.iter().any(|case| case.name == name),
            "there is no case {name}; `--list` names them"
        );
    }
    let wanted = CASES
        .iter()
        .filter(|case| arguments.cases.is_empty() || arguments.cases.iter().any(|name| name == case.name));
    let mut bench = Bench::new(arguments)?;
    if arguments.profile {
        return wanted.into_iter().try_for_each(|case| bench.profile(case));
    }
    let mut report = Report::new(arguments.json);
    for case in wanted {
        report.add(&bench.measure(case)?);
    }
    report.close();
    Ok(())
}
