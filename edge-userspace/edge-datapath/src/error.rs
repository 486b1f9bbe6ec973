//! What can go wrong, told to the person who runs the node.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use edge_model::{Vip, WorkerId};

/// Why the data path could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses BPF to this user.
    #[error("{what} is not permitted (run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")]
    NotPermitted {
        /// What was tried.
        what: String,
    },
    /// An interface of the configuration does not exist in this network namespace.
    #[error("interface {name}: there is none of this name (`ip link` lists them)")]
    UnknownInterface {
        /// Its name.
        name: String,
    },
    /// Another XDP program is attached.
    #[error(
        "interface {name}: another XDP program is attached (`ip link show {name}` names it; detach it first)"
    )]
    InterfaceBusy {
        /// Its name.
        name: String,
    },
    /// The interface takes the program in no mode.
    #[error("interface {name}: XDP cannot be attached in {mode} mode: {cause}")]
    Attach {
        /// Its name.
        name: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        cause: String,
    },
    /// The kernel refuses a program.
    #[error("the kernel refuses the BPF program {program} (Linux 5.19 or newer is needed): {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// The kernel refuses the object's maps.
    #[error("the BPF object cannot be loaded (Linux 5.19 or newer is needed): {source}")]
    Object {
        /// What the kernel said.
        source: Box<EbpfError>,
    },
    /// The embedded object lacks a part, so kernel side and user side were not built together.
    #[error("the BPF object has no {part} (build the workspace anew)")]
    MissingPart {
        /// Name of the map or program.
        part: &'static str,
    },
    /// The addresses of the node's interfaces could not be read.
    #[error("the addresses of this node's interfaces cannot be read: {source}")]
    OwnAddresses {
        /// What the kernel said.
        source: io::Error,
    },
    /// The network devices could not be listed.
    #[error("the network devices of this namespace cannot be listed: {source}")]
    Devices {
        /// What the kernel said.
        source: io::Error,
    },
    /// The routes that answers to clients take could not be read.
    #[error("netlink, for the routes of answers to clients: {source}")]
    Uplinks {
        /// What the kernel said.
        source: io::Error,
    },
    /// The way to workers elsewhere could not be looked for.
    #[error("netlink, for the next hops of workers elsewhere: {source}")]
    NextHops {
        /// What the kernel said.
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error("BPF map {map}: {action}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<MapError>,
    },
    /// More of something than the maps have room for.
    #[error("{wanted} {what} are too many: the data path has room for {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there would be.
        wanted: usize,
        /// How many may be.
        limit: usize,
    },
    /// Two VIPs have the same address, port and protocol.
    #[error("VIP {}:{}/{:?} is there twice", vip.address, vip.port, vip.protocol)]
    DuplicateVip {
        /// The second one.
        vip: Vip,
    },
    /// A VIP names a pool that the configuration does not have.
    #[error("VIP {}:{}/{:?}: its pool is not in the configuration", vip.address, vip.port, vip.protocol)]
    NoPool {
        /// The VIP.
        vip: Vip,
    },
    /// Two workers have the same index, or one beyond the table's.
    #[error("worker {}: its index is used twice or beyond the last possible, {limit}", worker.0)]
    BadWorker {
        /// Its index.
        worker: WorkerId,
        /// The last index that may be used.
        limit: u32,
    },
    /// A socket cannot be asked for its identity.
    #[error("socket of worker {}, port {port}: {source}", worker.0)]
    Socket {
        /// The worker's index.
        worker: WorkerId,
        /// The listener's port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A local route could not be added, removed or read.
    #[error("local route for {address}: {action}: {source} (the interface lo must be up)")]
    Route {
        /// The virtual address; unspecified where the routes were listed.
        address: IpAddr,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A setting of the kernel that a feature needs cannot be made.
    #[error("sysctl {name} cannot be set to {value}: {source} (set it yourself, or turn synCookies off)")]
    Sysctl {
        /// Its name.
        name: &'static str,
        /// What it must be.
        value: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network namespace cannot be opened or refuses the program.
    #[error("socket selection cannot be attached to the network namespace: {cause}")]
    Steer {
        /// What the kernel said.
        cause: String,
    },
    /// The folder for pins is on another file system.
    #[error("{}: not on a BPF file system (`mount -t bpf bpf /sys/fs/bpf`, and name a folder below)", path.display())]
    NoBpfFs {
        /// The folder.
        path: PathBuf,
    },
    /// A pin could not be made, opened or removed.
    #[error("pin {}: {action}: {source}", path.display())]
    Pin {
        /// The file on the BPF file system.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pinned link did not take the new program; the old one is at work.
    #[error("{what}: the pinned link does not take the new program, the old one goes on: {source}")]
    TakeOver {
        /// The interface, or the socket selection.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A frame cannot be run through the program.
    #[error("a frame of {len} bytes cannot be run through the program: {source}")]
    TestRun {
        /// Its length.
        len: usize,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
}

impl Error {
    /// For a program that the kernel would not load.
    pub(crate) fn program(program: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| match errno(&source) {
            Some(libc::EPERM) => Self::NotPermitted {
                what: format!("loading the BPF program {program}"),
            },
            _ => Self::Program {
                program,
                source: Box::new(source),
            },
        }
    }

    /// For an object that the kernel would not load.
    pub(crate) fn object(source: EbpfError) -> Self {
        match errno(&source) {
            Some(libc::EPERM) => Self::NotPermitted {
                what: "creating BPF maps".into(),
            },
            _ => Self::Object {
                source: Box::new(source),
            },
        }
    }

    /// For a map operation that failed.
    pub(crate) fn map(map: &'static str, action: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map {
            map,
            action,
            source: Box::new(source),
        }
    }
}

/// The error number at the bottom of an error, if a system call is there.
pub(crate) fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(number);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_number_is_found_below_the_libraries_own_errors() {
        let io_error = io::Error::from_raw_os_error(libc::EPERM);
        let error = EbpfError::MapError(MapError::CreateError {
            name: "CONFIG".into(),
            io_error,
        });
        assert_eq!(errno(&error), Some(libc::EPERM));
        assert!(matches!(Error::object(error), Error::NotPermitted { .. }));
    }
}
