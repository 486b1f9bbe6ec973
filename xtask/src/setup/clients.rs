//! Clients and servers of other people's making that the end-to-end tests call: libraries for Python, in a folder of
//! their own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Toolchain;
use crate::paths;
use crate::sh;

/// What is installed, as pip names it. `tests/e2e/clients` has the programs that use it.
const PACKAGES: [&str; 5] = [
    "grpcio==1.85.3",
    "h2==4.4.1",
    "hypercorn==0.18.0",
    "websockets==17.4",
    "wsproto==1.3.2",
];

/// Holds the list that was installed last.
const STAMP: &str = ".installed";

fn folder() -> PathBuf {
    paths::tools().join("python")
}

pub(super) fn missing(_: &Toolchain) -> Result<Option<String>> {
    let installed = fs::read_to_string(folder().join(STAMP)).unwrap_or_default();
    let wanted = PACKAGES.join("\n");
    Ok((installed != wanted).then(|| format!("{} are wanted", PACKAGES.join(", "))))
}

pub(super) fn install(_: &Toolchain) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
        .arg(folder())
        .args(PACKAGES);
    // A verb's result goes to standard output, and nothing else.
    pip.stdout(Stdio::null());
    sh::run(&mut pip)
        .context("it needs Python 3 with pip (Debian: python3-pip) and access to Python's package index")?;
    let stamp = folder().join(STAMP);
    fs::write(&stamp, PACKAGES.join("\n")).with_context(|| format!("cannot write {}", stamp.display()))
}
