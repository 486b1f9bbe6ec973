//! The MSS that the kernel would offer to clients on the ways by an interface (`dst_metric_advmss`).
//!
//! `bpf_fib_lookup` says the interface and the next hop of a route, but not its metrics, and among them is the MSS
//! (`advmss`, ip-route(8)), by which a node behind a tunnel asks its clients for segments that fit into it. So the routes are read
//! here, and each interface gets the least MSS of all that leave by it: never more than the kernel would offer.

use std::collections::BTreeMap;
use std::{fs, io};

use edge_common::header::{IPV4_LEN, IPV6_LEN, TCP_LEN};
use edge_common::route::Uplink;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteType};

use crate::devices::Device;
use crate::netlink::Netlink;
use crate::routes;

/// Holds interfaces, which have what they allow by themselves, to what their routes allow. The result is whether any route has
/// a say, be it by another interface.
pub(crate) fn limit_by_routes(interfaces: &mut BTreeMap<u32, Uplink>) -> io::Result<bool> {
    let mut has_say = false;
    let mut netlink = Netlink::open()?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for route in routes::all(&mut netlink, family)? {
            for leaves in leaves(&route) {
                has_say |= leaves.has_metrics();
                if let Some(uplink) = interfaces.get_mut(&leaves.interface) {
                    leaves.limit(uplink);
                }
            }
        }
    }
    Ok(has_say)
}

/// Whether a route has a say in the MSS.
pub(crate) fn has_say(route: &RouteMessage) -> bool {
    leaves(route).iter().any(Leaves::has_metrics)
}

/// What all the interfaces allow; `None` if there are none.
pub(crate) fn least<'u>(interfaces: impl IntoIterator<Item = &'u Uplink>) -> Option<Uplink> {
    interfaces.into_iter().copied().reduce(|least, other| Uplink {
        mss4: least.mss4.min(other.mss4),
        mss6: least.mss6.min(other.mss6),
    })
}

/// What an interface's own MTU allows.
pub(crate) fn own(device: &Device) -> Uplink {
    let file = format!("/proc/sys/net/ipv6/conf/{}/mtu", device.name);
    // Routers may announce a smaller one for IPv6 alone (RFC 4861 4.6.4).
    let mtu6 = fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    Uplink {
        mss4: mss(device.mtu, false),
        mss6: mss(mtu6.unwrap_or(device.mtu), true),
    }
}

/// The MSS for an MTU: at least what the kernel offers whatever that is (`ipv4_default_advmss`, `ip6_default_advmss`, with the
/// defaults of `min_adv_mss`), and at most what goes into the largest packet (`IP_MAX_MTU`, `IP6_MAX_MTU`: that of IPv6 does not
/// count its header).
fn mss(mtu: u32, is_v6: bool) -> u16 {
    let (headers, least, most) = if is_v6 {
        (IPV6_LEN + TCP_LEN, 1220, u16::MAX - TCP_LEN as u16)
    } else {
        let headers = IPV4_LEN + TCP_LEN;
        (headers, 256, u16::MAX - headers as u16)
    };
    u16::try_from(mtu.saturating_sub(headers as u32))
        .unwrap_or(most)
        .clamp(least, most)
}

/// How a route leaves by an interface.
#[derive(Debug, PartialEq, Eq)]
struct Leaves {
    interface: u32,
    is_v6: bool,
    /// Its metrics, if it has them.
    advmss: Option<u32>,
    mtu: Option<u32>,
}

impl Leaves {
    /// Whether the MSS is not that of the interface.
    const fn has_metrics(&self) -> bool {
        self.advmss.is_some() || self.mtu.is_some()
    }

    /// Holds an interface to what the route allows.
    fn limit(&self, uplink: &mut Uplink) {
        let of = if self.is_v6 {
            &mut uplink.mss6
        } else {
            &mut uplink.mss4
        };
        let limit = match (self.advmss, self.mtu) {
            (Some(advmss), _) => u16::try_from(advmss).unwrap_or(u16::MAX),
            (None, Some(mtu)) => mss(mtu, self.is_v6),
            (None, None) => return,
        };
        *of = limit.min(*of);
    }
}

/// The ways of a route to somewhere else.
fn leaves(route: &RouteMessage) -> Vec<Leaves> {
    let mut interfaces = Vec::new();
    let (mut advmss, mut mtu) = (None, None);
    if route.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(interface) = attribute {
            interfaces.push(*interface);
        }
        if let RouteAttribute::MultiPath(hops) = attribute {
            interfaces.extend(hops.iter().map(|hop| hop.interface_index));
        }
        if let RouteAttribute::Metrics(metrics) = attribute {
            for metric in metrics {
                if let RouteMetric::Advmss(value) = metric {
                    advmss = Some(*value);
                }
                if let RouteMetric::Mtu(value) = metric {
                    mtu = Some(*value);
                }
            }
        }
    }
    let is_v6 = route.header.address_family == AddressFamily::Inet6;
    let leaves = |interface| Leaves {
        interface,
        is_v6,
        advmss,
        mtu,
    };
    interfaces.into_iter().map(leaves).collect()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteNextHop;

    use super::*;

    fn route(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.kind = RouteType::Unicast;
        route.attributes = attributes;
        route
    }

    #[test]
    fn an_interface_offers_the_least_of_what_its_routes_do() {
        use AddressFamily::{Inet, Inet6};
        let by = |interface| RouteAttribute::Oif(interface);
        let metrics = |metrics: &[RouteMetric]| RouteAttribute::Metrics(metrics.into());
        let advmss = |value| metrics(&[RouteMetric::Advmss(value)]);
        let hop = |interface_index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop
        };
        let both = RouteAttribute::MultiPath(vec![hop(7), hop(2)]);
        let rows = [
            ("no metrics", route(Inet, vec![by(2)]), (1460, 1440)),
            ("an MSS", route(Inet, vec![by(2), advmss(1400)]), (1400, 1440)),
            ("of IPv6", route(Inet6, vec![advmss(1380), by(2)]), (1460, 1380)),
            ("another's", route(Inet, vec![by(3), advmss(1400)]), (1460, 1440)),
            (
                "more than the interface has",
                route(Inet, vec![by(2), advmss(8960)]),
                (1460, 1440),
            ),
            (
                "an MTU",
                route(Inet, vec![by(2), metrics(&[RouteMetric::Mtu(1400)])]),
                (1360, 1440),
            ),
            (
                "both",
                route(
                    Inet6,
                    vec![
                        by(2),
                        metrics(&[RouteMetric::Mtu(1400), RouteMetric::Advmss(1300)]),
                    ],
                ),
                (1460, 1300),
            ),
            (
                "several next hops",
                route(Inet, vec![both, advmss(1340)]),
                (1340, 1440),
            ),
        ];
        for (name, route, expected) in rows {
            let mut uplink = own(&Device::plain(2, "no-such-if0"));
            let ways = leaves(&route);
            ways.iter()
                .filter(|leaves| leaves.interface == 2)
                .for_each(|leaves| leaves.limit(&mut uplink));
            assert_eq!((uplink.mss4, uplink.mss6), expected, "{name}");
            assert_eq!(has_say(&route), name != "no metrics", "{name}");
        }
        let mut local = route(Inet, vec![by(2), advmss(600)]);
        local.header.kind = RouteType::Local;
        assert_eq!((leaves(&local), has_say(&local)), (vec![], false));
    }

    #[test]
    fn the_least_is_that_of_each_family() {
        let [some, other] = [(1460, 1220), (1360, 1440)].map(|(mss4, mss6)| Uplink { mss4, mss6 });
        let both = Uplink {
            mss4: 1360,
            mss6: 1220,
        };
        assert_eq!(least(&[some, other]), Some(both));
        assert_eq!((least(&[some]), least(&[])), (Some(some), None));
    }

    #[test]
    fn the_mss_of_an_mtu_is_the_kernels() {
        assert_eq!((mss(1500, false), mss(1500, true)), (1460, 1440));
        assert_eq!((mss(9000, false), mss(9000, true)), (8960, 8940));
        assert_eq!((mss(65_536, false), mss(65_536, true)), (65_495, 65_476));
        assert_eq!((mss(u32::MAX, false), mss(u32::MAX, true)), (65_495, 65_515));
        assert_eq!((mss(0, false), mss(0, true)), (256, 1220));
    }
}
