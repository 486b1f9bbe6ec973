//! The source of `core`, which is compiled for the BPF target (`-Zbuild-std=core`).
//!
//! rustup's component is the usual way. Where rustup is absent or cannot download, Debian's package of
//! exactly the compiler's version serves: it is fetched with a source list of its own in a scratch folder,
//! so neither the system's sources nor its installed packages change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Toolchain;
use crate::paths::{self, RUST_VERSION};
use crate::sh::{self, say};

/// The suite of Debian that carries this compiler's version.
const SUITE: &str = "trixie-backports";
/// Debian's archive key. It comes with every Debian and signs all its suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The component is a few megabytes; a network that needs longer than this does not serve.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);
/// The package lists and 45 MB of package.
const APT_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn missing(toolchain: &Toolchain) -> Result<Option<String>> {
    // `core` alone would do; Cargo reads the lock file of the standard library first.
    let source = source_link(toolchain).join("library");
    let there = source.join("core/src/lib.rs").is_file() && source.join("Cargo.lock").is_file();
    Ok((!there).then(|| format!("not in {}", source.display())))
}

pub(super) fn install(toolchain: &Toolchain) -> Result<()> {
    let Err(by_rustup) = from_rustup() else {
        return Ok(());
    };
    say(format!("setup: rustup cannot: {by_rustup:#}"));
    from_debian(toolchain).map_err(|by_debian| {
        by_debian.context(format!(
            "rustup could not ({by_rustup:#}); with a network, `rustup component add rust-src \
             --toolchain {RUST_VERSION}` does it; Debian's package did not serve either"
        ))
    })
}

/// Where the compiler looks for its source.
fn source_link(toolchain: &Toolchain) -> PathBuf {
    toolchain.sysroot.join("lib/rustlib/src/rust")
}

fn from_rustup() -> Result<()> {
    let rustup = sh::find("rustup").context("there is no rustup")?;
    let mut add = Command::new(rustup);
    add.args(["component", "add", "rust-src", "--toolchain", RUST_VERSION]);
    add.env_remove("RUST_BACKTRACE"); // A backtrace of rustup's own would hide why it could not download.
    say(format!("setup: {}", sh::show(&add)));
    sh::run_within(&mut add, RUSTUP_LIMIT)
}

fn from_debian(toolchain: &Toolchain) -> Result<()> {
    for program in ["apt-get", "dpkg"] {
        ensure!(
            sh::find(program).is_some(),
            "this is not Debian: there is no {program}"
        );
    }
    let scratch = paths::tools().join("rust-src");
    let apt = Scratch::create(&scratch)?;
    say(format!(
        "setup: fetching Debian's rust-src from {SUITE} into {}",
        scratch.display()
    ));
    sh::run_within(apt.get().args(["-qq", "update"]), APT_LIMIT)?;
    // The suite holds several versions at once; what follows the `+` is Debian's own revision.
    let package = format!("rust-src={RUST_VERSION}+*");
    sh::run_within(apt.get().args(["-qq", "download", &package]), APT_LIMIT)
        .with_context(|| format!("Debian's {SUITE} does not have rust-src {RUST_VERSION}"))?;
    let package = find_package(&scratch)?;
    sh::run(Command::new("dpkg").arg("-x").arg(&package).arg(&scratch))?;
    fs::remove_file(&package)?;
    link(
        &scratch.join(format!("usr/src/rustc-{RUST_VERSION}")),
        &source_link(toolchain),
    )
}

/// apt-get with lists, cache and sources of its own.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn create(dir: &Path) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let list = format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror()?);
        fs::write(dir.join("sources.list"), list)?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn get(&self) -> Command {
        let mut apt = Command::new("apt-get");
        let at = |name: &str| self.dir.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            // apt's own user may not enter the folder of whoever builds; signatures are checked all the same.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt.current_dir(&self.dir);
        apt
    }
}

/// The address of the machine's own Debian mirror, so that a mirror or proxy set up there is used here too.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"]);
    let answer = sh::output(&mut targets)?;
    pick_mirror(&answer).context("apt-get knows no Debian mirror; check /etc/apt/sources.list")
}

/// The first address that is not the archive of security updates, which has no backports.
fn pick_mirror(addresses: &str) -> Option<String> {
    addresses
        .lines()
        .map(str::trim)
        .find(|a| !a.is_empty() && !a.contains("security"))
        .map(str::to_owned)
}

fn find_package(dir: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(dir)?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let mut packages = files.filter(|file| file.extension().is_some_and(|e| e == "deb"));
    packages
        .next()
        .with_context(|| format!("apt-get left no package in {}", dir.display()))
}

/// Makes `at` a link to `source`. A dangling link of a removed target folder is replaced.
fn link(source: &Path, at: &Path) -> Result<()> {
    ensure!(
        source.is_dir(),
        "Debian's rust-src has no folder {}",
        source.display()
    );
    if fs::symlink_metadata(at).is_ok_and(|meta| meta.is_symlink()) {
        fs::remove_file(at)?;
    }
    let parent = at.parent().context("the link has no parent folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot write to {}", parent.display()))?;
    symlink(source, at).with_context(|| format!("cannot create the link {}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_first_that_is_not_for_security_updates() {
        let rows = [
            (
                "http://m/debian-security/\nhttp://m/debian/\nhttp://n/debian/\n",
                Some("http://m/debian/"),
            ),
            ("http://security.m/debian/\n", None),
            ("\n", None),
        ];
        for (addresses, expected) in rows {
            assert_eq!(pick_mirror(addresses).as_deref(), expected, "{addresses:?}");
        }
    }
}
