//! Next hops of workers elsewhere: found in the kernel's tables, kept known, and followed.
//!
//! What an address's next hop is, the data path itself is asked ([`edge_common::route`]); its MAC address is kept known by
//! the kernel ([`Neighbours`]). What was found is written into the workers' entries, so that no packet has to ask, and is
//! good as long as this goes on looking: at everything that the kernel tells, and at all of it once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use edge_common::route::Lookup;
use edge_common::worker;
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::devices::Device;
use crate::neighbours::{Neighbour, Neighbours};
use crate::netlink::News;
use crate::ways::{Ingress, Links, NextHop, Way};
use crate::{Error, advmss, devices};

/// What changes where packets go (`RTNLGRP_*` in linux/rtnetlink.h): links, neighbours, routes and rules of both families,
/// whether interfaces forward, next hop objects.
const GROUPS: [u32; 9] = [1, 3, 7, 8, 11, 19, 24, 25, 32];

/// How often all is looked at, whatever the kernel tells; and how often a neighbour that does not answer is asked.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a MAC address is used on that the kernel has forgotten, while it asks for it: as long as it asks before it gives
/// up (three times, once a second). Somebody may have emptied the table.
const HOLD: Duration = Duration::from_secs(3);

/// What was answered for addresses, by each device that packets come by.
pub(crate) type Answers = BTreeMap<IpAddr, Vec<(Ingress, Lookup)>>;

/// What the kernel has told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Something that may change a way.
    pub(crate) of_ways: bool,
    /// A route whose metrics say how long segments may be.
    pub(crate) of_metrics: bool,
}

/// Follows the next hops of workers.
pub(crate) struct NextHops {
    neighbours: Neighbours,
    news: News,
    /// Devices that the program is attached to.
    pub(crate) ingress: Vec<Ingress>,
    pub(crate) devices: Vec<Device>,
    ways: BTreeMap<IpAddr, Way>,
    /// When everything was looked at last.
    swept: Option<Instant>,
    /// Addresses whose MAC address is not known any more, and since when.
    silent: BTreeMap<IpAddr, Instant>,
    /// What the operator was told of.
    told: BTreeMap<IpAddr, String>,
    /// Why the kernel keeps not all neighbours known.
    refusal: Option<String>,
}

impl NextHops {
    /// Opens netlink in the calling thread's namespace.
    pub(crate) fn open(ingress: Vec<Ingress>) -> Result<Self, Error> {
        let failed = |source| Error::NextHops { source };
        Ok(Self {
            neighbours: Neighbours::open().map_err(failed)?,
            news: News::of(&GROUPS).map_err(failed)?,
            devices: devices::all().map_err(failed)?,
            ingress,
            ways: BTreeMap::new(),
            swept: None,
            silent: BTreeMap::new(),
            told: BTreeMap::new(),
            refusal: None,
        })
    }

    /// Where the kernel's news arrive.
    pub(crate) const fn news(&self) -> &News {
        &self.news
    }

    /// Leaves the neighbours to the kernel.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        self.neighbours
            .release_all()
            .map_err(|source| Error::NextHops { source })
    }

    /// The node's network devices.
    pub(crate) fn links(&self) -> Links<'_> {
        Links {
            devices: &self.devices,
            ingress: &self.ingress,
        }
    }

    /// Next hops that are the same for all packets, by the address that they lead to.
    pub(crate) fn known(&self) -> impl Iterator<Item = (IpAddr, NextHop)> {
        self.ways.iter().filter_map(|(address, way)| match way {
            Way::Known(_, hop) => Some((*address, *hop)),
            Way::Asked | Way::Partial { .. } | Way::Silent(_) | Way::None(_) => None,
        })
    }

    /// Whether an address was looked for before.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.ways.contains_key(&address)
    }

    /// Whether a neighbour on the way to an address may still say its MAC address.
    pub(crate) fn is_open(&self, address: IpAddr) -> bool {
        self.ways.get(&address).is_some_and(Way::is_open)
    }

    /// Whether nothing is followed, no neighbour is kept, and the operator knows of it.
    pub(crate) fn is_idle(&self) -> bool {
        self.ways.is_empty() && self.neighbours.is_empty() && self.told.is_empty()
    }

    /// Why packets do not get to a worker; `None` if they do.
    pub(crate) fn obstacle(&self, entry: &worker::Entry) -> Option<String> {
        let way = self.ways.get(&asked_for(entry)?)?;
        if let Way::Known(_, hop) = way
            && entry.mode == worker::L2
            && !hop.is_direct
        {
            return Some(
                "it is behind a router, and mode `l2` reaches neighbours alone (use `ipip` or `gue`)".into(),
            );
        }
        self.links().obstacle(way)
    }

    /// Reads what the kernel told.
    pub(crate) fn hear(&mut self) -> Told {
        let (news, is_whole) = self.news.fetch();
        let mut told = Told {
            of_ways: !is_whole,
            of_metrics: !is_whole,
        };
        for message in news {
            if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) = &message {
                told.of_metrics |= advmss::has_say(route);
            }
            told.of_ways |= if let RouteNetlinkMessage::NewNeighbour(message) = &message {
                let neighbour = Neighbour::of(message).filter(|neighbour| self.neighbours.keeps(neighbour));
                neighbour.is_some_and(|neighbour| {
                    self.neighbours.heard(&neighbour, message);
                    true
                })
            } else if let RouteNetlinkMessage::DelNeighbour(message) = &message {
                let neighbour = Neighbour::of(message).filter(|neighbour| self.neighbours.keeps(neighbour));
                neighbour.is_some_and(|neighbour| {
                    self.neighbours.forget(&neighbour);
                    true
                })
            } else {
                true
            };
        }
        told
    }

    /// Takes note of the answers for all addresses that are wanted, and has the neighbours on the ways kept known. The result
    /// is the addresses whose way is another than before.
    pub(crate) fn note_all(&mut self, answers: &Answers) -> BTreeSet<IpAddr> {
        let (changed, neighbours) = self.note(answers);
        self.ways.retain(|address, _| answers.contains_key(address));
        self.silent.retain(|address, _| answers.contains_key(address));
        let is_due = self.is_due();
        if is_due {
            self.swept = Some(Instant::now());
        }
        // Between two sweeps the kernel is at it.
        let is_asked = |&(_, is_known): &(&Neighbour, &bool)| is_due && !is_known;
        let unknown = neighbours
            .iter()
            .filter(is_asked)
            .map(|(neighbour, _)| *neighbour);
        let wanted = neighbours.keys().copied().collect();
        let outcome = self.neighbours.keep(&wanted, &unknown.collect());
        let refusal = outcome.err().map(|error| error.to_string());
        if refusal != self.refusal {
            if let Some(error) = &refusal {
                tracing::warn!(
                    error,
                    "the kernel does not keep the MAC addresses of all next hops known"
                );
            }
            self.refusal = refusal;
        }
        changed
    }

    /// Takes note of the answers for some addresses. The result is those whose way is another than before, and the neighbours
    /// on the ways, each with whether its MAC address is known.
    pub(crate) fn note(&mut self, answers: &Answers) -> (BTreeSet<IpAddr>, BTreeMap<Neighbour, bool>) {
        let (mut changed, mut neighbours) = (BTreeSet::new(), BTreeMap::new());
        for (&address, answers) in answers {
            let (way, of_way) = self.links().judge(address, answers);
            for (neighbour, is_known) in of_way {
                *neighbours.entry(neighbour).or_insert(true) &= is_known;
            }
            if !self.holds(address, &way) && self.ways.get(&address) != Some(&way) {
                changed.insert(address);
                self.ways.insert(address, way);
            }
        }
        (changed, neighbours)
    }

    /// Whether what was found before is held on to, though the kernel has forgotten the MAC address.
    fn holds(&mut self, address: IpAddr, way: &Way) -> bool {
        let Way::Silent(neighbour) = way else {
            self.silent.remove(&address);
            return false;
        };
        let since = self.silent.entry(address).or_insert_with(Instant::now);
        let before = self.ways.get(&address);
        matches!(before, Some(Way::Known(before, _)) if before == neighbour) && since.elapsed() < HOLD
    }

    /// Whether all is to be looked at, whatever the kernel tells.
    pub(crate) fn is_due(&self) -> bool {
        self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP)
    }

    /// Tells the operator of workers that packets do not get to, and when they do again.
    pub(crate) fn tell(&mut self) {
        let mut told = BTreeMap::new();
        for (address, way) in &self.ways {
            let (before, now) = (self.told.get(address), self.links().obstacle(way));
            match &now {
                Some(why) if before != Some(why) => {
                    tracing::warn!(%address, why, "packets do not get to a worker");
                }
                None if before.is_some() => tracing::info!(%address, "packets get to a worker again"),
                Some(_) | None => {}
            }
            told.extend(now.map(|why| (*address, why)));
        }
        self.told = told;
    }
}

/// The address whose next hop is asked for on the way to a worker; `None` if it is configured, or the worker is here.
pub(crate) fn asked_for(entry: &worker::Entry) -> Option<IpAddr> {
    let asks = entry.mode != worker::LOCAL && entry.state != worker::ABSENT && entry.next_hop == [0; 6];
    asks.then(|| IpAddr::from(entry.address))
}

#[cfg(test)]
mod tests {
    use edge_common::Address;
    use edge_common::route::{FOUND, NO_NEIGHBOUR};

    use super::*;

    #[test]
    fn an_answer_for_one_address_leaves_what_is_known_of_others() {
        let ingress = Ingress {
            device: 1,
            is_native: false,
        };
        let mut next_hops = NextHops::open(vec![ingress]).expect("netlink answers");
        let [near, far] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        let answer = |address: IpAddr, answer| {
            let lookup = Lookup {
                next_hop: Address::from(address),
                interface: 1,
                answer,
                ..Lookup::default()
            };
            (address, vec![(ingress, lookup)])
        };
        let both = Answers::from([answer(near, FOUND), answer(far, NO_NEIGHBOUR)]);
        assert_eq!(next_hops.note(&both).0, BTreeSet::from([near, far]));
        assert!(next_hops.is_open(far) && !next_hops.is_open(near));
        for (later, changed) in [
            (NO_NEIGHBOUR, BTreeSet::new()),
            (FOUND, BTreeSet::from([far])),
            (FOUND, BTreeSet::new()),
        ] {
            assert_eq!(next_hops.note(&Answers::from([answer(far, later)])).0, changed);
            assert!(next_hops.has(near));
        }
        assert!(!next_hops.is_open(far));
        assert_eq!(next_hops.known().count(), 2);
        // A MAC address that the kernel has forgotten is held on to for a while.
        let forgotten = Answers::from([answer(near, NO_NEIGHBOUR)]);
        assert_eq!(next_hops.note(&forgotten).0, BTreeSet::new());
        assert_eq!(next_hops.known().count(), 2);
    }
}
