//! `cargo xtask train`: the profile that `edge` is built by.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::sh::{self, say};
use crate::{paths, release, setup};

/// What reads the counters of rustc's programs. rustc 1.95 writes them in a version of the format that LLVM 19 knows.
const MERGE: (&str, &str) = ("llvm-19", "/usr/lib/llvm-19/bin/llvm-profdata");

/// Cases of `cargo xtask bench proxy` that `edge` is trained by: what gateways serve, in either version, with and without
/// TLS, small and large, and what they write about it.
const CASES: [&str; 11] = [
    "h1",
    "h2c",
    "h2_tls",
    "h1_tls",
    "handshake_ecdsa",
    "handshake_rsa",
    "body_1m",
    "tcp",
    "tls_passthrough",
    "access_log",
    "routes_1000",
];

/// Seconds that each case gets: counts matter as shares alone.
const SECONDS: u32 = 2;

/// Makes the profile that `edge` is built by: edge-userspace/edge.profdata.
///
/// Builds `edge` with counters, lets it serve what the bench makes of requests, and merges what was counted. To be run,
/// and its result committed, after changes on the way of a request, and with another compiler. Takes some ten minutes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask train")]
pub(crate) struct Args {}

/// The verb.
///
/// # Errors
/// If setup, the build or the training fails; the profile is then as it was.
pub(crate) fn run(Args {}: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    setup::packages::ensure(&[MERGE])?;
    let folder = paths::target().join("train");
    let edge = build(&folder)?;
    release::others(&["edge-bench-proxy"], &["bench-proxy"])?;
    let counters = count(&folder, &edge)?;
    merge(&counters)?;
    say(format!("train: {}", paths::profile().display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds `edge` so that it counts.
fn build(folder: &Path) -> Result<PathBuf> {
    say("train: building edge with counters");
    // Build scripts and macros count, too; nobody reads that.
    let flags = format!("-Cprofile-generate={}", folder.join("unread").display());
    sh::run(
        release::cargo(&flags, &["edge"], &["edge"])
            .arg("--target-dir")
            .arg(folder),
    )?;
    Ok(folder.join("release/edge"))
}

/// Lets it serve; returns the files with what each of its processes has counted.
fn count(folder: &Path, edge: &Path) -> Result<Vec<PathBuf>> {
    say("train: serving");
    let counters = folder.join("counters");
    if counters.exists() {
        fs::remove_dir_all(&counters).context("cannot remove what was counted before")?;
    }
    let mut bench = Command::new(paths::target().join("release/bench-proxy"));
    bench.env("LLVM_PROFILE_FILE", counters.join("%p.profraw"));
    bench.arg("--edge").arg(edge).args(["--peer", "edge"]);
    bench.args(["--rounds", "1", "--seconds", &SECONDS.to_string()]);
    for case in CASES {
        bench.args(["--case", case]);
    }
    // Its figures are those of a program that counts.
    sh::output(&mut bench)?;
    let files = fs::read_dir(&counters).with_context(|| format!("cannot read {}", counters.display()))?;
    let files = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(!files.is_empty(), "edge has counted nothing");
    Ok(files)
}

/// Merges the counters. What never ran is left out and compiled as ever: it was not trained, which does not mean that
/// nobody needs it.
fn merge(counters: &[PathBuf]) -> Result<()> {
    let mut merge = Command::new(MERGE.1);
    merge
        .args(["merge", "--sparse", "--output"])
        .arg(paths::profile());
    sh::run(merge.args(counters))
}
