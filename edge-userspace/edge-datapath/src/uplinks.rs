//! What answers to SYNs offer: those that go back the way the SYN came, and those to clients of load balancers, which leave by
//! the node's route (and by which interfaces they may).
//!
//! Answers that go back look nothing up that depends on the interface, which would be dearer than all they write. They offer the
//! least MSS of all the ways that may be meant: where the interfaces are alike it is the kernel's, and never is it more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use edge_common::route::Uplink;

use crate::kernel::Kernel;
use crate::next_hops::Told;
use crate::syncookies::{Answered, uses_cookies};
use crate::ways::Links;
use crate::{Error, advmss};

/// What is offered where no interface is known: what Ethernet allows.
const ETHERNET: Uplink = Uplink {
    mss4: 1460,
    mss6: 1440,
};

/// What the maps say of the answers.
pub(crate) struct Offers {
    /// Which SYNs are answered.
    pub(crate) answered: Answered,
    /// What answers offer that go back the way the SYN came.
    pub(crate) back: Uplink,
    /// Interfaces that the others may leave by.
    uplinks: BTreeMap<u32, Uplink>,
    /// What each interface allowed by itself when the routes were read.
    own: BTreeMap<u32, Uplink>,
    /// Whether a route had a say then.
    is_limited: bool,
    /// Routes may say something else by now.
    is_stale: bool,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            answered: Answered::None,
            back: ETHERNET,
            uplinks: BTreeMap::new(),
            own: BTreeMap::new(),
            is_limited: false,
            is_stale: false,
        }
    }
}

impl Offers {
    /// Takes note of what the kernel told.
    pub(crate) const fn note(&mut self, told: Told) {
        self.is_stale |= told.of_metrics || told.of_ways && self.is_limited;
    }
}

impl Kernel {
    /// Makes the maps what interfaces and routes allow now. It reads all routes.
    pub(crate) fn find_offers(&mut self, answered: Answered) -> Result<(), Error> {
        let Some(next_hops) = &self.next_hops else {
            return Ok(());
        };
        // Should something fail, it is tried again.
        self.offers.is_stale = true;
        let found = if answered == Answered::None {
            Found::default()
        } else {
            Found::of(next_hops.links()).map_err(|source| Error::Uplinks { source })?
        };
        self.write_offers(found, answered)
    }

    /// The same, if there is reason to: what the kernel told, or what interfaces allow by themselves. IPv6 has an MTU of its own,
    /// and the kernel does not tell of each change of that.
    pub(crate) fn keep_offers(&mut self) -> Result<(), Error> {
        let (Some(next_hops), offers) = (&self.next_hops, &self.offers) else {
            return Ok(());
        };
        let answers = offers.answered != Answered::None;
        if answers && (offers.is_stale || offers.own != own(next_hops.links())) {
            self.find_offers(offers.answered)?;
        }
        Ok(())
    }

    /// Answers as if the program were attached to these interfaces.
    pub(crate) fn answer_by(&mut self, links: Links<'_>) -> Result<(), Error> {
        let found = Found::of(links).map_err(|source| Error::Uplinks { source })?;
        for &index in found.uplinks.keys() {
            self.allow_device(index)?;
        }
        self.write_offers(found, Answered::ByRoute)
    }

    fn write_offers(&mut self, found: Found, answered: Answered) -> Result<(), Error> {
        let uplinks = match answered {
            Answered::ByRoute => found.uplinks,
            Answered::None | Answered::Back => BTreeMap::new(),
        };
        let offers = &mut self.offers;
        for &gone in offers.uplinks.keys().filter(|index| !uplinks.contains_key(index)) {
            self.maps.remove_uplink(gone)?;
        }
        for (&index, &uplink) in &uplinks {
            if offers.uplinks.get(&index) != Some(&uplink) {
                self.maps.write_uplink(index, uplink)?;
            }
        }
        offers.uplinks = uplinks;
        offers.is_limited = found.is_limited;
        // Without an interface, and as long as no answer is asked for, the last one stays.
        let least = found.least.unwrap_or(offers.back);
        self.offer_back(least)?;
        self.offers.own = found.own;
        self.offers.is_stale = false;
        Ok(())
    }

    /// Has answers that go back offer this.
    fn offer_back(&mut self, offer: Uplink) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.offers.back, offer);
        if offer == before || !uses_cookies(&self.image.config) {
            return Ok(());
        }
        let written = self.write_config();
        if written.is_err() {
            self.offers.back = before;
        }
        written
    }
}

/// What interfaces and routes allow.
#[derive(Debug, Default)]
struct Found {
    own: BTreeMap<u32, Uplink>,
    is_limited: bool,
    least: Option<Uplink>,
    uplinks: BTreeMap<u32, Uplink>,
}

impl Found {
    fn of(links: Links<'_>) -> io::Result<Self> {
        let own = own(links);
        let mut limited = own.clone();
        let is_limited = advmss::limit_by_routes(&mut limited)?;
        let least = advmss::least(limited.values());
        let leaves = uplinks(links);
        limited.retain(|index, _| leaves.contains(index));
        Ok(Self {
            own,
            is_limited,
            least,
            uplinks: limited,
        })
    }
}

/// What the interfaces that SYNs come by allow by themselves.
fn own(links: Links<'_>) -> BTreeMap<u32, Uplink> {
    let served = served(links);
    let served = links
        .devices
        .iter()
        .filter(|device| served.contains(&device.index));
    served.map(|device| (device.index, advmss::own(device))).collect()
}

/// The interfaces that packets come by: those that the program is attached to, and what stands on them, such as a bond on its
/// members and VLANs on that. The kernel's routes lead to clients by any of these.
fn served(links: Links<'_>) -> BTreeSet<u32> {
    let mut served: BTreeSet<_> = links.ingress.iter().map(|ingress| ingress.device).collect();
    loop {
        let before = served.len();
        for device in links.devices {
            if device.parent().is_some_and(|parent| served.contains(&parent)) {
                served.insert(device.index);
            }
            if served.contains(&device.index) {
                served.extend(device.controller);
            }
        }
        if served.len() == before {
            return served;
        }
    }
}

/// The interfaces that answers may leave by which do not go back: those that the program is attached to, and bonds of such.
fn uplinks(links: Links<'_>) -> BTreeSet<u32> {
    let is_attached = |index: u32| links.ingress.iter().any(|ingress| ingress.device == index);
    let members = links.devices.iter().filter(|device| is_attached(device.index));
    let controllers: Vec<_> = members.filter_map(|device| device.controller).collect();
    links
        .devices
        .iter()
        .filter(|device| is_attached(device.index) || controllers.contains(&device.index))
        .filter(|device| links.may_leave_by(device))
        .map(|device| device.index)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Device;
    use crate::ways::Ingress;

    #[test]
    fn packets_come_by_what_stands_on_an_interface_and_answers_leave_by_it_or_its_bond() {
        let member = |index, name| {
            let mut member = Device::plain(index, name);
            member.controller = Some(4);
            member
        };
        // In an order in which some stand on what comes later.
        let devices = [
            Device::vlan_of(6, 1, "bond0.7.9"),
            member(2, "eth0"),
            member(3, "eth1"),
            Device::plain(4, "bond0"),
            Device::plain(5, "eth2"),
            Device::vlan_of(4, 6, "bond0.7"),
            Device::vlan_of(5, 7, "eth2.7"),
        ];
        for (attached, came_by, leave_by) in [
            (vec![2, 3], vec![1, 2, 3, 4, 6], vec![2, 3, 4]),
            (vec![4], vec![1, 4, 6], vec![4]),
            (vec![5], vec![5, 7], vec![5]),
            (vec![6], vec![1, 6], vec![]),
            (vec![], vec![], vec![]),
        ] {
            let is_native = true;
            let ingress: Vec<_> = attached
                .iter()
                .map(|&device| Ingress { device, is_native })
                .collect();
            let links = Links {
                devices: &devices,
                ingress: &ingress,
            };
            assert_eq!(served(links), BTreeSet::from_iter(came_by), "{attached:?}");
            assert_eq!(uplinks(links), BTreeSet::from_iter(leave_by), "{attached:?}");
        }
    }
}
