//! Network devices that stand on others, and where XDP goes for them.
//!
//! A VLAN sub-interface has no driver of its own: natively, the program goes to the device below, where frames still
//! carry their tag (which the parser looks behind). A bond passes a native program on to its members if all of them
//! and its mode allow it (`bond_xdp_set`); else each member takes the program by itself.

use std::io;

use rtnetlink::packet_core::NLM_F_DUMP;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, VlanProtocol,
};

use crate::attach::XdpMode;
use crate::netlink::Netlink;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// The kernel's number for it.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Largest packet that it sends, in bytes.
    pub(crate) mtu: u32,
    kind: Kind,
    /// The device that it is a member of.
    pub(crate) controller: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Several members as one.
    Bond,
    /// A VLAN of a device; without its number if its tags are not those of 802.1Q.
    Vlan { parent: u32, id: Option<u16> },
    /// Something in the kernel alone, whose driver takes no frames of XDP.
    Soft,
    /// Anything else that stands by itself.
    Plain,
}

impl Device {
    /// One that stands by itself.
    #[cfg(test)]
    pub(crate) fn plain(index: u32, name: &str) -> Self {
        Self {
            index,
            name: name.to_owned(),
            mtu: 1500,
            kind: Kind::Plain,
            controller: None,
        }
    }

    /// A VLAN of another, with tags of 802.1ad.
    #[cfg(test)]
    pub(crate) fn vlan_of(parent: u32, index: u32, name: &str) -> Self {
        Self {
            kind: Kind::Vlan { parent, id: None },
            ..Self::plain(index, name)
        }
    }

    /// Whether a driver sends frames of XDP by it (`ndo_xdp_xmit`).
    pub(crate) const fn sends_frames(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Bond)
    }

    /// What a VLAN stands on, whatever its tags.
    pub(crate) const fn parent(&self) -> Option<u32> {
        match self.kind {
            Kind::Vlan { parent, .. } => Some(parent),
            Kind::Bond | Kind::Soft | Kind::Plain => None,
        }
    }

    /// What a VLAN of 802.1Q stands on, and its number.
    pub(crate) const fn vlan(&self) -> Option<(u32, u16)> {
        match self.kind {
            Kind::Vlan { parent, id: Some(id) } => Some((parent, id)),
            Kind::Vlan { id: None, .. } | Kind::Bond | Kind::Soft | Kind::Plain => None,
        }
    }
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
        Kind::Plain | Kind::Soft => vec![vec![here(device)]],
        Kind::Vlan { parent, .. } => devices
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
    let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answer = Netlink::open()?.request(query, NLM_F_DUMP)?;
    let device = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewLink(link) = message else {
            return None;
        };
        device(&link)
    };
    Ok(answer.into_iter().filter_map(device).collect())
}

fn device(message: &LinkMessage) -> Option<Device> {
    let (mut name, mut kind, mut parent, mut controller) = (None, None, None, None);
    let (mut vlan, mut mtu) = (None, 0);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        }
        if let LinkAttribute::Mtu(value) = attribute {
            mtu = *value;
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
                if let LinkInfo::Data(InfoData::Vlan(infos)) = info {
                    vlan = vlan_id(infos);
                }
            }
        }
    }
    let kind = match (kind, parent) {
        (Some(InfoKind::Bond), _) => Kind::Bond,
        (Some(InfoKind::Vlan), Some(parent)) => Kind::Vlan { parent, id: vlan },
        (Some(kind), _) if is_soft(&kind) => Kind::Soft,
        (None, _) if message.header.link_layer_type == LinkLayerType::Loopback => Kind::Soft,
        _ => Kind::Plain,
    };
    Some(Device {
        index: message.header.index,
        name: name?,
        mtu,
        kind,
        controller,
    })
}

/// Whether devices of a kind have no `ndo_xdp_xmit` in the kernel's sources. (Veth, TAP and bonds have; `macvlan` has, too, but
/// sends by a device of its own.)
const fn is_soft(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Amt
            | InfoKind::BareUdp
            | InfoKind::BatAdv
            | InfoKind::Bridge
            | InfoKind::Dummy
            | InfoKind::ErSpan
            | InfoKind::Geneve
            | InfoKind::GreTap
            | InfoKind::GreTap6
            | InfoKind::GreTun
            | InfoKind::GreTun6
            | InfoKind::Gtp
            | InfoKind::Hsr
            | InfoKind::Ifb
            | InfoKind::Ip6ErSpan
            | InfoKind::Ip6Tnl
            | InfoKind::IpIp
            | InfoKind::IpVlan
            | InfoKind::IpVtap
            | InfoKind::Ipoib
            | InfoKind::MacSec
            | InfoKind::MacVlan
            | InfoKind::MacVtap
            | InfoKind::Netkit
            | InfoKind::Nlmon
            | InfoKind::Pfcp
            | InfoKind::SitTun
            | InfoKind::Vlan
            | InfoKind::Vrf
            | InfoKind::Vti
            | InfoKind::Vti6
            | InfoKind::Vxlan
            | InfoKind::Wireguard
            | InfoKind::Xfrm
    )
}

/// The number of a VLAN whose tags are those of 802.1Q.
fn vlan_id(infos: &[InfoVlan]) -> Option<u16> {
    let is_service = |info: &InfoVlan| matches!(info, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad));
    let id = |info: &InfoVlan| {
        let InfoVlan::Id(id) = info else { return None };
        Some(*id)
    };
    infos
        .iter()
        .find_map(id)
        .filter(|_| !infos.iter().any(is_service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(index: u32, name: &str, controller: Option<u32>) -> Device {
        Device {
            controller,
            ..Device::plain(index, name)
        }
    }

    fn stacked(index: u32, name: &str, kind: Kind) -> Device {
        Device {
            kind,
            ..plain(index, name, None)
        }
    }

    #[test]
    fn a_device_of_the_kernel_alone_sends_no_frames_of_xdp() {
        let link = |layer, kind: Option<InfoKind>| {
            let mut message = LinkMessage::default();
            message.header.link_layer_type = layer;
            message.attributes = vec![LinkAttribute::IfName("one".to_owned())];
            let info = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            message.attributes.extend(info);
            device(&message).expect("it has a name")
        };
        let of_kind = |kind| link(LinkLayerType::Ether, kind);
        for kind in [InfoKind::Veth, InfoKind::Tun, InfoKind::Bond] {
            assert!(of_kind(Some(kind.clone())).sends_frames(), "{kind:?}");
        }
        for kind in [
            InfoKind::Wireguard,
            InfoKind::GreTap,
            InfoKind::IpIp,
            InfoKind::Bridge,
        ] {
            assert!(!of_kind(Some(kind.clone())).sends_frames(), "{kind:?}");
        }
        assert!(of_kind(None).sends_frames(), "a network card");
        assert!(!link(LinkLayerType::Loopback, None).sends_frames());
    }

    #[test]
    fn the_program_goes_where_a_driver_can_run_it_and_to_the_interface_itself_last() {
        let devices = [
            plain(1, "eth0", None),
            stacked(
                2,
                "eth0.7",
                Kind::Vlan {
                    parent: 1,
                    id: Some(7),
                },
            ),
            stacked(3, "bond0", Kind::Bond),
            plain(4, "eth1", Some(3)),
            plain(5, "eth2", Some(3)),
            stacked(
                6,
                "bond0.9",
                Kind::Vlan {
                    parent: 3,
                    id: Some(9),
                },
            ),
            stacked(7, "bond1", Kind::Bond),
            stacked(
                8,
                "far.1",
                Kind::Vlan {
                    parent: 99,
                    id: Some(1),
                },
            ),
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
