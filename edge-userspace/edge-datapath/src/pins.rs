//! What outlives the process: links and maps pinned on a BPF file system.
//!
//! A pinned link keeps the program on its interface, and the program its maps, whatever becomes of the process; so
//! packets are judged by the last state after a crash. The next process loads its programs with new maps, fills these
//! from its configuration, and only then puts its program into the pinned link (BPF_LINK_UPDATE), which is atomic: a
//! packet is judged by the one or by the other, never by half a configuration. What packets themselves have written
//! down, and nobody could compute anew, is handed on instead: the maps of [`names::handed_on`] are opened from their
//! pins, provided that they have the layout that this program was compiled for. One of them, the connection table,
//! names workers and VIPs by index, so a next process also reads from its predecessor's pins who had which (`TENANTS`).
//!
//! ```text
//! <path>/net-<inode of the network namespace>/
//!   steer                        link of the socket selection
//!   xdp-<native|generic>-<n>     link of the interface with the index n
//!   maps-<layout>/<name>         maps; <layout> stands for the source that says what is in them
//!   staged-<process>/<name>      maps of a process that has not taken over yet
//!   retired-<n>/<name>           maps of the process before, while one takes over
//! ```

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use aya::programs::ProgramFd;
use aya::programs::links::{FdLink, PinnedLink};
use edge_common::maps::{self as names, Shape};
use edge_common::tenant::Tenant;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::{Error, sys};

/// Stands for the layout of the maps: a hash of the source that defines it, made by the build script.
const LAYOUT: &str = env!("EDGE_MAP_LAYOUT");

/// Where links and maps are pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinning {
    /// A folder on a BPF file system. It is made if it is not there.
    pub path: PathBuf,
    /// What becomes of the programs when the process ends in order.
    pub on_stop: OnStop,
}

/// What becomes of pinned programs when the process ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStop {
    /// They are detached.
    #[default]
    Detach,
    /// They stay attached, for the next process to take over.
    Keep,
}

/// The pins of one network namespace.
#[derive(Debug)]
pub(crate) struct Pins {
    folder: PathBuf,
    maps: PathBuf,
    staged: PathBuf,
    pub(crate) on_stop: OnStop,
}

impl Pins {
    /// Opens the pins of the calling thread's network namespace.
    pub(crate) fn open(pinning: &Pinning) -> Result<Self, Error> {
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(failed(&pinning.path, "open"))?;
        let folder = pinning.path.join(format!("net-{}", namespace.ino()));
        let maps = folder.join(format!("maps-{LAYOUT}"));
        fs::create_dir_all(&pinning.path).map_err(failed(&pinning.path, "make"))?;
        let kind = statfs(&pinning.path).map_err(|errno| failed(&pinning.path, "look at")(errno.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NoBpfFs {
                path: pinning.path.clone(),
            });
        }
        fs::create_dir_all(&maps).map_err(failed(&maps, "make"))?;
        let staged = folder.join(format!("staged-{}", std::process::id()));
        // One that an earlier load of this process left, because it failed.
        let _ = fs::remove_dir_all(&staged);
        Ok(Self {
            folder,
            maps,
            staged,
            on_stop: pinning.on_stop,
        })
    }

    /// Pin of a map that is handed on. A map of another shape is given up: the library would open it unseen, and read
    /// its values as what they are not.
    pub(crate) fn handed_on(&self, shape: &Shape) -> Result<PathBuf, Error> {
        let file = self.maps.join(shape.name);
        if !file.exists() {
            return Ok(file);
        }
        if !has_shape(&file, shape)? {
            tracing::info!(
                map = shape.name,
                "a pinned map has another shape: it is built anew"
            );
            fs::remove_file(&file).map_err(failed(&file, "remove"))?;
        }
        Ok(file)
    }

    /// Who had which index, as the predecessor wrote it down; `None` if there is none.
    pub(crate) fn tenants(&self) -> Result<Option<Array<MapData, Tenant>>, Error> {
        let file = self.maps.join(names::TENANTS);
        if !file.exists() || !has_shape(&file, &names::TENANTS_SHAPE)? {
            return Ok(None);
        }
        let failed = Error::map(names::TENANTS, "open the pinned map");
        let map = MapData::from_pin(&file).and_then(|map| Array::try_from(Map::Array(map)));
        map.map(Some).map_err(failed)
    }

    /// Pin of a map as the process in force has it.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// File of an interface's link.
    pub(crate) fn xdp(&self, mode: &str, index: u32) -> PathBuf {
        self.folder.join(format!("xdp-{mode}-{index}"))
    }

    /// File of the socket selection's link.
    pub(crate) fn steer(&self) -> PathBuf {
        self.folder.join("steer")
    }

    /// Pins the maps of an object that will take over beside those of its predecessor.
    pub(crate) fn stage_maps(&self, ebpf: &Ebpf) -> Result<(), Error> {
        fs::create_dir_all(&self.staged).map_err(failed(&self.staged, "make"))?;
        let handed_on = names::handed_on([0; 2]).map(|shape| shape.name);
        let is_handed_on = |name: &str| handed_on.contains(&name);
        for (name, map) in ebpf.maps().filter(|(name, _)| !is_handed_on(name)) {
            // The file system keeps names with dots for itself (`bpf_lookup`), and sections' maps have one.
            let file = self.staged.join(name.replace('.', "_"));
            map.pin(&file)
                .map_err(|error| failed(&file, "pin")(io::Error::other(error)))?;
        }
        Ok(())
    }

    /// Puts the staged maps in the place of the predecessor's, unless that was done. The predecessor's stay pinned beside them
    /// until [`Pins::remove_others`], because its programs are still at work: the kernel empties a program array when its last
    /// pin and descriptor go (`bpf_fd_array_map_clear`), and the program that hands packets on by it would drop them.
    pub(crate) fn promote_maps(&self) -> Result<(), Error> {
        let Ok(staged) = fs::metadata(&self.staged) else {
            return Ok(());
        };
        for entry in fs::read_dir(&self.staged).map_err(failed(&self.staged, "list"))? {
            let entry = entry.map_err(failed(&self.staged, "list"))?;
            let (file, place) = (entry.path(), self.maps.join(entry.file_name()));
            let how = if place.exists() {
                RenameFlags::RENAME_EXCHANGE
            } else {
                RenameFlags::empty()
            };
            renameat2(AT_FDCWD, &file, AT_FDCWD, &place, how)
                .map_err(|errno| failed(&file, "rename")(errno.into()))?;
        }
        // Not by the process's number: the next may have the same (in a container, say), and is to find these.
        let retired = self.folder.join(format!("retired-{}", staged.ino()));
        fs::rename(&self.staged, &retired).map_err(failed(&self.staged, "rename"))
    }

    /// Removes what a predecessor pinned and nobody needs: links of interfaces that are no longer configured (which
    /// detaches them), its maps, and maps of another layout.
    pub(crate) fn remove_others(&self, links: &[&Path]) -> Result<(), Error> {
        for entry in fs::read_dir(&self.folder).map_err(failed(&self.folder, "list"))? {
            let file = entry.map_err(failed(&self.folder, "list"))?.path();
            if file == self.maps || links.contains(&file.as_path()) {
                continue;
            }
            if file.is_dir() {
                tracing::info!(maps = %file.display(), "maps of an earlier process are given up");
                fs::remove_dir_all(&file).map_err(failed(&file, "remove"))?;
            } else {
                tracing::info!(link = %file.display(), "a link that is no longer configured is removed");
                remove_if_there(&file)?;
            }
        }
        Ok(())
    }

    /// Removes all pins.
    pub(crate) fn remove_all(&self) -> Result<(), Error> {
        // Links first: no program may be without what its successor would look for.
        let links = fs::read_dir(&self.folder).map_err(failed(&self.folder, "list"))?;
        for file in links
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| !file.is_dir())
        {
            fs::remove_file(&file).map_err(failed(&file, "remove"))?;
        }
        fs::remove_dir_all(&self.folder).map_err(failed(&self.folder, "remove"))
    }
}

/// A link that holds a program to its hook. Dropping it detaches the program, unless a pin is to go on holding it.
#[derive(Debug)]
pub(crate) struct Link {
    fd: FdLink,
    file: Option<PathBuf>,
    state: State,
}

/// Whose program is in a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This process's, and the maps are not complete: should it fail now, nothing may stay.
    Made,
    /// A predecessor's.
    Waiting,
    /// This process's, for good.
    InForce,
}

impl Link {
    /// A link that was just made; it is pinned, if there is a file for it.
    pub(crate) fn new(fd: FdLink, file: Option<PathBuf>) -> Result<Self, Error> {
        let fd = match &file {
            None => fd,
            Some(file) => fd
                .pin(file)
                .map_err(|error| failed(file, "pin")(io::Error::other(error)))?
                .into(),
        };
        let state = State::Made;
        Ok(Self { fd, file, state })
    }

    /// The link that a predecessor pinned, if it did.
    pub(crate) fn pinned(file: &Path) -> Option<Self> {
        let pinned = PinnedLink::from_pin(file).ok()?;
        Some(Self {
            fd: pinned.into(),
            file: Some(file.to_owned()),
            state: State::Waiting,
        })
    }

    /// Its pin.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether the program of a predecessor is in it.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Puts a program in the place of the predecessor's. False if what the link was attached to is gone.
    pub(crate) fn take_over(&mut self, program: &ProgramFd) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(true) };
        match sys::update_link(file, program.as_fd()) {
            Ok(()) => {
                self.state = State::InForce;
                Ok(true)
            }
            // The interface was removed (`bpf_xdp_link_update`), or the namespace.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says that the maps are complete.
    pub(crate) fn settle(&mut self) {
        self.state = State::InForce;
    }

    /// Whether a program is in it, by the program's number.
    pub(crate) fn holds(&self, program: u32) -> bool {
        self.fd.info().is_ok_and(|info| info.program_id() == program)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.state == State::Made
            && let Some(file) = &self.file
        {
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // There is something in it if the process fails before it takes over.
        let _ = fs::remove_dir_all(&self.staged);
    }
}

/// Whether a pinned map is an array of this shape.
fn has_shape(file: &Path, shape: &Shape) -> Result<bool, Error> {
    let found = MapInfo::from_pin(file).map_err(Error::map(shape.name, "open the pinned map"))?;
    let has = [found.key_size(), found.value_size(), found.max_entries()].map(|size| size as usize);
    let is_array = matches!(found.map_type(), Ok(MapType::Array));
    Ok(is_array && has == [shape.key, shape.value, shape.entries as usize])
}

/// Removes the pin of a link, which is detached at once: who attaches next finds the hook free.
pub(crate) fn remove_if_there(file: &Path) -> Result<(), Error> {
    // Where this fails, the pin was no link's, or what it was attached to is gone.
    let _ = sys::detach_link(file);
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(file, "remove")(error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Pin { path, action, source }
}
