//! `cargo xtask fuzz`: libFuzzer over the targets of tests/fuzz.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::sh::{self, say};

/// The package of the targets.
const PACKAGE: &str = "edge-fuzz";

/// The machine that it is built for: this one. With a target of its own, build scripts and macros are not instrumented.
const MACHINE: &str = machine();

/// What makes rustc count which code an input reaches and check every access to memory. The sanitizer is unstable, but
/// part of the stable tool chain.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                            -Cllvm-args=-sanitizer-coverage-pc-table \
                            -Cllvm-args=-sanitizer-coverage-trace-compares \
                            -Zsanitizer=address --cfg fuzzing";

/// Seconds after which one input counts as a hang.
const HANG_SECONDS: u32 = 10;

/// Fuzzes the parsers and lookups that read what comes from outside.
///
/// What is found in one run is where the next one begins: inputs are kept in target/fuzz/corpus. An input that breaks a
/// promise ends the run and is kept in target/fuzz/artifacts. Needs no root, but a C++ compiler.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz                     each target for a minute\n  \
                  cargo xtask fuzz yaml --seconds 600  one of them for longer\n  \
                  cargo xtask fuzz --list"
)]
pub(crate) struct Args {
    /// The target; all of them, one after the other, if none is given.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Print the names of the targets.
    #[arg(long)]
    list: bool,
}

/// The verb.
///
/// # Errors
/// If there is no such target, or the build fails; a broken promise is told by the exit code.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let targets = targets()?;
    if args.list {
        for target in &targets {
            println!("{target}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<_> = match &args.target {
        None => targets.iter().collect(),
        Some(name) => targets.iter().filter(|target| *target == name).collect(),
    };
    ensure!(
        !wanted.is_empty(),
        "there is no such target; there are {}",
        targets.join(", ")
    );
    say("fuzz: building with instruments, a minute or two the first time");
    build(&wanted)?;
    let mut broken = vec![];
    for target in wanted {
        if !fuzz(target, args.seconds)? {
            broken.push(target.as_str());
        }
    }
    if broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(format!(
        "error: fuzz: {} failed; mend the cause, and copy the input from {} into tests/fuzz/seeds/NAME/",
        broken.join(", "),
        folder("artifacts", "NAME").display()
    ));
    Ok(ExitCode::FAILURE)
}

/// The targets are the programs of the package.
fn targets() -> Result<Vec<String>> {
    let programs = package().join("fuzz_targets");
    let entries = fs::read_dir(&programs).with_context(|| format!("cannot read {}", programs.display()))?;
    let mut names = vec![];
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn build(targets: &[&String]) -> Result<()> {
    let mut cargo = sh::cargo();
    cargo.args(["build", "--release", "--package", PACKAGE, "--target", MACHINE]);
    cargo.args(["--features", "libfuzzer,libfuzzer-sys/link_libfuzzer"]);
    for target in targets {
        cargo.args(["--bin", target]);
    }
    // A target folder of its own: the flags differ from those of every other build. A fuzzer wants many short runs and
    // quick builds, overflows checked.
    cargo.arg("--target-dir").arg(paths::target().join("fuzz"));
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", INSTRUMENTED);
    for (key, value) in [
        ("LTO", "off"),
        ("CODEGEN_UNITS", "16"),
        ("DEBUG_ASSERTIONS", "true"),
        ("OVERFLOW_CHECKS", "true"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    sh::run(&mut cargo)
}

/// Runs a target; whether it kept its promises.
fn fuzz(target: &str, seconds: u32) -> Result<bool> {
    let (corpus, artifacts) = (folder("corpus", target), folder("artifacts", target));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let program = paths::target()
        .join("fuzz")
        .join(MACHINE)
        .join("release")
        .join(target);
    let mut command = Command::new(program);
    command.current_dir(paths::workspace()).arg(&corpus);
    let seeds = package().join("seeds").join(target);
    command.args(Some(seeds).filter(|seeds| seeds.is_dir()));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={HANG_SECONDS}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let dictionary = package().join("dictionaries").join(format!("{target}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    say(format!("fuzz: {}", sh::show(&command)));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", sh::show(&command)))?;
    Ok(status.success())
}

fn package() -> PathBuf {
    paths::workspace().join("tests/fuzz")
}

fn folder(what: &str, target: &str) -> PathBuf {
    paths::target().join("fuzz").join(what).join(target)
}

const fn machine() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "aarch64-unknown-linux-gnu"
    } else {
        "x86_64-unknown-linux-gnu"
    }
}
