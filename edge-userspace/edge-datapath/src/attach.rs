//! Attaching the programs: XDP to interfaces, socket selection to the network namespace.

use std::fs::File;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SkLookup, Xdp, XdpMode as AyaMode};
use edge_common::maps as names;

use crate::Error;
use crate::error::errno;
use crate::kernel::Kernel;

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

/// An attached interface. Dropping it detaches the program.
pub(crate) struct Attachment {
    pub(crate) status: InterfaceStatus,
    #[expect(dead_code, reason = "it is held for its drop, which detaches the program")]
    link: FdLink,
}

/// Attaches the XDP program to an interface.
pub(crate) fn interface(kernel: &mut Kernel, name: &str, mode: XdpMode) -> Result<Attachment, Error> {
    let program: &mut Xdp = kernel.program(names::XDP_PROGRAM)?;
    let (mode, link) = match mode {
        XdpMode::Native => (AttachedMode::Native, attach(program, name, AyaMode::Driver)?),
        XdpMode::Generic => (
            AttachedMode::Generic { because: None },
            attach(program, name, AyaMode::Skb)?,
        ),
        XdpMode::Auto => attach_best(program, name)?,
    };
    Ok(Attachment {
        status: InterfaceStatus {
            name: name.to_owned(),
            mode,
        },
        link,
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

/// Attaches socket selection to the calling thread's network namespace. Dropping the link detaches it.
pub(crate) fn steering(kernel: &mut Kernel) -> Result<FdLink, Error> {
    let failed = |cause: String| Error::Steer { cause };
    let namespace = File::open("/proc/thread-self/ns/net").map_err(|error| failed(error.to_string()))?;
    let program: &mut SkLookup = kernel.program(names::STEER_PROGRAM)?;
    let id = program
        .attach(namespace)
        .map_err(|error| failed(error.to_string()))?;
    let link = program.take_link(id).map_err(|error| failed(error.to_string()))?;
    Ok(link.into())
}
