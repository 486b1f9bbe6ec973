//! Local routes for virtual addresses, by netlink.
//!
//! A VIP needs no address on an interface; but before the kernel looks for a socket it decides by its routes
//! whether a packet is for this node. `local VIP dev lo` in the table `local` says so, as it does for every
//! address that is configured (ip-route(8)).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use edge_common::route::LOOPBACK;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Error;
use crate::netlink::Netlink;

/// Marks our routes and neighbours, so that a later process knows what a killed one left (rtnetlink(7): protocols above
/// RTPROT_STATIC are for the user; this one is in nobody's list, `/etc/iproute2/rt_protos`).
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xed);
/// The table that holds what is local (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;

/// Adds and removes local routes; only its own.
pub(crate) struct Routes {
    netlink: Netlink,
    /// Addresses for which a route was added here. Others were local before.
    added: Vec<IpAddr>,
    /// Addresses whose routes an earlier process added and left behind.
    inherited: Vec<IpAddr>,
}

impl Routes {
    /// Opens netlink in the calling thread's namespace, and looks for what an earlier process left behind.
    pub(crate) fn open() -> Result<Self, Error> {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let failed = |action| {
            move |source| Error::Route {
                address: unspecified,
                action,
                source,
            }
        };
        let mut routes = Self {
            netlink: Netlink::open().map_err(failed("open netlink"))?,
            added: Vec::new(),
            inherited: Vec::new(),
        };
        routes.inherited = routes.left_behind().map_err(failed("list"))?;
        Ok(routes)
    }

    /// Removes the routes that an earlier process left behind and that were not added again here.
    pub(crate) fn remove_inherited(&mut self) -> Result<(), Error> {
        for address in std::mem::take(&mut self.inherited) {
            tracing::info!(%address, "removing a local route that an earlier process left behind");
            self.delete(address)?;
        }
        Ok(())
    }

    /// Makes an address local, unless it is.
    pub(crate) fn add(&mut self, address: IpAddr) -> Result<(), Error> {
        if let Some(at) = self.inherited.iter().position(|&inherited| inherited == address) {
            self.added.push(self.inherited.swap_remove(at));
            return Ok(());
        }
        let failed = |action| {
            move |source| Error::Route {
                address,
                action,
                source,
            }
        };
        if self.is_local(address).map_err(failed("look it up"))? {
            return Ok(());
        }
        let message = RouteNetlinkMessage::NewRoute(local_route(address));
        self.netlink
            .request(message, NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed("add it"))?;
        self.added.push(address);
        Ok(())
    }

    /// Removes an address's route, if it was added here.
    pub(crate) fn remove(&mut self, address: IpAddr) -> Result<(), Error> {
        let Some(at) = self.added.iter().position(|&added| added == address) else {
            return Ok(());
        };
        self.delete(address)?;
        self.added.swap_remove(at);
        Ok(())
    }

    fn delete(&mut self, address: IpAddr) -> Result<(), Error> {
        match self
            .netlink
            .request(RouteNetlinkMessage::DelRoute(local_route(address)), 0)
        {
            // Somebody removed it, or took lo down.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(source) => Err(Error::Route {
                address,
                action: "remove it",
                source,
            }),
            Ok(_) => Ok(()),
        }
    }

    /// Whether the kernel would deliver packets to the address to this node.
    fn is_local(&mut self, address: IpAddr) -> io::Result<bool> {
        let mut query = message(address);
        query.header.flags = RouteFlags::FibMatch;
        match self.netlink.request(RouteNetlinkMessage::GetRoute(query), 0) {
            Ok(answer) => Ok(routes(answer).any(|route| route.header.kind == RouteType::Local)),
            // No route leads there at all.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Addresses of routes with our mark.
    fn left_behind(&mut self) -> io::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let routes = all(&mut self.netlink, family)?;
            addresses.extend(routes.filter_map(|route| our_address(&route.header, &route.attributes)));
        }
        Ok(addresses)
    }
}

/// The routes of a family, of all tables.
pub(crate) fn all(
    netlink: &mut Netlink,
    family: AddressFamily,
) -> io::Result<impl Iterator<Item = RouteMessage>> {
    let mut query = RouteMessage::default();
    query.header.address_family = family;
    let answer = netlink.request(RouteNetlinkMessage::GetRoute(query), NLM_F_DUMP)?;
    Ok(routes(answer))
}

/// The routes in an answer.
fn routes(answer: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = RouteMessage> {
    answer.into_iter().filter_map(|message| {
        let RouteNetlinkMessage::NewRoute(route) = message else {
            return None;
        };
        Some(route)
    })
}

/// A message about one address.
fn message(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    message
}

fn local_route(address: IpAddr) -> RouteMessage {
    let mut route = message(address);
    route.header.table = LOCAL_TABLE;
    route.header.protocol = PROTOCOL;
    route.header.scope = RouteScope::Host;
    route.header.kind = RouteType::Local;
    route.attributes.push(RouteAttribute::Oif(LOOPBACK));
    route
}

/// The address of a route that carries our mark.
fn our_address(header: &RouteHeader, attributes: &[RouteAttribute]) -> Option<IpAddr> {
    if header.protocol != PROTOCOL || header.kind != RouteType::Local {
        return None;
    }
    attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(destination) = attribute else {
            return None;
        };
        match destination {
            RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
            RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
            RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
        }
    })
}
