//! Builds the BPF objects of edge-ebpf and puts them where `object.rs` embeds them from.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use aya_build::{Package, Toolchain};

/// The compiler whose LLVM bpf-linker is linked to.
const RUST_VERSION: &str = "1.95.0";
/// Path of bpf-linker below the target folder, where `cargo xtask setup` puts it.
const BPF_LINKER: &str = "tools/bin/bpf-linker";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("edge-datapath: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let workspace = manifest
        .ancestors()
        .nth(2)
        .ok_or("the crate is not in the workspace")?;
    let linker = bpf_linker(workspace);
    if !linker.is_file() {
        return Err(format!(
            "no bpf-linker at {}: run `cargo xtask setup`",
            linker.display()
        ));
    }
    let core = rust_src()?;
    if !core.is_dir() {
        return Err(format!(
            "no source of `core` at {}: run `cargo xtask setup`",
            core.display()
        ));
    }
    // aya-build watches the BPF crate alone; the code that it shares with userspace is in this one.
    for watched in ["edge-common", "edge-ebpf/src/maps.rs"] {
        println!("cargo:rerun-if-changed={}", workspace.join(watched).display());
    }
    let layout = layout(workspace).map_err(|error| format!("the maps' layout cannot be read: {error}"))?;
    println!("cargo:rustc-env=EDGE_MAP_LAYOUT={layout:016x}");
    // The nested build takes its linker from here, and leave to build `core` on a stable compiler. Neither may be
    // set for the whole workspace: RUSTC_BOOTSTRAP would switch on nightly code in other crates.
    // SAFETY: this program has one thread.
    unsafe {
        env::set_var("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker);
        env::set_var("RUSTC_BOOTSTRAP", "1");
    }
    let root = workspace.join("edge-ebpf");
    let root_dir = root
        .to_str()
        .ok_or_else(|| format!("{} is not UTF-8", root.display()))?;
    let package = Package {
        name: "edge-ebpf",
        root_dir,
        ..Default::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(RUST_VERSION))
        .map_err(|error| format!("the BPF objects cannot be built: {error:#}"))
}

/// A hash of the source that says what lies in the maps: the whole contract, and the maps' definitions. Comments and
/// tests are left out. Maps of another hash are not opened, so they cannot be misread, even where the sizes agree.
fn layout(workspace: &Path) -> std::io::Result<u64> {
    let mut files = vec![workspace.join("edge-ebpf/src/maps.rs")];
    for entry in fs::read_dir(workspace.join("edge-common/src"))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    let mut hash = FNV_OFFSET;
    for file in files {
        let text = fs::read_to_string(file)?;
        let code = text
            .lines()
            .map(str::trim)
            .take_while(|line| *line != "#[cfg(test)]");
        for line in code.filter(|line| !line.starts_with("//")) {
            for byte in line.bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
            }
        }
    }
    Ok(hash)
}

/// Constants of the 64-bit FNV-1a hash, which has no seed: the same source gives the same number everywhere.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// `EDGE_BPF_LINKER`, or where `cargo xtask setup` installs it.
fn bpf_linker(workspace: &Path) -> PathBuf {
    println!("cargo:rerun-if-env-changed=EDGE_BPF_LINKER");
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_DIR");
    if let Some(path) = env::var_os("EDGE_BPF_LINKER") {
        return PathBuf::from(path);
    }
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        // A relative path counts from where Cargo was called, which a build script does not know; the workspace
        // is where it is called from as a rule.
        Some(target) => workspace.join(target).join(BPF_LINKER),
        None => workspace.join("target").join(BPF_LINKER),
    }
}

/// The folder of `core`'s source in the compiler's sysroot.
fn rust_src() -> Result<PathBuf, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("{} does not run: {error}", rustc.display()))?;
    let sysroot = String::from_utf8_lossy(&output.stdout);
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core"))
}
