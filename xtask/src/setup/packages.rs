//! The programs that tests and demo call, and Debian's packages that have them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::Toolchain;
use crate::sh::{self, say};

/// A Debian package, the command it is wanted for, and what that command does for us.
struct Package {
    name: &'static str,
    command: &'static str,
    why: &'static str,
}

const PACKAGES: [Package; 11] = [
    Package {
        name: "iproute2",
        command: "ip",
        why: "network namespaces, veth pairs, routes",
    },
    Package {
        name: "iproute2",
        command: "tc",
        why: "bandwidth limits in labs",
    },
    Package {
        name: "util-linux",
        command: "nsenter",
        why: "commands inside a namespace",
    },
    Package {
        name: "ethtool",
        command: "ethtool",
        why: "complete checksums on veth",
    },
    Package {
        name: "nftables",
        command: "nft",
        why: "packet loss in labs",
    },
    Package {
        name: "iptables",
        command: "iptables",
        why: "what edge's drops are compared with",
    },
    Package {
        name: "curl",
        command: "curl",
        why: "requests with TLS and chosen source addresses",
    },
    Package {
        name: "wrk",
        command: "wrk",
        why: "HTTP/1.1 load",
    },
    Package {
        name: "nghttp2-client",
        command: "h2load",
        why: "HTTP/2 load",
    },
    Package {
        name: "openssl",
        command: "openssl",
        why: "certificates of labs",
    },
    Package {
        name: "tcpdump",
        command: "tcpdump",
        why: "packets on a lab's links",
    },
];

pub(super) fn missing(_: &Toolchain) -> Result<Option<String>> {
    let lines: Vec<String> = absent()
        .map(|p| format!("{} (package {}: {})", p.command, p.name, p.why))
        .collect();
    Ok((!lines.is_empty()).then(|| format!("missing {}", lines.join(", "))))
}

pub(super) fn install(_: &Toolchain) -> Result<()> {
    install_all(&package_names())
}

/// Installs packages that are wanted by one verb alone, each given with a file of it that tells whether it is there.
///
/// # Errors
/// If one is missing and cannot be installed.
pub(crate) fn ensure(packages: &[(&str, &str)]) -> Result<()> {
    let missing = packages.iter().filter(|(_, file)| !Path::new(file).exists());
    let names: Vec<_> = missing.map(|(name, _)| *name).collect();
    if names.is_empty() {
        return Ok(());
    }
    install_all(&names)
}

fn install_all(names: &[&str]) -> Result<()> {
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        names.join(" ")
    );
    if sh::find("apt-get").is_none() {
        bail!(
            "there is no apt-get; install the programs that Debian has in: {}",
            names.join(", ")
        );
    }
    if !sh::is_root() {
        bail!("run as root: {install}");
    }
    say(format!("setup: {install}"));
    if apt(&install).is_err() {
        // The package lists may be older than the mirror, or not there at all.
        say("setup: apt-get update, then once more");
        sh::run(apt_get().args(["-qq", "update"]))?;
        apt(&install)?;
    }
    Ok(())
}

fn apt(install: &str) -> Result<()> {
    sh::run(apt_get().arg("-qq").args(install.split_whitespace().skip(1)))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // In run level 1 Debian's packages start no daemon, which would take ports (invoke-rc.d(8)).
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    // A verb's result goes to standard output, and nothing else.
    command.stdout(Stdio::null());
    command
}

fn absent() -> impl Iterator<Item = &'static Package> {
    PACKAGES
        .iter()
        .filter(|package| sh::find(package.command).is_none())
}

/// The packages of all absent commands, each once.
fn package_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = absent().map(|package| package.name).collect();
    names.dedup();
    names
}
