//! What the kernel's answers say of the way to an address.

use std::io;
use std::net::IpAddr;

use edge_common::route::{FORWARDING_IS_OFF, FOUND, Lookup, NO_NEIGHBOUR};
use edge_common::worker;

use crate::devices::Device;
use crate::neighbours::Neighbour;

/// Where the data path sends packets to an address first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that they leave by; 0: the one that they came by.
    pub interface: u32,
    /// The VLAN that they leave in; 0: in none.
    pub vlan: u16,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// Whether it is the address itself, and no router.
    pub is_direct: bool,
}

impl NextHop {
    /// A worker's entry with it.
    pub(crate) fn complete(&self, entry: worker::Entry) -> worker::Entry {
        if entry.mode == worker::L2 && !self.is_direct {
            return entry;
        }
        worker::Entry {
            interface: self.interface,
            next_hop: self.mac,
            source_mac: self.source_mac,
            vlan: self.vlan,
            hop: worker::FOUND,
            ..entry
        }
    }
}

/// A device that the program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ingress {
    pub(crate) device: u32,
    /// Whether the program runs in its driver.
    pub(crate) is_native: bool,
}

/// What is known of the way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the same for all packets, and begins at this neighbour.
    Known(Neighbour, NextHop),
    /// It depends on the interface that a packet came by, so each asks for itself.
    Asked,
    /// Likewise, and those that came by some of the interfaces, or by each for another reason, do not get there.
    Partial {
        /// Whether the MAC address of a neighbour is among what is missing.
        is_silent: bool,
        /// Why they do not.
        why: String,
    },
    /// It is the same for all packets, and the MAC address of the neighbour that it begins at is not known.
    Silent(Neighbour),
    /// There is none, and why.
    None(String),
}

impl Way {
    /// Whether a neighbour is asked for its MAC address, and may still answer.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Partial { is_silent: true, .. })
    }
}

/// What [`Lookup::answer`] is where the device that packets come by is gone, or has no queue: nothing comes by it.
pub(crate) const NOTHING_COMES: i32 = -libc::ENODEV;

/// The node's network devices, and those of them that packets come by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links<'l> {
    pub(crate) devices: &'l [Device],
    pub(crate) ingress: &'l [Ingress],
}

impl Links<'_> {
    /// What the answers for an address mean, one for each device that packets come by; and the neighbours on its ways, each
    /// with whether its MAC address is known.
    pub(crate) fn judge(
        self,
        address: IpAddr,
        answers: &[(Ingress, Lookup)],
    ) -> (Way, Vec<(Neighbour, bool)>) {
        let has_hop = |lookup: &&Lookup| matches!(lookup.answer, FOUND | NO_NEIGHBOUR);
        let lookups = answers.iter().map(|(_, lookup)| lookup);
        let neighbours = lookups
            .filter(has_hop)
            .map(|lookup| (neighbour(lookup), lookup.answer == FOUND));
        let ways: Vec<_> = answers
            .iter()
            .filter(|(_, lookup)| lookup.answer != NOTHING_COMES)
            .map(|(ingress, lookup)| self.way(*ingress, address, lookup))
            .collect();
        (self.joined(&ways), neighbours.collect())
    }

    /// The ways of packets that come by different devices as one.
    fn joined(self, ways: &[Way]) -> Way {
        let Some(first) = ways.first() else {
            return Way::None("the interfaces that packets come by are gone".into());
        };
        if ways.iter().all(|way| way == first) {
            return first.clone();
        }
        let obstacles: Vec<_> = ways.iter().filter_map(|way| self.obstacle(way)).collect();
        if obstacles.is_empty() {
            return Way::Asked;
        }
        let mut why = obstacles.join("; ");
        let is_silent = ways.iter().any(Way::is_open);
        if obstacles.len() < ways.len() {
            why.push_str(" (packets that come by other interfaces get there)");
        } else if !is_silent {
            return Way::None(why);
        }
        Way::Partial { is_silent, why }
    }

    /// Why packets do not get to where a way leads; `None` if they do.
    pub(crate) fn obstacle(self, way: &Way) -> Option<String> {
        match way {
            Way::Silent(Neighbour { interface, address }) => Some(format!(
                "{address} does not say its MAC address on {}",
                self.name(*interface)
            )),
            Way::Partial { why, .. } | Way::None(why) => Some(why.clone()),
            Way::Known(..) | Way::Asked => None,
        }
    }

    /// The way of packets that come by one device.
    fn way(self, ingress: Ingress, address: IpAddr, lookup: &Lookup) -> Way {
        let (came_by, leaves_by) = (self.name(ingress.device), self.name(lookup.interface));
        let neighbour = neighbour(lookup);
        match lookup.answer {
            FOUND => {}
            NO_NEIGHBOUR => return Way::Silent(neighbour),
            FORWARDING_IS_OFF => {
                let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                return Way::None(format!(
                    "forwarding is off for {came_by} (sysctl net.{family}.conf.{came_by}.forwarding=1)"
                ));
            }
            number if number < 0 => {
                let error = io::Error::from_raw_os_error(number.saturating_neg());
                return Way::None(format!(
                    "the way from {came_by} to {address} cannot be asked for: {error}"
                ));
            }
            answer => {
                return Way::None(format!(
                    "no route leads from {came_by} to {address} (bpf_fib_lookup: {answer})"
                ));
            }
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = lookup.macs;
        let mut hop = NextHop {
            interface: lookup.interface,
            vlan: 0,
            mac: [a, b, c, d, e, f],
            source_mac: [g, h, i, j, k, l],
            is_direct: neighbour.address == address,
        };
        if lookup.interface == ingress.device {
            return Way::Known(neighbour, hop);
        }
        let device = self.device(lookup.interface);
        if let Some((parent, id)) = device.and_then(Device::vlan) {
            hop.interface = parent;
            hop.vlan = id;
        }
        match self.device(hop.interface) {
            Some(device) if self.may_leave_by(device) => Way::Known(neighbour, hop),
            _ => Way::None(format!(
                "{leaves_by}, which leads to it, takes no frames of XDP from {came_by}"
            )),
        }
    }

    /// Whether frames can be sent by a device.
    pub(crate) fn may_leave_by(self, device: &Device) -> bool {
        device.sends_frames() || self.ingress.iter().all(|ingress| !ingress.is_native)
    }

    fn name(&self, index: u32) -> &str {
        self.device(index)
            .map_or("an interface that is gone", |device| &device.name)
    }

    fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }
}

/// Who an answer sends packets to first.
fn neighbour(lookup: &Lookup) -> Neighbour {
    Neighbour {
        interface: lookup.interface,
        address: IpAddr::from(lookup.next_hop),
    }
}

#[cfg(test)]
mod tests {
    use edge_common::Address;

    use super::*;

    const WORKER: [u8; 4] = [10, 0, 0, 1];
    const ROUTER: [u8; 4] = [10, 0, 9, 9];

    fn ingress(device: u32) -> Ingress {
        Ingress {
            device,
            is_native: true,
        }
    }

    /// An answer: what `bpf_fib_lookup` said, the interface, and who is first on the way.
    fn answer(answer: i32, interface: u32, next_hop: [u8; 4]) -> Lookup {
        Lookup {
            answer,
            interface,
            next_hop: Address::from(IpAddr::from(next_hop)),
            ..Lookup::default()
        }
    }

    /// What a way is called, and why packets do not get to its end.
    fn shown(links: Links<'_>, way: &Way) -> (&'static str, String) {
        let name = match way {
            Way::Known(..) => "known",
            Way::Asked => "asked",
            Way::Partial { is_silent: true, .. } => "partial, open",
            Way::Partial { .. } => "partial",
            Way::Silent(_) => "silent",
            Way::None(_) => "none",
        };
        (name, links.obstacle(way).unwrap_or_default())
    }

    #[test]
    fn a_way_says_which_packets_do_not_get_to_its_end_and_why() {
        let devices = [Device::plain(2, "eth0"), Device::plain(3, "eth1")];
        let attached = [ingress(2), ingress(3)];
        let links = Links {
            devices: &devices,
            ingress: &attached,
        };
        let found = |interface| answer(FOUND, interface, WORKER);
        let (silent, blackhole) = (answer(NO_NEIGHBOUR, 3, ROUTER), answer(1, 0, WORKER));
        let (off, gone) = (
            answer(FORWARDING_IS_OFF, 0, WORKER),
            answer(NOTHING_COMES, 0, WORKER),
        );
        let others = " (packets that come by other interfaces get there)";
        let no_route = "no route leads from eth1 to 10.0.0.1 (bpf_fib_lookup: 1)";
        let no_forwarding = "forwarding is off for eth0 (sysctl net.ipv4.conf.eth0.forwarding=1)";
        let no_mac = "10.0.9.9 does not say its MAC address on eth1";
        let unknown = answer(-libc::EAFNOSUPPORT, 0, WORKER);
        let rows = [
            ([found(3), found(3)], "known", String::new()),
            ([found(2), found(3)], "asked", String::new()),
            ([found(3), blackhole], "partial", format!("{no_route}{others}")),
            ([off, found(3)], "partial", format!("{no_forwarding}{others}")),
            ([off, blackhole], "none", format!("{no_forwarding}; {no_route}")),
            ([silent, silent], "silent", no_mac.into()),
            ([found(2), silent], "partial, open", format!("{no_mac}{others}")),
            (
                [off, silent],
                "partial, open",
                format!("{no_forwarding}; {no_mac}"),
            ),
            // Nothing comes by an interface that is gone, so it has no say.
            ([gone, found(3)], "known", String::new()),
            ([gone, blackhole], "none", no_route.into()),
            (
                [gone, gone],
                "none",
                "the interfaces that packets come by are gone".into(),
            ),
            (
                [gone, unknown],
                "none",
                "the way from eth1 to 10.0.0.1 cannot be asked for: \
                 Address family not supported by protocol (os error 97)"
                    .into(),
            ),
        ];
        for (lookups, name, why) in rows {
            let answers: Vec<_> = attached.into_iter().zip(lookups).collect();
            let (way, neighbours) = links.judge(WORKER.into(), &answers);
            assert_eq!(shown(links, &way), (name, why), "{lookups:?}");
            let known = lookups.iter().filter(|lookup| lookup.answer == FOUND).count();
            assert_eq!(neighbours.iter().filter(|(_, is_known)| *is_known).count(), known);
        }
    }
}
