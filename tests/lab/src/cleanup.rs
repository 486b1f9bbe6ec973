//! Taking labs down: those of this process on Ctrl-C, and those of processes that were killed.
//!
//! A namespace's name tells its owner: `edge-<pid>-<number>-<name>`. Only namespaces of that form are
//! touched, and only processes inside them are ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::programs::ip;

/// Where ip(8) keeps its named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// What a shell reports for a program that Ctrl-C ended: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// The process groups that [`crate::Process`] has started and not yet seen the end of.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Removes every namespace of this process, with whatever runs inside.
///
/// # Errors
/// The first failure; the others are removed all the same.
pub fn cleanup() -> Result<()> {
    let own = Some(std::process::id());
    namespaces()
        .iter()
        .filter(|name| owner(name) == own)
        .map(|name| remove(name))
        .fold(Ok(()), Result::and)
}

/// Removes the namespaces of processes that are gone, with whatever still runs inside.
pub fn remove_stale() {
    for name in namespaces() {
        if owner(&name).is_some_and(|pid| !is_alive(pid)) {
            // Another process may be removing the same leftover; whoever is second has nothing to report.
            drop(remove(&name));
        }
    }
}

/// Takes this process's labs down on SIGINT and SIGTERM, then exits. May be called more than once.
pub(crate) fn on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the handler a lab still goes with its values, or when the next one starts.
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
            return;
        };
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                for group in groups().iter() {
                    kill_group(*group, Signal::KILL);
                }
                if let Err(error) = cleanup() {
                    eprintln!("lab: {error:#}");
                }
                std::process::exit(EXIT_INTERRUPTED);
            }
        });
    });
}

/// Removes one namespace after ending the processes inside, which would keep it alive.
pub(crate) fn remove(name: &str) -> Result<()> {
    for pid in ip(&format!("netns pids {name}"))?.lines().filter_map(parse_pid) {
        // It may have ended by itself since it was listed.
        let _ = kill_process(pid, Signal::KILL);
    }
    ip(&format!("netns del {name}")).with_context(|| format!("cannot remove the namespace {name}"))?;
    Ok(())
}

/// Remembers a process group, to be ended on Ctrl-C.
pub(crate) fn remember(group: i32) {
    groups().insert(group);
}

/// Forgets a process group: its leader was waited for, so its number may be given to another.
pub(crate) fn forget(group: i32) {
    groups().remove(&group);
}

/// Sends a signal to a process group. One that has ended already is no error.
pub(crate) fn kill_group(group: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(group) {
        let _ = kill_process_group(group, signal);
    }
}

fn groups() -> MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse_pid(line: &str) -> Option<Pid> {
    line.trim().parse().ok().and_then(Pid::from_raw)
}

fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// The process that made a namespace, if its name is of our form.
fn owner(namespace: &str) -> Option<u32> {
    let (pid, rest) = namespace.strip_prefix("edge-")?.split_once('-')?;
    let (number, name) = rest.split_once('-')?;
    (number.parse::<u32>().is_ok() && !name.is_empty())
        .then(|| pid.parse().ok())
        .flatten()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_form_have_an_owner() {
        let rows = [
            ("edge-42-0-client", Some(42)),
            ("edge-42-10-two-words", Some(42)),
            ("edge-client", None),
            ("edge-42-client", None),
            ("edge-42-x-client", None),
            ("edge-42-0-", None),
            ("other-42-0-client", None),
        ];
        for (name, expected) in rows {
            assert_eq!(owner(name), expected, "{name}");
        }
    }
}
