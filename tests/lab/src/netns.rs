//! Network namespaces and the veth pairs that join them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cleanup::{self, NETNS_DIR};
use crate::programs::{ip, output};

/// `ip netns add` remounts its folder the first time; two at once would trip over each other.
static ADDING: Mutex<()> = Mutex::new(());
/// Makes names unique among the labs of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed with everything that runs inside when the value goes.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

/// One end of a veth pair: where it lies and what it is called there.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The namespace that holds this end.
    pub netns: &'a NetNs,
    /// The interface's name, at most 15 bytes (IFNAMSIZ).
    pub interface: &'a str,
    /// Addresses with prefix length, for example `10.77.0.1/24` and `fd77::1/64`.
    pub addresses: &'a [String],
}

impl NetNs {
    /// Makes the namespace `edge-<pid>-<number>-<name>` with its loopback up.
    ///
    /// # Errors
    /// If this process may not make namespaces, which needs root.
    pub fn new(name: &str) -> Result<Self> {
        cleanup::on_signals();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("edge-{}-{number}-{name}", std::process::id());
        {
            let _alone = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
            ip(&format!("netns add {name}")).context("making a network namespace needs root")?;
        }
        let netns = Self { name };
        // Duplicate address detection would keep IPv6 addresses unusable for a second.
        netns.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The namespace's name, for `ip -n <name>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace, for `nsenter --net=<path>`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NETNS_DIR).join(&self.name)
    }

    /// A command inside the namespace; add arguments to it as to any other.
    ///
    /// It enters with nsenter(1) and not with `ip netns exec`, which mounts a new /sys and so hides the BPF
    /// file system. nsenter becomes the program itself, so the process id is the program's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command inside to its end: `exec(&["ss", "-tln"])`. Answers with its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the error holds its standard error.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        let (program, args) = words.split_first().context("there is no command to run")?;
        output(self.command(program).args(args))
    }

    /// Runs code on a thread of its own inside the namespace. A socket that it makes stays in the namespace, whoever uses
    /// it then.
    ///
    /// # Errors
    /// If the namespace cannot be entered, which needs root, or the code fails.
    ///
    /// # Panics
    /// If the code does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering a network namespace needs root")?;
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Configures the network inside with ip(8): `ip("route add 10.0.0.0/8 via 10.77.0.1")`.
    ///
    /// # Errors
    /// If ip(8) refuses.
    pub fn ip(&self, words: &str) -> Result<String> {
        ip(&format!("-n {} {words}", self.name))
    }

    /// Writes a sysctl of the namespace, named with dots.
    ///
    /// # Errors
    /// If the kernel does not have it or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        // /proc/sys/net shows the namespace of whoever reads it, so the writer must be inside.
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        self.exec(&["sh", "-c", "echo \"$1\" > \"$0\"", &file, value])
            .map(drop)
    }

    /// Makes this end's own packets carry complete checksums.
    ///
    /// A packet made on this machine crosses a veth pair with its checksum still to be done
    /// (CHECKSUM_PARTIAL). XDP_TX forgets that mark, and the packet arrives with a wrong checksum. A wire
    /// delivers complete ones; with transmit offload off, so does the pair.
    ///
    /// # Errors
    /// If ethtool(8) refuses.
    pub fn complete_checksums(&self, interface: &str) -> Result<()> {
        self.exec(&["ethtool", "-K", interface, "tx", "off"]).map(drop)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Err(error) = cleanup::remove(&self.name) {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Joins two namespaces by a veth pair and brings it up. `mtu` in bytes, for both ends.
///
/// # Errors
/// If ip(8) refuses: a name is taken or too long, or an address is not one.
pub fn veth(a: End<'_>, b: End<'_>, mtu: u32) -> Result<()> {
    // Both ends are born inside, so that nothing of a lab ever shows in the machine's own namespace.
    ip(&format!(
        "link add {} mtu {mtu} netns {} type veth peer name {} mtu {mtu} netns {}",
        a.interface, a.netns.name, b.interface, b.netns.name
    ))?;
    for end in [a, b] {
        for address in end.addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            end.netns
                .ip(&format!("address add {address} dev {} {nodad}", end.interface))?;
        }
        end.netns.ip(&format!("link set {} up", end.interface))?;
    }
    Ok(())
}
