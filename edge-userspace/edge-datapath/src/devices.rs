//! Network devices that stand on others, and where XDP goes for them.
//!
//! A VLAN sub-interface has no driver of its own: natively, the program goes to the device below, where frames still
//! carry their tag (which the parser looks behind). A bond passes a native program on to its members if all of them
//! and its mode allow it (`bond_xdp_set`); else each member takes the program by itself.

use std::io;

use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::attach::XdpMode;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// The kernel's number for it.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    kind: Kind,
    /// The device that it is a member of.
    controller: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Several members as one.
    Bond,
    /// A VLAN of the device with this index.
    Vlan(u32),
    /// Anything that stands by itself.
    Plain,
}

/// A device, and whether the program is to run in its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'d> {
    pub(crate) device: &'d Device,
    pub(crate) is_native: bool,
}

/// Ways to judge the packets of an interface, the best first: each is a set of places, all of which must take the
/// program. `None` if there is no such interface.
pub(crate) fn ways<'d>(devices: &'d [Device], name: &str, mode: XdpMode) -> Option<Vec<Vec<Place<'d>>>> {
    let device = devices.iter().find(|device| device.name == name)?;
    let mut ways = Vec::new();
    if mode != XdpMode::Generic {
        ways.extend(native(devices, device));
    }
    if mode != XdpMode::Native {
        let is_native = false;
        ways.push(vec![Place { device, is_native }]);
    }
    Some(ways)
}

fn native<'d>(devices: &'d [Device], device: &'d Device) -> Vec<Vec<Place<'d>>> {
    let here = |device| Place {
        device,
        is_native: true,
    };
    match device.kind {
        Kind::Plain => vec![vec![here(device)]],
        Kind::Vlan(parent) => devices
            .iter()
            .find(|other| other.index == parent)
            .map_or_else(Vec::new, |parent| native(devices, parent)),
        Kind::Bond => {
            let members = devices
                .iter()
                .filter(|other| other.controller == Some(device.index))
                .map(here)
                .collect::<Vec<_>>();
            let mut ways = vec![vec![here(device)]];
            ways.extend((!members.is_empty()).then_some(members));
            ways
        }
    }
}

/// Every device of the calling thread's network namespace.
pub(crate) fn all() -> io::Result<Vec<Device>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut request = NetlinkMessage::from(query);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.header.sequence_number = 1;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut devices = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if read(&datagram, &mut devices)? {
            return Ok(devices);
        }
    }
}

/// Reads a datagram of the answer; true once the answer is complete.
fn read(mut datagram: &[u8], devices: &mut Vec<Device>) -> io::Result<bool> {
    let malformed = |error: rtnetlink::packet_core::DecodeError| io::Error::other(error.to_string());
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).map_err(malformed)?;
        // Messages are padded to four bytes (netlink(7), NLMSG_ALIGN).
        let len = (message.header.length as usize).next_multiple_of(4).max(4);
        datagram = datagram.get(len..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => devices.extend(device(&link)),
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
            NetlinkPayload::Noop | NetlinkPayload::InnerMessage(_) | _ => {}
        }
    }
    Ok(false)
}

fn device(message: &LinkMessage) -> Option<Device> {
    let (mut name, mut kind, mut parent, mut controller) = (None, None, None, None);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        }
        if let LinkAttribute::Link(value) = attribute {
            parent = Some(*value);
        }
        if let LinkAttribute::Controller(value) = attribute {
            controller = Some(*value).filter(|index| *index != 0);
        }
        if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Kind(value) = info {
                    kind = Some(value.clone());
                }
            }
        }
    }
    let kind = match (kind, parent) {
        (Some(InfoKind::Bond), _) => Kind::Bond,
        (Some(InfoKind::Vlan), Some(parent)) => Kind::Vlan(parent),
        _ => Kind::Plain,
    };
    Some(Device {
        index: message.header.index,
        name: name?,
        kind,
        controller,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(index: u32, name: &str, controller: Option<u32>) -> Device {
        Device {
            index,
            name: name.to_owned(),
            kind: Kind::Plain,
            controller,
        }
    }

    fn stacked(index: u32, name: &str, kind: Kind) -> Device {
        Device {
            kind,
            ..plain(index, name, None)
        }
    }

    #[test]
    fn the_program_goes_where_a_driver_can_run_it_and_to_the_interface_itself_last() {
        let devices = [
            plain(1, "eth0", None),
            stacked(2, "eth0.7", Kind::Vlan(1)),
            stacked(3, "bond0", Kind::Bond),
            plain(4, "eth1", Some(3)),
            plain(5, "eth2", Some(3)),
            stacked(6, "bond0.9", Kind::Vlan(3)),
            stacked(7, "bond1", Kind::Bond),
            stacked(8, "far.1", Kind::Vlan(99)),
            plain(9, "port", Some(77)),
        ];
        let rows = [
            ("eth0", XdpMode::Auto, "eth0+ | eth0"),
            ("eth0", XdpMode::Native, "eth0+"),
            ("eth0", XdpMode::Generic, "eth0"),
            ("eth0.7", XdpMode::Auto, "eth0+ | eth0.7"),
            ("eth0.7", XdpMode::Generic, "eth0.7"),
            ("bond0", XdpMode::Auto, "bond0+ | eth1+ eth2+ | bond0"),
            ("bond0.9", XdpMode::Auto, "bond0+ | eth1+ eth2+ | bond0.9"),
            ("bond0.9", XdpMode::Native, "bond0+ | eth1+ eth2+"),
            ("bond1", XdpMode::Auto, "bond1+ | bond1"),
            ("far.1", XdpMode::Native, ""),
            ("far.1", XdpMode::Auto, "far.1"),
            ("port", XdpMode::Auto, "port+ | port"),
        ];
        for (name, mode, expected) in rows {
            let ways = ways(&devices, name, mode).expect(name);
            let show = |way: &Vec<Place<'_>>| {
                let place = |place: &Place<'_>| {
                    format!("{}{}", place.device.name, if place.is_native { "+" } else { "" })
                };
                way.iter().map(place).collect::<Vec<_>>().join(" ")
            };
            let shown: Vec<_> = ways.iter().map(show).collect();
            assert_eq!(shown.join(" | "), expected, "{name} {mode:?}");
        }
        assert!(ways(&devices, "eth9", XdpMode::Auto).is_none());
    }

    #[test]
    fn the_loopback_is_a_device_of_every_namespace() {
        let devices = all().expect("netlink answers");
        assert!(
            devices
                .iter()
                .any(|device| device.name == "lo" && device.index == 1)
        );
    }
}
