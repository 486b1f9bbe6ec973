//! Builds with all optimisations, guided by a profile; and `cargo xtask build`, which builds `edge` so.
//!
//! The profile says how often each branch of `edge` was taken while it served (`cargo xtask train` makes it). With it the
//! compiler inlines what is called often, and lays out code in the order in which it runs: a request of HTTP/2 takes a
//! fifth fewer instructions. It is kept in the repository, as a build without it is as right but slower; functions that
//! have changed since are compiled as if there were none.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::sh::{self, say};
use crate::{paths, setup};

/// Builds `edge` with all optimisations: target/release/edge.
///
/// As `cargo build --release --bin edge`, but with the profile of edge-userspace/edge.profdata, which makes it faster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask build")]
pub(crate) struct Args {}

/// The verb.
///
/// # Errors
/// If setup or the build fails.
pub(crate) fn run(Args {}: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    say("build: with all optimisations, some minutes the first time");
    edge()?;
    say(format!(
        "build: {}",
        paths::target().join("release/edge").display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Builds `edge`, in the target folder's `release`.
///
/// By itself: beside other packages a dependency may get further features, by which it and all that use it get other names,
/// and what the profile has for the functions of these would be lost.
///
/// # Errors
/// If the profile cannot be read, or the build fails.
pub(crate) fn edge() -> Result<()> {
    sh::run(&mut cargo(&profile()?, &["edge"], &["edge"]))
}

/// Builds `edge`, and beside it other programs of these packages.
///
/// # Errors
/// As [`edge`].
pub(crate) fn edge_and(packages: &[&str], programs: &[&str]) -> Result<()> {
    edge()?;
    others(packages, programs)
}

/// Builds other programs of these packages.
///
/// # Errors
/// As [`edge`].
pub(crate) fn others(packages: &[&str], programs: &[&str]) -> Result<()> {
    // With edge's package, so that what is compiled for edge serves them as far as possible.
    let packages = [&["edge"], packages].concat();
    sh::run(&mut cargo(&profile()?, &packages, programs))
}

/// The command that builds programs of these packages with all optimisations and further flags of rustc. What is built in
/// one target folder must have the same flags, or all of it is built anew each time.
pub(crate) fn cargo(flags: &str, packages: &[&str], programs: &[&str]) -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["build", "--quiet", "--release"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    for program in programs {
        cargo.args(["--bin", program]);
    }
    let own = env::var("RUSTFLAGS").unwrap_or_default();
    cargo.env("RUSTFLAGS", format!("{own} {flags}").trim());
    cargo
}

/// The flags by which rustc uses the profile.
fn profile() -> Result<String> {
    let source = paths::profile();
    let missing = || format!("cannot read {}; `git checkout` brings it back", source.display());
    let bytes = fs::read(&source).with_context(missing)?;
    let folder = paths::target().join("profile");
    let file = keep(&folder, &bytes).with_context(|| format!("cannot write to {}", folder.display()))?;
    // What has changed since is no fault.
    Ok(format!(
        "-Cprofile-use={} -Cllvm-args=-no-pgo-warn-mismatch",
        file.display()
    ))
}

/// Keeps a profile under a name that tells its content, and answers with its path. Cargo builds anew when a flag changes, and
/// when a file is younger than what was built with it: so one that is there already is left alone.
fn keep(folder: &Path, profile: &[u8]) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    hasher.write(profile);
    let file = folder.join(format!("{:016x}.profdata", hasher.finish()));
    if fs::read(&file).is_ok_and(|kept| kept == profile) {
        return Ok(file);
    }
    fs::create_dir_all(folder)?;
    fs::write(&file, profile)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_profile_that_is_kept_already_is_left_alone() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let modified = |file: &Path| fs::metadata(file)?.modified();
        let first = keep(folder.path(), b"first")?;
        let then = modified(&first)?;
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(keep(folder.path(), b"first")?, first);
        assert_eq!(modified(&first)?, then);
        assert_ne!(keep(folder.path(), b"second")?, first);
        // Of a run that was killed.
        fs::write(&first, b"fir")?;
        assert_eq!(fs::read(keep(folder.path(), b"first")?)?, b"first");
        Ok(())
    }
}
