//! `cargo xtask demo`: real connections to a virtual address, through XDP and the proxy, to versions of a backend;
//! then a flood and an abuser, stopped at the NIC.

mod report;
mod steps;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use edge_lab::{Programs, Site, address};

use self::report::Report;
use crate::sh::{self, say};
use crate::{paths, release, setup};

/// Shows the whole path in a lab of network namespaces, with real traffic, in about half a minute.
///
/// Needs root: it makes namespaces and loads BPF programs. Everything it makes goes away when it ends, also on
/// Ctrl-C. The configuration is config/demo.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask demo            a readable table\n  \
                        cargo xtask demo --json     the same as one JSON object\n  \
                        cargo xtask demo --keep     leaves the lab up and says how to curl it")]
pub(crate) struct Args {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Leave the lab up until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// The verb. It fails when what is shown is not as it should be.
///
/// # Errors
/// Without root, when setup or the build fails, or when a step of the demo cannot be done.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        sh::is_root(),
        "the demo makes network namespaces and loads BPF programs, which needs root: run `sudo -E cargo xtask demo`"
    );
    setup::ensure()?;
    build()?;
    let programs = Programs::of(paths::target().join("release"));
    let site = Site::open(&paths::workspace().join("config/demo"), programs.clone())?;
    say("demo: a client, a node with edge, and three versions of the shop are up");
    let report = perform(&site)?;
    if args.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_table());
    }
    if args.keep {
        keep(&site, &programs)?;
    }
    let shortcomings = report.shortcomings();
    for shortcoming in &shortcomings {
        say(format!("demo: NOT as it should be: {shortcoming}"));
    }
    Ok(if shortcomings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds the programs with all optimisations; the first time takes minutes, after that nothing.
fn build() -> Result<()> {
    say("demo: building edge, the sample backend and the flood (release)");
    release::edge_and(
        &["edge-lab", "edge-datapath-tests"],
        &["edge-backend", "edge-pktgen"],
    )
}

/// All steps in their order.
fn perform(site: &Site) -> Result<Report> {
    Ok(Report {
        xdp_mode: steps::xdp_mode(site)?,
        routing: steps::routing(site)?,
        canary: steps::canary(site)?,
        flood: steps::flood(site)?,
        abuse: steps::abuse(site)?,
    })
}

/// Tells how to reach the lab and waits for Ctrl-C, which ends the process with everything it made.
fn keep(site: &Site, programs: &Programs) -> Result<()> {
    let client = site.lab().client().path().display().to_string();
    let node = site.lab().node().path().display().to_string();
    let edge = programs.path("edge")?.display().to_string();
    let config = site.config().display();
    say("demo: the lab stays up until Ctrl-C; from another terminal, as root:");
    for line in [
        format!(
            "nsenter --net={client} curl -H 'host: shop.example.com' http://{}/",
            address::VIP
        ),
        format!(
            "nsenter --net={client} curl -H 'host: shop.example.com' 'http://[{}]/api/v3/x'",
            address::VIP_V6
        ),
        format!(
            "nsenter --net={client} curl --cacert {} --resolve shop.example.com:443:{} https://shop.example.com/",
            site.certificate().display(),
            address::VIP
        ),
        format!("nsenter --net={node} {edge} status"),
        format!("{edge} explain request --config {config} --port 80 http://shop.example.com/"),
    ] {
        eprintln!("  {line}");
    }
    site.lab().hold()
}
