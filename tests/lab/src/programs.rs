//! Finding our own programs, and running small commands.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The path of a program of this workspace, by its name: `edge`, `edge-backend`.
///
/// It lies where Cargo put the running program too: beside xtask, or one folder above a test. `EDGE_BIN_DIR`
/// names another folder.
///
/// # Errors
/// If the program is not built; `cargo xtask test` and `cargo xtask demo` build it.
pub fn bin(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os("EDGE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => own_folder()?,
    };
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{} is not built; run `cargo build --bin {name}`",
        program.display()
    );
    Ok(program)
}

fn own_folder() -> Result<PathBuf> {
    let own = env::current_exe().context("this program does not know its own path")?;
    let folder = own.parent().context("this program has no folder")?;
    let above = folder
        .parent()
        .filter(|_| folder.ends_with("deps") || folder.ends_with("examples"));
    Ok(above.unwrap_or(folder).to_owned())
}

/// Runs a command to its end and answers with its standard output.
///
/// # Errors
/// If it cannot be started or fails; the error repeats the command and its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    let stderr = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "`{}` failed ({}): {}",
        show(command),
        out.status,
        stderr.trim()
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs `ip` with these words: `ip("link set lo up")`.
pub(crate) fn ip(words: &str) -> Result<String> {
    output(Command::new("ip").args(words.split_whitespace()))
}

/// The command as a person would type it.
#[must_use]
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
