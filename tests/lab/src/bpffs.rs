//! A BPF file system of a test's own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::programs::output;

/// A mounted BPF file system. It is unmounted with the value, and the kernel frees what was pinned on it alone.
#[derive(Debug)]
pub struct BpfFs {
    dir: TempDir,
}

impl BpfFs {
    /// Mounts one on a new folder.
    ///
    /// # Errors
    /// If this process may not mount, which needs root.
    pub fn mount() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("edge-bpffs-")
            .tempdir()
            .context("no folder to mount on")?;
        output(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(dir.path()))?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Lazily: a process that was killed a moment ago may still be on its way out.
        if let Err(error) = output(Command::new("umount").arg("--lazy").arg(self.dir.path())) {
            eprintln!("lab: {error:#}");
        }
    }
}
