//! Where things are: the workspace, its target folder, and the tools that `setup` puts there.

use std::env;
use std::path::{Path, PathBuf};

/// The channel that rust-toolchain.toml pins. Setup refuses another compiler, because bpf-linker is linked
/// to the LLVM inside this one.
pub(crate) const RUST_VERSION: &str = "1.95.0";

/// Path of bpf-linker below the target folder.
///
/// The build script of edge-datapath looks at the same place (`$CARGO_TARGET_DIR/tools/bin/bpf-linker`, or
/// `<workspace>/target/tools/bin/bpf-linker` without that variable); `EDGE_BPF_LINKER` overrides it there.
pub(crate) const BPF_LINKER: &str = "tools/bin/bpf-linker";

/// The workspace's root folder: the parent of xtask's own.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's target folder. A relative `CARGO_TARGET_DIR` counts from the current folder, as in Cargo.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => env::current_dir().unwrap_or_default().join(dir),
        None => workspace().join("target"),
    }
}

/// The folder of the tools that setup installs.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// The absolute path of bpf-linker.
pub(crate) fn bpf_linker() -> PathBuf {
    target().join(BPF_LINKER)
}

/// The profile that `edge` is built by. It stands beside the program, as profiles of Go's programs do.
pub(crate) fn profile() -> PathBuf {
    workspace().join("edge-userspace/edge.profdata")
}
