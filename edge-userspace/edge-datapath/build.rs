//! Builds the BPF objects of edge-ebpf and puts them where `object.rs` embeds them from.

use std::env;
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
    println!(
        "cargo:rerun-if-changed={}",
        workspace.join("edge-common").display()
    );
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
