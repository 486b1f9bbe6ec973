//! Has the kernel keep the MAC addresses of neighbours known, which XDP does not ask for.
//!
//! A neighbour entry that is marked as managed is probed by the kernel itself, again and again, as long as it is there; so
//! it stays true while no process runs, too. Kernels before 5.16 do not know the mark, and ask once each time.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::Netlink;
use crate::routes::PROTOCOL;

/// A neighbour: an address behind an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Neighbour {
    /// Index of the interface.
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
}

impl Neighbour {
    /// The neighbour that a message is about.
    pub(crate) fn of(message: &NeighbourMessage) -> Option<Self> {
        let address = message.attributes.iter().find_map(|attribute| {
            let NeighbourAttribute::Destination(address) = attribute else {
                return None;
            };
            match address {
                NeighbourAddress::Inet(address) => Some((*address).into()),
                NeighbourAddress::Inet6(address) => Some((*address).into()),
                NeighbourAddress::Other(_) | _ => None,
            }
        });
        Some(Self {
            interface: message.header.ifindex,
            address: address?,
        })
    }

    fn message(self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = self.interface;
        let (family, address) = match self.address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.attributes.push(NeighbourAttribute::Destination(address));
        message
    }
}

/// The neighbours that the kernel was asked to keep known.
pub(crate) struct Neighbours {
    netlink: Netlink,
    kept: BTreeSet<Neighbour>,
    /// The kernel knows the mark: it has told of an entry that has it.
    has_marks: bool,
}

impl Neighbours {
    /// Opens netlink in the calling thread's namespace, and takes over what an earlier process left behind.
    pub(crate) fn open() -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        let mut kept = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = NeighbourMessage::default();
            query.header.family = family;
            for answer in netlink.request(RouteNetlinkMessage::GetNeighbour(query), NLM_F_DUMP)? {
                if let RouteNetlinkMessage::NewNeighbour(message) = answer
                    && message
                        .attributes
                        .contains(&NeighbourAttribute::Protocol(PROTOCOL))
                {
                    kept.extend(Neighbour::of(&message));
                }
            }
        }
        Ok(Self {
            netlink,
            kept,
            has_marks: false,
        })
    }

    /// Whether none is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether a neighbour is kept.
    pub(crate) fn keeps(&self, neighbour: &Neighbour) -> bool {
        self.kept.contains(neighbour)
    }

    /// Takes note of what the kernel tells of a neighbour: whoever enters its MAC address anew takes the mark away.
    pub(crate) fn heard(&mut self, neighbour: &Neighbour, message: &NeighbourMessage) {
        let is_marked = message.attributes.iter().any(|attribute| {
            matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
        });
        self.has_marks |= is_marked;
        if self.has_marks && !is_marked && !is_fixed(message) {
            self.forget(neighbour);
        }
    }

    /// Takes note that the kernel has forgotten a neighbour.
    pub(crate) fn forget(&mut self, neighbour: &Neighbour) {
        self.kept.remove(neighbour);
    }

    /// Keeps these, of which `unknown` are not known: they are asked for anew. All others are left to the kernel again.
    ///
    /// # Errors
    /// The kernel refuses one; the rest is tried nevertheless.
    pub(crate) fn keep(
        &mut self,
        wanted: &BTreeSet<Neighbour>,
        unknown: &BTreeSet<Neighbour>,
    ) -> io::Result<()> {
        let mut outcome = Ok(());
        for &neighbour in self.kept.difference(wanted).copied().collect::<Vec<_>>().iter() {
            outcome = outcome.and(self.release(neighbour));
        }
        let new = wanted.difference(&self.kept).chain(unknown);
        for neighbour in new.copied().collect::<BTreeSet<_>>() {
            match self.ask(neighbour) {
                Ok(()) => drop(self.kept.insert(neighbour)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Leaves all neighbours to the kernel again.
    pub(crate) fn release_all(&mut self) -> io::Result<()> {
        self.keep(&BTreeSet::new(), &BTreeSet::new())
    }

    /// Has the kernel resolve a neighbour, now and whenever it has to be. What an operator entered as permanent stays so.
    fn ask(&mut self, neighbour: Neighbour) -> io::Result<()> {
        if self.is_fixed(neighbour)? {
            return Ok(());
        }
        let mut message = neighbour.message();
        message.header.flags = NeighbourFlags::Use;
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        message
            .attributes
            .extend([NeighbourAttribute::Protocol(PROTOCOL), managed]);
        self.set(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn release(&mut self, neighbour: Neighbour) -> io::Result<()> {
        self.kept.remove(&neighbour);
        if self.is_fixed(neighbour)? {
            return Ok(());
        }
        // Without the mark, and with the kernel as its author. Its state stays.
        let mut message = neighbour.message();
        message.header.flags = NeighbourFlags::Use;
        message
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::Kernel));
        match self.set(message, NLM_F_REPLACE) {
            // The kernel has forgotten it, or its interface is gone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            outcome => outcome,
        }
    }

    fn set(&mut self, message: NeighbourMessage, flags: u16) -> io::Result<()> {
        self.netlink
            .request(RouteNetlinkMessage::NewNeighbour(message), flags)
            .map(drop)
    }

    /// Whether a neighbour's MAC address is what an operator entered, or needs none.
    fn is_fixed(&mut self, neighbour: Neighbour) -> io::Result<bool> {
        let query = RouteNetlinkMessage::GetNeighbour(neighbour.message());
        let is_fixed = |answer: &RouteNetlinkMessage| matches!(answer, RouteNetlinkMessage::NewNeighbour(message) if is_fixed(message));
        match self.netlink.request(query, 0) {
            Ok(answer) => Ok(answer.iter().any(is_fixed)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether an operator entered the MAC address for good, or none is needed.
fn is_fixed(message: &NeighbourMessage) -> bool {
    matches!(
        message.header.state,
        NeighbourState::Permanent | NeighbourState::Noarp
    )
}
