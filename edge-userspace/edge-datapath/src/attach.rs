//! Attaching the programs: XDP to interfaces, socket selection to the network namespace.

use std::fs::File;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SkLookup, Xdp, XdpMode as AyaMode};
use edge_common::maps as names;

use crate::Error;
use crate::error::errno;
use crate::kernel::Kernel;
use crate::pins::{self, Link, Pins};

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
}

/// An attached interface. Dropping it detaches the program, unless the link is pinned.
pub(crate) struct Attachment {
    pub(crate) status: InterfaceStatus,
    pub(crate) link: Link,
}

impl Attachment {
    /// Puts the program in the place of a predecessor's; where that one's interface is gone and another has its name,
    /// attaches it anew.
    pub(crate) fn take_over(&mut self, kernel: &mut Kernel, pins: &Pins) -> Result<(), Error> {
        if !self.link.is_waiting() {
            return Ok(());
        }
        let name = self.status.name.clone();
        let program: &mut Xdp = kernel.program(names::XDP_PROGRAM)?;
        let fd = program.fd().map_err(Error::program(names::XDP_PROGRAM))?;
        let taken = self.link.take_over(fd).map_err(|source| Error::TakeOver {
            what: format!("interface {name}"),
            source,
        })?;
        if taken {
            tracing::info!(
                interface = name,
                "took over the program's place from an earlier process"
            );
            return Ok(());
        }
        if let Some(file) = self.link.file() {
            pins::remove_if_there(file)?;
        }
        let mode = match self.status.mode {
            AttachedMode::Native => XdpMode::Native,
            AttachedMode::Generic { .. } => XdpMode::Generic,
        };
        *self = attach_new(kernel, &name, mode, Some(pins))?;
        Ok(())
    }
}

/// Attaches the XDP program to an interface, or finds the link that a predecessor pinned there.
pub(crate) fn interface(
    kernel: &mut Kernel,
    name: &str,
    mode: XdpMode,
    pins: Option<&Pins>,
) -> Result<Attachment, Error> {
    if let Some(pins) = pins
        && let Some(found) = pinned(name, mode, pins)?
    {
        return Ok(found);
    }
    attach_new(kernel, name, mode, pins)
}

/// The link that a predecessor pinned. One of a mode that is not wanted is removed, because a link's mode is fixed.
fn pinned(name: &str, mode: XdpMode, pins: &Pins) -> Result<Option<Attachment>, Error> {
    let index = index(name)?;
    let native = AttachedMode::Native;
    let generic = AttachedMode::Generic { because: None };
    for (attached, unwanted) in [(native, XdpMode::Generic), (generic, XdpMode::Native)] {
        let file = pins.xdp(attached.name(), index);
        if mode == unwanted {
            pins::remove_if_there(&file)?;
        } else if let Some(link) = Link::pinned(&file) {
            let status = InterfaceStatus {
                name: name.to_owned(),
                mode: attached,
            };
            return Ok(Some(Attachment { status, link }));
        }
    }
    Ok(None)
}

fn attach_new(
    kernel: &mut Kernel,
    name: &str,
    mode: XdpMode,
    pins: Option<&Pins>,
) -> Result<Attachment, Error> {
    let program: &mut Xdp = kernel.program(names::XDP_PROGRAM)?;
    let (mode, fd) = match mode {
        XdpMode::Native => (AttachedMode::Native, attach(program, name, AyaMode::Driver)?),
        XdpMode::Generic => (
            AttachedMode::Generic { because: None },
            attach(program, name, AyaMode::Skb)?,
        ),
        XdpMode::Auto => attach_best(program, name)?,
    };
    let file = match pins {
        Some(pins) => Some(pins.xdp(mode.name(), index(name)?)),
        None => None,
    };
    Ok(Attachment {
        status: InterfaceStatus {
            name: name.to_owned(),
            mode,
        },
        link: Link::new(fd, file)?,
    })
}

fn index(name: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(name).map_err(|_| Error::UnknownInterface {
        name: name.to_owned(),
    })
}

fn attach_best(program: &mut Xdp, name: &str) -> Result<(AttachedMode, FdLink), Error> {
    match attach(program, name, AyaMode::Driver) {
        Ok(link) => Ok((AttachedMode::Native, link)),
        // Only the driver's own refusal is a reason to try elsewhere.
        Err(Error::Attach { cause, .. }) => {
            let link = attach(program, name, AyaMode::Skb)?;
            Ok((AttachedMode::Generic { because: Some(cause) }, link))
        }
        Err(error) => Err(error),
    }
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
