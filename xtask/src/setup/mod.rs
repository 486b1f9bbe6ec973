//! `cargo xtask setup`: everything that a build, the tests and the demo need and Cargo does not fetch.
//!
//! Each step first looks whether its result is there, so a second run only costs a few processes. A step
//! that cannot be done does not hide the others: all are tried, and each says what to install.

mod bpf_linker;
mod clients;
pub(crate) mod packages;
mod rust_src;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::paths::RUST_VERSION;
use crate::sh::{self, say};

/// Installs what is missing: the source of `core`, bpf-linker, the programs of tests and demo, and clients in Python.
///
/// Takes well under a second when nothing is missing, and about a minute on two cores on a fresh clone.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask setup            install what is missing\n  \
                        cargo xtask setup --check    only say what is missing (exit 1 if anything is)"
)]
pub(crate) struct Args {
    /// Change nothing; fail if something is missing.
    #[arg(long)]
    check: bool,
}

/// The compiler in use.
struct Toolchain {
    /// `rustc --print sysroot`.
    sysroot: PathBuf,
}

/// One thing to have. The steps are independent of each other, in the order in which they are tried.
struct Step {
    name: &'static str,
    /// `Ok(None)` if it is there, `Ok(Some(what))` if not.
    missing: fn(&Toolchain) -> Result<Option<String>>,
    install: fn(&Toolchain) -> Result<()>,
}

const STEPS: [Step; 4] = [
    Step {
        name: "source of core (rust-src)",
        missing: rust_src::missing,
        install: rust_src::install,
    },
    Step {
        name: "bpf-linker",
        missing: bpf_linker::missing,
        install: bpf_linker::install,
    },
    Step {
        name: "programs of tests and demo",
        missing: packages::missing,
        install: packages::install,
    },
    Step {
        name: "clients of tests (Python)",
        missing: clients::missing,
        install: clients::install,
    },
];

/// The verb.
///
/// # Errors
/// If a step failed, or, with `--check`, if something is missing.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    ensure()?;
    say(format!(
        "setup: all there (Rust {RUST_VERSION}, {})",
        crate::paths::bpf_linker().display()
    ));
    Ok(())
}

/// Installs what is missing, in silence if nothing is. Every other verb begins with this.
///
/// # Errors
/// Names every step that failed, why, and what to install.
pub(crate) fn ensure() -> Result<()> {
    let toolchain = toolchain()?;
    let failures: Vec<String> = STEPS
        .iter()
        .filter_map(|step| step.ensure(&toolchain).err())
        .map(|e| format!("{e:#}"))
        .collect();
    ensure!(
        failures.is_empty(),
        "setup is incomplete:\n  - {}",
        failures.join("\n  - ")
    );
    Ok(())
}

fn check() -> Result<()> {
    let toolchain = toolchain()?;
    let mut complete = true;
    for step in &STEPS {
        if let Some(what) = (step.missing)(&toolchain)? {
            complete = false;
            say(format!("setup: {}: {what}", step.name));
        }
    }
    ensure!(complete, "setup is incomplete: run `cargo xtask setup`");
    say("setup: all there");
    Ok(())
}

impl Step {
    fn ensure(&self, toolchain: &Toolchain) -> Result<()> {
        let Some(what) = (self.missing)(toolchain).with_context(|| format!("looking for {}", self.name))?
        else {
            return Ok(());
        };
        say(format!("setup: {}: {what}", self.name));
        let start = std::time::Instant::now();
        (self.install)(toolchain).with_context(|| self.name.to_owned())?;
        if let Some(still) = (self.missing)(toolchain)? {
            bail!("{}: installed, but: {still}", self.name);
        }
        say(format!(
            "setup: {}: done in {:.1} s",
            self.name,
            start.elapsed().as_secs_f64()
        ));
        Ok(())
    }
}

/// Asks rustc which one it is and where. (`--print sysroot --version` would print the version alone.)
fn toolchain() -> Result<Toolchain> {
    let answer = ask_rustc("--version").context("no Rust compiler; install Rust with rustup")?;
    let version = answer.split_whitespace().nth(1).unwrap_or("unknown");
    ensure!(
        version == RUST_VERSION,
        "the compiler is {version}, but rust-toolchain.toml pins {RUST_VERSION}, whose LLVM bpf-linker uses; \
         unset RUSTUP_TOOLCHAIN, or run `rustup toolchain install {RUST_VERSION}`"
    );
    Ok(Toolchain {
        sysroot: PathBuf::from(ask_rustc("--print=sysroot")?.trim()),
    })
}

fn ask_rustc(question: &str) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    sh::output(
        Command::new(rustc)
            .current_dir(crate::paths::workspace())
            .arg(question),
    )
}
