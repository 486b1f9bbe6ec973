//! What the system allows the process, from which its bounds follow.

use std::fs;
use std::path::{Path, PathBuf};

use edge_config::Overload;
use edge_proxy::Bounds;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything that is no connection: listeners, BPF maps, logs, watched folders.
const OTHER_FILES: u64 = 256;

/// Percent of the memory that is there. The rest is for what is not the process's own: socket buffers, page tables, and
/// whatever grows between two looks.
const SHARE_OF_MEMORY: u64 = 80;

/// The bounds, worked out where the bootstrap file leaves them to the system. Raises the soft limit of open files first.
pub(super) fn bounds(overload: Overload) -> Bounds {
    let files = raise_open_files();
    let max_connections = overload.max_connections.unwrap_or_else(|| connections(files));
    let max_memory = overload.max_memory.or_else(|| {
        let memory = memory()?;
        Some(memory / 100 * SHARE_OF_MEMORY)
    });
    tracing::info!(
        max_connections,
        max_memory,
        open_files = files,
        "bounds of the process"
    );
    Bounds {
        max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
        max_memory,
        max_files: files,
        ..Bounds::default()
    }
}

/// Connections of clients that fit, when each may need another one to an endpoint.
fn connections(files: Option<u64>) -> u64 {
    match files {
        Some(files) => (files.saturating_sub(OTHER_FILES) / 2).max(1),
        None => u64::MAX,
    }
}

/// Raises the soft limit of open files to the hard one, which needs no privilege (getrlimit(2)); `None` is no limit.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "the soft limit of open files stays as it is");
            limit.current
        }
    }
}

/// Bytes that the process may use: the least of its cgroups' limits and of the machine's memory.
fn memory() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_cgroups = cgroup_limits(&own, Path::new("/sys/fs/cgroup"));
    let of_machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    of_cgroups.into_iter().chain(of_machine).min()
}

/// `memory.max` of the process's cgroup and of those above it (cgroup v2; inside of a container the root stands for its
/// own), and of version 1 the one limit.
fn cgroup_limits(own: &str, root: &Path) -> Vec<u64> {
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or("");
    let whole = root.join(path);
    let mut files: Vec<PathBuf> = whole
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .map(|folder| folder.join("memory.max"))
        .collect();
    files.push(root.join("memory/memory.limit_in_bytes"));
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse().ok();
    files.into_iter().filter_map(read).collect()
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_their_endpoints_and_for_the_rest() {
        for (files, expected) in [(Some(20_256), 10_000), (Some(100), 1), (None, u64::MAX)] {
            assert_eq!(connections(files), expected, "{files:?}");
        }
    }

    #[test]
    fn the_limits_of_all_cgroups_above_count() {
        let root = std::env::temp_dir().join(format!("edge-cgroups-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).expect("folders");
        for (file, text) in [
            ("memory.max", "max\n"),
            ("a/memory.max", "4096\n"),
            ("a/b/memory.max", "8192\n"),
        ] {
            fs::write(root.join(file), text).expect("written");
        }
        let found = cgroup_limits("1:name=x:/y\n0::/a/b\n", &root);
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!(found, [8192, 4096]);
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(total("MemTotal:       16 kB\nMemFree: 3 kB\n"), Some(16_384));
        assert!(memory().is_some_and(|memory| memory > 1 << 20));
    }
}
