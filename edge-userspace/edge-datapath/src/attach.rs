//! Attaching the programs: XDP to interfaces, socket selection to the network namespace.

use std::fs::File;
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SkLookup, Xdp, XdpMode as AyaMode};
use edge_common::maps as names;

use crate::Error;
use crate::devices::{self, Device, Place};
use crate::error::errno;
use crate::kernel::Kernel;
use crate::pins::{self, Link, Pins};
use crate::ways::Ingress;

/// How XDP is to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// In the driver where it can, else in the kernel's generic stage.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic stage: works with every interface, and costs an allocated packet buffer each.
    Generic,
}

/// How XDP is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's generic stage.
    Generic {
        /// Why the driver did not take it; `None` if it was not asked.
        because: Option<String>,
    },
}

impl AttachedMode {
    /// `native` or `generic`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic { .. } => "generic",
        }
    }
}

/// An interface with the program on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How the program is attached.
    pub mode: AttachedMode,
    /// Devices that the program is attached to: the interface itself, the one that a VLAN stands on, or the members of
    /// a bond.
    pub devices: Vec<String>,
}

/// An attached interface. Dropping it detaches the program, unless the links are pinned.
pub(crate) struct Attachment {
    pub(crate) status: InterfaceStatus,
    pub(crate) hooks: Vec<Hook>,
}

/// A device with the program on it.
pub(crate) struct Hook {
    device: String,
    is_native: bool,
    pub(crate) link: Link,
}

impl Hook {
    /// The device as packets come by it.
    pub(crate) fn ingress(&self, devices: &[Device]) -> Option<Ingress> {
        let device = devices.iter().find(|device| device.name == self.device)?;
        Some(Ingress {
            device: device.index,
            is_native: self.is_native,
        })
    }

    /// Puts the program in the place of a predecessor's; where that one's device is gone and another has its name,
    /// attaches it anew.
    pub(crate) fn take_over(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        if !self.link.is_waiting() {
            return Ok(());
        }
        let program: &mut Xdp = kernel.program(names::XDP_PROGRAM)?;
        let fd = program.fd().map_err(Error::program(names::XDP_PROGRAM))?;
        let taken = self.link.take_over(fd).map_err(|source| Error::TakeOver {
            what: format!("interface {}", self.device),
            source,
        })?;
        if taken {
            tracing::info!(
                device = self.device,
                "took over the program's place from an earlier process"
            );
            return Ok(());
        }
        let file = self.link.file().map(Path::to_owned);
        if let Some(file) = &file {
            pins::remove_if_there(file)?;
        }
        self.link = Link::new(attach(program, &self.device, aya_mode(self.is_native))?, file)?;
        Ok(())
    }
}

/// Attaches the XDP program for an interface, or finds the links that a predecessor pinned. Devices that carry it for
/// one of the `others` already are shared.
pub(crate) fn interface(
    kernel: &mut Kernel,
    devices: &[Device],
    others: &[Attachment],
    name: &str,
    mode: XdpMode,
    pins: Option<&Pins>,
) -> Result<Attachment, Error> {
    let mut ways = devices::ways(devices, name, mode).ok_or_else(|| Error::UnknownInterface {
        name: name.to_owned(),
    })?;
    if let Some(pins) = pins {
        prefer_pinned(&mut ways, pins)?;
    }
    let mut because = None;
    for way in &ways {
        match take(kernel, way, others, pins) {
            Ok(hooks) => return Ok(attachment(name, way, hooks, because)),
            // Only the driver's own refusal is a reason to try elsewhere.
            Err(Error::Attach {
                name: device, cause, ..
            }) => {
                because = Some(if device == name {
                    cause
                } else {
                    format!("{device}: {cause}")
                });
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Attach {
        name: name.to_owned(),
        mode: if mode == XdpMode::Native {
            "native"
        } else {
            "generic"
        },
        cause: because
            .unwrap_or_else(|| "the device that it stands on is in another network namespace".into()),
    })
}

/// Puts the way that a predecessor took first, and removes its links of modes that are not wanted, because a link's
/// mode is fixed.
fn prefer_pinned(ways: &mut [Vec<Place<'_>>], pins: &Pins) -> Result<(), Error> {
    let file = |place: &Place<'_>| pins.xdp(mode_name(aya_mode(place.is_native)), place.device.index);
    let all: Vec<Place<'_>> = ways.iter().flatten().copied().collect();
    for place in &all {
        let other = Place {
            is_native: !place.is_native,
            ..*place
        };
        if !all.contains(&other) {
            pins::remove_if_there(&file(&other))?;
        }
    }
    ways.sort_by_key(|way| !way.iter().any(|place| file(place).exists()));
    Ok(())
}

/// Attaches the program to all places of a way. Should one refuse, those before it are let go.
fn take(
    kernel: &mut Kernel,
    way: &[Place<'_>],
    others: &[Attachment],
    pins: Option<&Pins>,
) -> Result<Vec<Hook>, Error> {
    let program: &mut Xdp = kernel.program(names::XDP_PROGRAM)?;
    let mut hooks = Vec::new();
    for place in way {
        let device = &place.device.name;
        let taken = others.iter().flat_map(|other| &other.hooks);
        if taken
            .clone()
            .any(|hook| hook.device == *device && hook.is_native == place.is_native)
        {
            continue;
        }
        let mode = aya_mode(place.is_native);
        let file = pins.map(|pins| pins.xdp(mode_name(mode), place.device.index));
        let link = match file.as_deref().and_then(Link::pinned) {
            Some(link) => link,
            None => Link::new(attach(program, device, mode)?, file)?,
        };
        hooks.push(Hook {
            device: device.clone(),
            is_native: place.is_native,
            link,
        });
    }
    Ok(hooks)
}

fn attachment(name: &str, way: &[Place<'_>], hooks: Vec<Hook>, because: Option<String>) -> Attachment {
    let mode = if way.iter().all(|place| place.is_native) {
        AttachedMode::Native
    } else {
        AttachedMode::Generic { because }
    };
    let status = InterfaceStatus {
        name: name.to_owned(),
        mode,
        devices: way.iter().map(|place| place.device.name.clone()).collect(),
    };
    Attachment { status, hooks }
}

const fn aya_mode(is_native: bool) -> AyaMode {
    if is_native { AyaMode::Driver } else { AyaMode::Skb }
}

fn attach(program: &mut Xdp, name: &str, mode: AyaMode) -> Result<FdLink, Error> {
    let failed = |error: ProgramError| explain(name, mode, &error);
    let id = program.attach(name, mode).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    // aya falls back to netlink where the kernel has no links for XDP or refuses one; such an attachment outlives
    // the process, so it counts as a failure, and dropping the link takes it away.
    link.try_into().map_err(|_| Error::Attach {
        name: name.to_owned(),
        mode: mode_name(mode),
        cause: "the kernel gives no link for it".into(),
    })
}

fn explain(name: &str, mode: AyaMode, error: &ProgramError) -> Error {
    let name = name.to_owned();
    if matches!(error, ProgramError::UnknownInterface { .. }) {
        return Error::UnknownInterface { name };
    }
    match errno(error) {
        Some(libc::EPERM) => Error::NotPermitted {
            what: format!("attaching XDP to {name}"),
        },
        Some(libc::EBUSY | libc::EEXIST) => Error::InterfaceBusy { name },
        Some(libc::ENODEV) => Error::UnknownInterface { name },
        Some(libc::EOPNOTSUPP) => Error::Attach {
            name,
            mode: mode_name(mode),
            cause: "the driver has no XDP".into(),
        },
        Some(libc::ERANGE) => {
            let cause = "the interface's MTU is too large for the driver's XDP".into();
            Error::Attach {
                name,
                mode: mode_name(mode),
                cause,
            }
        }
        _ => Error::Attach {
            name,
            mode: mode_name(mode),
            cause: error.to_string(),
        },
    }
}

const fn mode_name(mode: AyaMode) -> &'static str {
    match mode {
        AyaMode::Skb => "generic",
        AyaMode::Default | AyaMode::Driver | AyaMode::Hardware => "native",
    }
}

/// Attaches socket selection to the calling thread's network namespace, or finds the link that a predecessor pinned.
/// Dropping the link detaches it, unless it is pinned.
pub(crate) fn steering(kernel: &mut Kernel, pins: Option<&Pins>) -> Result<Link, Error> {
    let file = pins.map(Pins::steer);
    if let Some(link) = file.as_deref().and_then(Link::pinned) {
        return Ok(link);
    }
    let failed = |cause: String| Error::Steer { cause };
    let namespace = File::open("/proc/thread-self/ns/net").map_err(|error| failed(error.to_string()))?;
    let program: &mut SkLookup = kernel.program(names::STEER_PROGRAM)?;
    let id = program
        .attach(namespace)
        .map_err(|error| failed(error.to_string()))?;
    let link = program.take_link(id).map_err(|error| failed(error.to_string()))?;
    Link::new(link.into(), file)
}

/// Puts the socket selection in the place of a predecessor's.
pub(crate) fn steering_takes_over(kernel: &mut Kernel, link: &mut Link, pins: &Pins) -> Result<(), Error> {
    if !link.is_waiting() {
        return Ok(());
    }
    let program: &mut SkLookup = kernel.program(names::STEER_PROGRAM)?;
    let fd = program.fd().map_err(Error::program(names::STEER_PROGRAM))?;
    let taken = link.take_over(fd).map_err(|source| Error::TakeOver {
        what: "socket selection".into(),
        source,
    })?;
    if !taken {
        pins::remove_if_there(&pins.steer())?;
        *link = steering(kernel, Some(pins))?;
    }
    Ok(())
}
