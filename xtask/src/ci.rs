//! `cargo xtask ci`: what continuous integration checks, on one's own machine.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::sh::{self, say};
use crate::{paths, setup, test};

/// The version of cargo-deny that reads deny.toml.
const DENY_VERSION: &str = "0.20.2";

/// Checks formatting, lints, dependencies and documentation, then runs all tests.
///
/// Goes on after a check that failed, so that one run shows everything there is to mend.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask ci                             everything (tests need root)\n  \
                  cargo xtask ci --only fmt --only clippy    two of the checks\n  \
                  cargo xtask ci --skip test                 all but the tests"
)]
pub(crate) struct Args {
    /// Run only this check; may be repeated.
    #[arg(long, value_name = "CHECK", conflicts_with = "skip")]
    only: Vec<Check>,
    /// Leave this check out; may be repeated.
    #[arg(long, value_name = "CHECK")]
    skip: Vec<Check>,
}

/// One check, in the order in which they run: the quick ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    /// Formatting, by rustfmt.
    Fmt,
    /// Lints of all crates for the host, tests included; warnings are errors.
    Clippy,
    /// Lints of the BPF programs, for the BPF target.
    ClippyBpf,
    /// Licences, sources and duplicate versions of dependencies, by cargo-deny.
    Deny,
    /// Documentation, where a broken link is an error.
    Doc,
    /// All tests, as `cargo xtask test` runs them.
    Test,
}

/// The verb.
///
/// # Errors
/// If setup failed; a failed check is told by the exit code.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let mut failed = Vec::new();
    for check in Check::value_variants().iter().filter(|check| args.wants(**check)) {
        let start = Instant::now();
        say(format!("ci: {}", check.name()));
        match check.run() {
            Ok(()) => say(format!(
                "ci: {}: ok in {:.0} s",
                check.name(),
                start.elapsed().as_secs_f64()
            )),
            Err(error) => {
                say(format!("ci: {}: FAILED: {error:#}", check.name()));
                failed.push(check.name());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("error: ci: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

impl Args {
    fn wants(&self, check: Check) -> bool {
        (self.only.is_empty() || self.only.contains(&check)) && !self.skip.contains(&check)
    }
}

impl Check {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => sh::run(sh::cargo().args(["fmt", "--all", "--", "--check"])),
            Self::Clippy => sh::run(clippy().args(["--all-targets", "--", "-D", "warnings"])),
            Self::ClippyBpf => sh::run(&mut clippy_bpf()),
            Self::Deny => deny(),
            Self::Doc => sh::run(workspace(&["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")),
            Self::Test => all_tests(),
        }
    }
}

fn workspace(verb: &[&str]) -> Command {
    let mut cargo = sh::cargo();
    cargo
        .args(verb)
        .args(["--workspace", "--exclude", test::NOT_FOR_THE_HOST]);
    cargo
}

/// The programs for libFuzzer are looked at too. Nothing is linked, so libFuzzer itself need not be compiled for that:
/// its crate is told that it is there already (20 s of C++).
fn clippy() -> Command {
    let mut cargo = workspace(&["clippy"]);
    cargo
        .args(["--features", "edge-fuzz/libfuzzer"])
        .env("CUSTOM_LIBFUZZER_PATH", "libfuzzer/is/not/linked.a");
    cargo
}

/// The BPF crate needs `core` built from source, which stable Rust does when RUSTC_BOOTSTRAP is set. It has
/// a target folder of its own, so that the variable does not make Cargo compile the host's crates again.
fn clippy_bpf() -> Command {
    let mut cargo = sh::cargo();
    cargo
        .args([
            "clippy",
            "--package",
            test::NOT_FOR_THE_HOST,
            "--target",
            "bpfel-unknown-none",
        ])
        .arg("-Zbuild-std=core")
        .arg("--target-dir")
        .arg(paths::target().join("clippy-bpf"))
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", paths::bpf_linker());
    cargo
}

/// The advisory database is a git repository that a machine without a network cannot fetch, so advisories
/// are left to `cargo deny check advisories` by hand or on a schedule.
fn deny() -> Result<()> {
    let deny = paths::tools().join("bin/cargo-deny");
    if !has_version(&mut Command::new(&deny), DENY_VERSION) {
        install_deny()?;
    }
    sh::run(
        Command::new(&deny)
            .current_dir(paths::workspace())
            .args(["check", "bans", "licenses", "sources"]),
    )
}

fn has_version(program: &mut Command, version: &str) -> bool {
    sh::output(program.arg("--version")).is_ok_and(|answer| answer.split_whitespace().last() == Some(version))
}

fn install_deny() -> Result<()> {
    let tools = paths::tools();
    let build = tools.join("build-deny");
    say("ci: building cargo-deny once, some minutes on two cores");
    let mut cargo = sh::cargo();
    cargo.args([
        "install",
        "cargo-deny",
        "--version",
        DENY_VERSION,
        "--locked",
        "--force",
        "--debug",
    ]);
    sh::run(cargo.arg("--root").arg(&tools).arg("--target-dir").arg(&build))?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

fn all_tests() -> Result<()> {
    let code = test::run(&test::Args::everything())?;
    anyhow::ensure!(code == ExitCode::SUCCESS, "not all tests passed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_chosen_by_only_and_skip() {
        let wanted = |only: &[Check], skip: &[Check]| {
            let args = Args {
                only: only.to_vec(),
                skip: skip.to_vec(),
            };
            Check::value_variants()
                .iter()
                .copied()
                .filter(|c| args.wants(*c))
                .collect::<Vec<_>>()
        };
        assert_eq!(wanted(&[], &[]).len(), Check::value_variants().len());
        assert_eq!(wanted(&[Check::Doc, Check::Fmt], &[]), [Check::Fmt, Check::Doc]);
        assert!(!wanted(&[], &[Check::Test]).contains(&Check::Test));
    }
}
