//! bpf-linker, built against the LLVM that is inside the pinned compiler.
//!
//! The linker reads the bitcode that rustc writes, so both must be of one LLVM; a distribution's LLVM is
//! usually another. The compiler ships its LLVM as a shared library: the build links to it, and a run path
//! lets the installed program find it without any variable.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Toolchain;
use crate::paths;
use crate::sh::{self, say};

/// The version that was seen working with aya 0.14.
const VERSION: &str = "0.13.0";
/// bpf-linker's feature that names the LLVM inside rustc 1.95.
const LLVM_FEATURE: &str = "llvm-22";

pub(super) fn missing(_: &Toolchain) -> Result<Option<String>> {
    let linker = paths::bpf_linker();
    if !linker.is_file() {
        return Ok(Some(format!("{} is not there", linker.display())));
    }
    // Running it also proves that it still finds its LLVM: another sysroot would break that.
    match sh::output(Command::new(&linker).arg("--version")) {
        Ok(answer) if answer.split_whitespace().last() == Some(VERSION) => Ok(None),
        Ok(answer) => Ok(Some(format!("{} is wanted, {} is there", VERSION, answer.trim()))),
        Err(error) => Ok(Some(format!("it does not run: {error:#}"))),
    }
}

pub(super) fn install(toolchain: &Toolchain) -> Result<()> {
    let tools = paths::tools();
    let prefix = llvm_prefix(toolchain, &tools)?;
    let build = tools.join("build");
    let mut cargo = sh::cargo();
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features", LLVM_FEATURE])
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", &prefix)
        .env(
            "RUSTFLAGS",
            format!("-C link-arg=-Wl,-rpath,{}/lib", toolchain.sysroot.display()),
        );
    say("setup: building bpf-linker, about a minute on two cores");
    sh::run(&mut cargo)
        .context("it needs a C compiler (Debian: gcc) and access to Cargo's package registry")?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

/// Makes a folder that looks like an installed LLVM: `lib/libLLVM.so` links to the compiler's library.
fn llvm_prefix(toolchain: &Toolchain, tools: &Path) -> Result<PathBuf> {
    let library = find_llvm(&toolchain.sysroot.join("lib"))?;
    let prefix = tools.join("llvm");
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib")).with_context(|| format!("cannot create {}", prefix.display()))?;
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&library, &link).with_context(|| format!("cannot create the link {}", link.display()))?;
    Ok(prefix)
}

/// The compiler's LLVM, for example `libLLVM.so.22.1-rust-1.95.0-stable`.
fn find_llvm(lib: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("libLLVM.so."))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    ensure!(
        !found.is_empty(),
        "no libLLVM.so.* in {}: this compiler has LLVM built in; install Rust with rustup",
        lib.display()
    );
    Ok(found.remove(0))
}
