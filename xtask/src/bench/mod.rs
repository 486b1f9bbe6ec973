//! `cargo xtask bench <what>`: figures, each beside what it is compared with.

mod datapath;
mod proxy;
mod routing;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Measures what edge costs, beside what the alternatives cost on the same machine in the same run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Datapath(datapath::Args),
    Proxy(proxy::Args),
    Routing(routing::Args),
}

/// The verb.
///
/// # Errors
/// If setup, the build or the measurement fails.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Datapath(args) => datapath::run(args),
        What::Proxy(args) => proxy::run(args),
        What::Routing(args) => routing::run(args),
    }
}
