//! Running commands: each is shown as a person would type it, and a failure repeats the command.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub(crate) use edge_lab::{output, show};

use crate::paths;

/// How often a running command is looked at. Short against any step, long against a system call.
const POLL: Duration = Duration::from_millis(20);

/// Prints one line of progress. It goes to standard error, so that a verb's result can be piped.
pub(crate) fn say(message: impl AsRef<str>) {
    eprintln!("xtask: {}", message.as_ref());
}

/// Runs a command with its output shown, and fails with the command's text if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", show(command));
    Ok(())
}

/// Like [`run`], but ends the command after `limit`: a download through a network that swallows packets
/// would otherwise wait for minutes before the next way is tried.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "`{}` failed ({status})", show(command));
            return Ok(());
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("`{}` did not end within {} s", show(command), limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// Finds a program on `PATH`, and in the folders of system programs, which are not on every user's `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The cargo that started us, so that its tool chain goes on, in the workspace's root.
///
/// `cargo run` tells xtask about xtask's own package by variables. They are taken away: some build scripts
/// (ring's) ask to run again when one of them changes, so `cargo test` by hand would compile anew what
/// `cargo xtask test` had compiled.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    if env::var_os("CARGO_TARGET_DIR").is_some() {
        // A relative one counts from where the user stands, which is not where this cargo runs.
        command.env("CARGO_TARGET_DIR", paths::target());
    }
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether this process has root's effective user id.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
